"""Finding and loading TensorRT's Python bindings, and the few places where its kinds differ.

Two libraries with one API: `tensorrt` (10 and 11, builds for the GPU that is there) and `tensorrt_rtx` (TensorRT for
RTX, builds for any GPU on any machine). Nothing is imported before `load_tensorrt` is called. Only TensorRT for RTX has
been loaded and has built; no engine of either has run on a device.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.engine_spec import ComputeCapability
from engines.errors import EngineBuildError, EngineLibraryError

TENSORRT = "tensorrt"
TENSORRT_RTX = "tensorrt_rtx"
# In the order in which they are tried: TensorRT measures its kernels on the GPU that is there.
LIBRARIES = (TENSORRT, TENSORRT_RTX)

# TensorRT 10.1 brought the memory calls of the runner (`device_memory_size_v2`), every TensorRT for RTX has them.
OLDEST_VERSIONS = {TENSORRT: (10, 1), TENSORRT_RTX: (1, 0)}
PIP_COMMANDS = {
    TENSORRT: "pip install 'framelane[gpu]'",
    TENSORRT_RTX: "pip install 'framelane[rtx]'",
}

# Names under which the bindings are installed: NVIDIA's own packages, then the bindings' wheels alone.
_BINDINGS = {TENSORRT: ("tensorrt", "tensorrt_bindings"), TENSORRT_RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
# Packages that carry the shared libraries. The bindings look into the first one of each by themselves.
_CARRIERS = {
    TENSORRT: ("tensorrt_libs",),
    TENSORRT_RTX: ("tensorrt_rtx_libs", "onnxruntime_ep_nv_tensorrt_rtx"),
}
# What must be loaded before the bindings of TensorRT for RTX, in this order.
_RTX_LIBRARIES = ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TensorRtLibrary:
    """TensorRT's bindings, loaded.

    Attributes:
        name: `tensorrt` or `tensorrt_rtx`.
        version: of the bindings, such as `11.4.0.106`.
        module: the bindings themselves.
    """

    name: str
    version: str
    module: Any

    @property
    def is_rtx(self) -> bool:
        """Whether it builds for GPUs that are not there."""
        return self.name == TENSORRT_RTX

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def load_tensorrt(name: str | None = None) -> TensorRtLibrary:
    """Load one of the two libraries.

    Args:
        name: `tensorrt` or `tensorrt_rtx`; None: the first of them that can be loaded.

    Raises:
        EngineLibraryError: it is missing, half installed or too old.
    """
    if name is not None and name not in LIBRARIES:
        raise EngineLibraryError(f"TensorRT: got library {name!r}, allowed are {' and '.join(LIBRARIES)}")
    problems: list[EngineLibraryError] = []
    for candidate in LIBRARIES if name is None else (name,):
        try:
            library = _load(candidate)
        except EngineLibraryError as err:
            problems.append(err)
            continue
        # One that is there but broken would surprise its owner by never being used.
        for problem in problems:
            if not isinstance(problem, _NotInstalledError):
                _log.warning("%s is used, because %s", library, problem)
        return library
    raise EngineLibraryError("; ".join(map(str, problems)))


def strongly_typed_flags(library: TensorRtLibrary) -> int:
    """Flags of `Builder.create_network`: 10 must be told that the graph's types count, 11 knows no other way."""
    return 1 << int(library.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def set_target(
    library: TensorRtLibrary, config: Any, wanted: ComputeCapability, device: ComputeCapability | None
) -> None:
    """Tell the builder for which GPU it builds.

    Args:
        library: which TensorRT.
        config: its builder configuration.
        wanted: for which GPU.
        device: of the GPU that is there; None: none is. Only plain TensorRT needs it: it builds for no other.

    Raises:
        EngineBuildError: this library cannot build for that GPU here.
    """
    if not library.is_rtx:
        if device != wanted:
            there = f"a GPU of compute capability {device}" if device else "no GPU"
            raise EngineBuildError(
                f"build for compute capability {wanted}: got {there} and {library}, which builds only for the GPU that "
                f"is there; build there, or with TensorRT for RTX ({PIP_COMMANDS[TENSORRT_RTX]})"
            )
        return
    known = library.module.ComputeCapability.__members__
    member = known.get(f"SM{wanted.major}{wanted.minor}")
    if member is None:
        allowed = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in known if re.fullmatch(r"SM\d+", name))
        raise EngineBuildError(
            f"compute capability: got {wanted}, allowed with {library} are {allowed}; name one of them, or build with "
            f"TensorRT on the GPU itself ({PIP_COMMANDS[TENSORRT]})"
        )
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(member, 0):
        raise EngineBuildError(f"compute capability: got {wanted}, which {library} refuses to build for")


class _NotInstalledError(EngineLibraryError):
    """The library is not there at all, which is no news; becomes a plain `EngineLibraryError` outside."""


def _load(name: str) -> TensorRtLibrary:
    """Load one library; every message says how far its installation got."""
    pip_command = PIP_COMMANDS[name]
    found = next((module for module in _BINDINGS[name] if _is_installed(module)), None)
    carrier = next((package for package in _CARRIERS[name] if _is_installed(package)), None)
    if found is None:
        half = f"its libraries are (package {carrier}), its Python bindings are " if carrier else ""
        raise _NotInstalledError(f"{name}: {half}not installed; {pip_command}")
    loaded = _load_rtx_libraries(carrier) if name == TENSORRT_RTX and carrier is not None else None
    try:
        module = importlib.import_module(found)
    except Exception as err:  # a broken native module raises what it likes
        without = "" if carrier else " without NVIDIA's libraries"
        raise EngineLibraryError(
            f"{name}: got Python bindings ({found}){without} that cannot be loaded ({_first_line(err)}); {pip_command}"
        ) from err
    version = str(getattr(module, "__version__", "unknown"))
    _check_version(name, version, module)
    if loaded is not None:
        _check_pair(version, loaded)
    return TensorRtLibrary(name, version, module)


def _load_rtx_libraries(carrier: str) -> Path:
    """Make the libraries of a wheel visible to the bindings, which search only the system's folders.

    Answers the file of the first one, whose name ends in its version.
    """
    spec = importlib.util.find_spec(carrier)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    loaded: list[Path] = []
    for base in _RTX_LIBRARIES:
        paths = sorted(path for folder in folders for path in Path(folder).glob(f"{base}*"))
        if not paths:
            raise EngineLibraryError(
                f"{TENSORRT_RTX}: got the package {carrier} without {base} in {', '.join(folders)}; "
                f"{PIP_COMMANDS[TENSORRT_RTX]} --force-reinstall"
            )
        try:
            ctypes.CDLL(str(paths[-1]), mode=ctypes.RTLD_GLOBAL)
        except OSError as err:
            raise EngineLibraryError(
                f"{TENSORRT_RTX}: got the library {paths[-1]}, which cannot be loaded ({_first_line(err)}); "
                f"{PIP_COMMANDS[TENSORRT_RTX]} --force-reinstall"
            ) from err
        loaded.append(paths[-1])
    return loaded[0]


def _check_pair(version: str, library: Path) -> None:
    """Bindings and libraries come in wheels of their own, which may be of different versions."""
    match = re.search(r"\.so\.(\d+\.\d+)", library.name)
    if match is not None and not version.startswith(f"{match[1]}."):
        raise EngineLibraryError(
            f"{TENSORRT_RTX}: got Python bindings {version} with libraries of another version ({library}), allowed is "
            f"one version of both; pip install 'tensorrt-rtx-cu12-bindings=={match[1]}.*'"
        )


def _check_version(name: str, version: str, module: Any) -> None:
    oldest = OLDEST_VERSIONS[name]
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < oldest or not hasattr(module, "Builder"):
        got = version if hasattr(module, "Builder") else f"{version} without its builder (a lean or dispatch runtime)"
        raise EngineLibraryError(
            f"{name}: got version {got}, allowed is {'.'.join(map(str, oldest))} or newer; "
            f"{PIP_COMMANDS[name]} --upgrade"
        )


def _is_installed(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a module without a spec, such as a half-removed one
        return False
    # A folder on the module path that only happens to have this name has no origin.
    return spec is not None and spec.origin is not None


def _first_line(err: BaseException) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:200]
