"""Loading TensorRT: which library is taken, and what is said of one that is missing, half there or too old.

Packages are stood in for by small ones on the module path: what they cannot show, `tests/tensorrt` does.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from engines.engine_spec import ComputeCapability
from engines.errors import EngineBuildError, EngineLibraryError
from engines.tensorrt_library import TensorRtLibrary, load_tensorrt, set_target

NAMES = (
    *("tensorrt", "tensorrt_bindings", "tensorrt_libs", "tensorrt_rtx", "tensorrt_rtx_bindings", "tensorrt_rtx_libs"),
    "onnxruntime_ep_nv_tensorrt_rtx",
)
GOOD = "class Builder: pass\n"
NO_LIBRARY = "raise ImportError('libnvinfer.so.11: cannot open shared object file')\n"


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Makes packages with these sources, by name; no other TensorRT can be found."""
    installed = {}
    real_find_spec = sys.modules["importlib.util"].find_spec

    def find_spec(name, package=None):
        return real_find_spec(name, package) if name not in NAMES or name in installed else None

    def install(**sources):
        installed.update(sources)
        for name, source in sources.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(source)

    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    for name in installed:
        sys.modules.pop(name, None)


def bindings(version):
    """The source of bindings that can be loaded."""
    return f"__version__ = {version!r}\n{GOOD}"


@pytest.mark.usefixtures("packages")
def test_without_any_library_both_installations_are_named():
    """The cure stands in the message."""
    with pytest.raises(EngineLibraryError) as caught:
        load_tensorrt()
    assert "pip install 'framelane[gpu]'" in str(caught.value)
    assert "pip install 'framelane[rtx]'" in str(caught.value)


@pytest.mark.usefixtures("packages")
def test_a_library_that_was_named_is_the_only_one_that_counts():
    """Who asks for one is told of that one."""
    with pytest.raises(EngineLibraryError) as caught:
        load_tensorrt("tensorrt_rtx")
    assert str(caught.value) == "tensorrt_rtx: not installed; pip install 'framelane[rtx]'"


def test_an_unknown_name_lists_the_known_ones():
    """A slip of the pen is no missing installation."""
    with pytest.raises(EngineLibraryError, match="got library 'tensort', allowed are tensorrt and tensorrt_rtx"):
        load_tensorrt("tensort")


def test_tensorrt_comes_before_tensorrt_for_rtx(packages):
    """It measures its kernels on the GPU that is there."""
    packages(tensorrt=bindings("11.4.0.106"), tensorrt_libs="", tensorrt_rtx_bindings=bindings("1.7.1.116"))
    library = load_tensorrt()
    assert (library.name, library.version, library.is_rtx) == ("tensorrt", "11.4.0.106", False)
    assert load_tensorrt("tensorrt_rtx").is_rtx


def test_the_bindings_wheel_alone_is_found_too(packages):
    """Its libraries may come from the system's packages."""
    packages(tensorrt_bindings=bindings("10.9.0.34"))
    assert str(load_tensorrt()) == "tensorrt 10.9.0.34"


def test_bindings_without_libraries_are_told_apart(packages):
    """The message says which half is there, and what the loader said."""
    packages(tensorrt_bindings=NO_LIBRARY)
    with pytest.raises(EngineLibraryError) as caught:
        load_tensorrt("tensorrt")
    assert "got Python bindings (tensorrt_bindings) without NVIDIA's libraries" in str(caught.value)
    assert "libnvinfer.so.11" in str(caught.value)


def test_a_folder_that_is_named_like_the_library_is_not_it(packages, tmp_path):
    """Such as a project's own folder `tensorrt` in the working directory."""
    packages(tensorrt="")
    (tmp_path / "tensorrt" / "__init__.py").unlink()
    with pytest.raises(EngineLibraryError, match=r"^tensorrt: not installed"):
        load_tensorrt("tensorrt")


def test_libraries_without_bindings_are_told_apart(packages):
    """The other half."""
    packages(onnxruntime_ep_nv_tensorrt_rtx="")
    with pytest.raises(EngineLibraryError) as caught:
        load_tensorrt("tensorrt_rtx")
    assert "its libraries are (package onnxruntime_ep_nv_tensorrt_rtx), its Python bindings are not" in str(
        caught.value
    )


def test_a_carrier_without_its_library_is_told_apart(packages):
    """A package that was half removed."""
    packages(onnxruntime_ep_nv_tensorrt_rtx="", tensorrt_rtx_bindings=bindings("1.7.1.116"))
    with pytest.raises(EngineLibraryError, match=r"without libtensorrt_rtx\.so in .*--force-reinstall"):
        load_tensorrt("tensorrt_rtx")


def test_a_library_file_that_cannot_be_loaded_is_told_apart(packages, tmp_path):
    """Such as one whose download broke off."""
    packages(onnxruntime_ep_nv_tensorrt_rtx="", tensorrt_rtx_bindings=bindings("1.7.1.116"))
    (tmp_path / "onnxruntime_ep_nv_tensorrt_rtx" / "libtensorrt_rtx.so.1.7.1").write_bytes(b"half")
    with pytest.raises(EngineLibraryError, match=r"libtensorrt_rtx\.so\.1\.7\.1, which cannot be loaded"):
        load_tensorrt("tensorrt_rtx")


def test_bindings_and_libraries_of_two_versions_are_refused(packages, tmp_path, monkeypatch):
    """They come in two wheels; the message says which version of the bindings fits."""
    packages(onnxruntime_ep_nv_tensorrt_rtx="", tensorrt_rtx_bindings=bindings("1.8.0.12"))
    for name in ("libtensorrt_rtx.so.1.7.1", "libtensorrt_onnxparser_rtx.so.1.7.1"):
        (tmp_path / "onnxruntime_ep_nv_tensorrt_rtx" / name).write_bytes(b"")
    monkeypatch.setattr("ctypes.CDLL", lambda path, mode: (path, mode))
    with pytest.raises(EngineLibraryError, match=r"bindings 1\.8\.0\.12 with .*1\.7\.1\).*bindings==1\.7\.\*'"):
        load_tensorrt("tensorrt_rtx")


def test_a_broken_library_does_not_hide_a_sound_one(packages, caplog):
    """It is passed over, and the log says why."""
    packages(tensorrt=NO_LIBRARY, tensorrt_rtx_bindings=bindings("1.7.1.116"))
    assert load_tensorrt().name == "tensorrt_rtx"
    assert "tensorrt_rtx 1.7.1.116 is used, because tensorrt: got Python bindings" in caplog.text


def test_a_missing_library_is_not_worth_a_warning(packages, caplog):
    """Most machines have one of the two."""
    packages(tensorrt_rtx_bindings=bindings("1.7.1.116"))
    load_tensorrt()
    assert caplog.text == ""


@pytest.mark.parametrize("version", ["8.6.1", "9.3.0", "10.0.1"])
def test_an_old_version_is_refused_with_what_is_allowed(packages, version):
    """Its API lacks what the runner calls."""
    packages(tensorrt=bindings(version))
    with pytest.raises(EngineLibraryError) as caught:
        load_tensorrt("tensorrt")
    assert f"got version {version}, allowed is 10.1 or newer; pip install 'framelane[gpu]' --upgrade" in str(
        caught.value
    )


def test_a_runtime_without_a_builder_is_refused(packages):
    """The lean and dispatch packages run engines only."""
    packages(tensorrt="__version__ = '11.4.0.106'\n")
    with pytest.raises(EngineLibraryError, match="without its builder"):
        load_tensorrt("tensorrt")


@pytest.mark.parametrize("device", [None, ComputeCapability(8, 6)], ids=["no-gpu", "another-gpu"])
def test_tensorrt_builds_for_no_gpu_but_the_one_that_is_there(device):
    """An engine of another GPU would be wrong or slow."""
    library = TensorRtLibrary("tensorrt", "11.4.0.106", SimpleNamespace())
    with pytest.raises(EngineBuildError, match=r"8\.9: got .*GPU.* builds only for the GPU that is there"):
        set_target(library, SimpleNamespace(), ComputeCapability(8, 9), device)


def test_tensorrt_needs_no_word_of_the_gpu_that_is_there():
    """It has no call for it, so none is made."""
    library = TensorRtLibrary("tensorrt", "11.4.0.106", SimpleNamespace())
    set_target(library, SimpleNamespace(), ComputeCapability(8, 9), ComputeCapability(8, 9))
