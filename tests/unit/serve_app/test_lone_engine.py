"""`framelane parity --runner tensorrt` where it cannot run; where it can it is simulated, in tests/tensorrt."""

from __future__ import annotations

import pytest

from engines import tensorrt_library
from engines.errors import DeviceError, EngineLibraryError
from engines.tensorrt_library import TensorRtLibrary
from serve_app import tensorrt_pool
from serve_app.cli import main
from serve_app.cli.parity import RUNNERS


@pytest.fixture
def parity(monkeypatch, capsys):
    """Runs the command as a user does; answers its exit status and what it says on standard error."""

    def run():
        monkeypatch.setattr("sys.argv", ["framelane", "parity", "bundled:inspection-light", "--runner", "tensorrt"])
        monkeypatch.setattr("serve_app.check_frames.SCENE_SIZES_HW", ((320, 320),))
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return run


def test_without_tensorrt_the_command_names_how_to_install_it(parity, monkeypatch):
    """Either library will do."""
    monkeypatch.setattr(tensorrt_library, "_is_installed", lambda _: False)
    status, said = parity()
    assert status == 1
    assert "error: tensorrt: not installed; pip install 'framelane[gpu]'" in said
    assert "pip install 'framelane[rtx]'" in said


@pytest.mark.parametrize(
    "error",
    [
        EngineLibraryError("nvmlInit: NVML answers not found; install NVIDIA's driver"),
        DeviceError("GPU 0: this process sees none"),
    ],
    ids=["no-driver", "no-gpu"],
)
def test_without_a_gpu_the_command_says_so(parity, monkeypatch, error):
    """In the words of who looked for it."""

    def refuse(_):
        raise error

    monkeypatch.setattr(tensorrt_pool, "load_tensorrt", lambda: TensorRtLibrary("tensorrt", "11.4", None))
    monkeypatch.setattr(tensorrt_pool, "open_device", refuse)
    status, said = parity()
    assert (status, str(error) in said) == (1, True)


def test_facts_that_cannot_be_had_let_go_of_nvml(monkeypatch):
    """A GPU that is lost while it is asked for its name."""
    closed = []

    class LostGpu:
        def facts(self):
            raise DeviceError("GPU is lost")

        def close(self):
            closed.append(1)

    monkeypatch.setattr(tensorrt_pool, "load_tensorrt", lambda: TensorRtLibrary("tensorrt", "11.4", None))
    monkeypatch.setattr(tensorrt_pool, "open_device", lambda _: LostGpu())
    with pytest.raises(DeviceError, match="GPU is lost"):
        tensorrt_pool.gpu_here()
    assert closed == [1]


def test_the_runner_takes_any_precision():
    """`--precision` says which; others of the table know just their own."""
    assert {name: runner.precision is None for name, runner in RUNNERS.items()} == {
        "onnx-fp32": False, "onnx-fp16": False, "tensorrt": True
    }  # fmt: skip
