"""`framelane plan --gpus 1 --engines FOLDER`: memory as the builder measured it, of engines that are in a folder."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from engines.engine_file import save_engine
from engines.engine_spec import BuiltEngine, ComputeCapability, EngineFacts, Precision, ShapeProfile
from engines.errors import EngineError, EngineFileError
from engines.prepared_graph import prepared_onnx
from engines.spec import CanvasShape
from serve_app.cli import plan as plan_command
from serve_app.config import DEFAULT_MODEL, load_plan, model_path
from serve_app.errors import FramelaneError, InvalidPlanError
from serve_app.plan import Runtime

MIB = 2**20
HD = CanvasShape(736, 1280)
CAMERAS = "cameras: [{name: gate, size: [480, 640], fps: 3}, {name: belt, size: [720, 1280], fps: 1}]"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command in an empty folder that holds `fleet.yaml`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.yaml").write_text(CAMERAS)
    app = typer.Typer()
    app.command()(plan_command.plan)

    def call(*args):
        answer = CliRunner().invoke(app, ["fleet.yaml", *map(str, args)], env={"COLUMNS": "80"})
        if isinstance(answer.exception, (FramelaneError, EngineError)):
            raise answer.exception
        assert answer.exit_code == 0, answer.output
        return answer

    return call


@pytest.fixture(scope="module")
def sha256_of():
    """Of the default model's graph in a precision."""
    path = model_path(DEFAULT_MODEL)
    return {precision: prepared_onnx(path, precision).sha256 for precision in (Precision.FP16, Precision.FP32)}


@pytest.fixture
def built(tmp_path):
    """Writes an engine file, in a folder of its GPU's model, and answers the folder of all."""

    def write(sha256, canvas=HD, batch=1, *, activation_mib=100, weights_mib=10):
        facts = EngineFacts(
            library="tensorrt",
            library_version="0.0",
            compute_capability=ComputeCapability(8, 9),
            precision=Precision.FP16,
            profile=ShapeProfile.around([canvas], [1, batch]),
            onnx_sha256=sha256,
            activation_bytes=activation_mib * MIB,
            weights_bytes=weights_mib * MIB,
            build_s=1.0,
        )
        folder = tmp_path / "engines" / "NVIDIA-L4"
        folder.mkdir(parents=True, exist_ok=True)
        save_engine(folder / f"{sha256[:6]}-{canvas}-{batch}.engine", BuiltEngine(b"a plan", facts), {"of": sha256})
        return tmp_path / "engines"

    return write


def test_a_plan_for_gpus_runs_on_tensorrt_and_needs_no_engine(run, tmp_path):
    """Its memory is an estimate then."""
    run("--gpus", 1, "--memory-mib", 90)
    (pool,) = load_plan(tmp_path / "plan.yaml").pools
    assert (pool.runtime, pool.num_gpus) == (Runtime.TENSORRT, 1.0)


def test_memory_is_that_of_the_engines_in_the_folder(run, built, sha256_of):
    """Weights and activations of one that was built; the limit that the estimate kept is too low for them."""
    folder = built(sha256_of[Precision.FP16])
    with pytest.raises(InvalidPlanError, match=r"got a limit of 90 MiB, allowed is 110 MiB or more"):
        run("--gpus", 1, "--engines", folder, "--memory-mib", 90)
    run("--gpus", 1, "--engines", folder, "--memory-mib", 120)


def test_two_buckets_share_the_arena_of_the_larger_one(run, built, sha256_of, tmp_path):
    """Twice the weights and once the activations fit; with 1 MiB less the buckets become one."""
    folder = built(sha256_of[Precision.FP16])
    run("--gpus", 1, "--engines", folder, "--memory-mib", 120, "--max-batch", 1, "--out", "two.yaml")
    run("--gpus", 1, "--engines", folder, "--memory-mib", 119, "--max-batch", 1, "--out", "one.yaml")
    assert [len(load_plan(tmp_path / name).buckets) for name in ("two.yaml", "one.yaml")] == [2, 1]


def test_engines_of_another_precision_do_not_count(run, built, sha256_of):
    """They are of another graph; `--precision` says which ones do."""
    folder = built(sha256_of[Precision.FP32])
    run("--gpus", 1, "--engines", folder, "--precision", "fp32")
    with pytest.raises(
        FramelaneError, match=r"got no engine of inspection-full\.onnx in fp16, .*make them with: framelane build"
    ):
        run("--gpus", 1, "--engines", folder)


def test_a_folder_without_an_engine_of_this_model_is_refused(run, built):
    """Engines of other models are passed over, as are damaged files."""
    folder = built("0" * 64)
    (folder / "damaged.engine").write_bytes(b"framelane engine")
    with pytest.raises(FramelaneError, match=r"got no engine of inspection-full\.onnx in fp16"):
        run("--gpus", 1, "--engines", folder)


def test_a_folder_that_is_not_there_is_refused(run, tmp_path):
    """It is named."""
    with pytest.raises(EngineFileError, match=r"engines .*nowhere: is no folder"):
        run("--gpus", 1, "--engines", tmp_path / "nowhere")


def test_engines_without_gpus_are_refused(run, built, sha256_of):
    """Figures of a GPU mean nothing for ONNX Runtime."""
    folder = built(sha256_of[Precision.FP16])
    with pytest.raises(FramelaneError, match="--engines: got a folder for a plan without GPUs, allowed is with --gpus"):
        run("--engines", folder)
