"""A folder of built engines that processes share: each engine is built once, by one of them, and checked at every load.

It knows files and locks, not how an engine is built: the builder is an argument.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from engines.engine_file import FORMAT_VERSION, EngineKey, load_engine, save_engine
from engines.engine_spec import BuiltEngine, EngineSpec
from engines.errors import EngineFileError
from engines.prepared_graph import PreparedGraph
from engines.tensorrt_build import Verbosity
from engines.tensorrt_library import TensorRtLibrary

# `tensorrt_build.build`, with its options bound.
Build = Callable[[EngineSpec, PreparedGraph, TensorRtLibrary], BuiltEngine]

# Where they lie unless something else is said; `~` is the user's home.
# Enough of the key's hash that no two engines of a folder share a name: 48 bits.
NAME_HASH_CHARS = 12
MAX_MODEL_NAME_CHARS = 40

_log = logging.getLogger(__name__)


class EngineCache:
    """Built engines by what they were built from and for. Safe between threads and processes of one machine.

    One process builds an engine while the others that want it wait, and then use its file. The lock is the kernel's: a
    process that is killed lets go of it. A folder that cannot be written, or a full disk, costs a warning and the next
    start a build; the engine is then used from memory. What a file holds is never used unless it is exactly what was
    asked for.
    """

    def __init__(self, folder: Path) -> None:
        """Store the folder; it is made when the first engine is written."""
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where the engines lie."""
        return self._folder

    def path(
        self,
        spec: EngineSpec,
        graph: PreparedGraph,
        library: TensorRtLibrary,
        *,
        verbosity: Verbosity = Verbosity.LEAN,
    ) -> Path:
        """The file of one engine: model, profile, precision and GPU to read, and a hash of everything that counts."""
        key = engine_key(spec, graph, library, verbosity=verbosity)
        digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()
        model = re.sub(r"[^A-Za-z0-9._-]", "_", spec.model_path.stem)[:MAX_MODEL_NAME_CHARS].lstrip(".") or "model"
        profile = str(spec.profile).replace(" ", "-")
        gpu = f"sm{spec.compute_capability.major}{spec.compute_capability.minor}"
        name = f"{model}_{profile}_{spec.precision.value}_{gpu}_{digest[:NAME_HASH_CHARS]}.engine"
        return self._folder / name

    def get_or_build(
        self,
        spec: EngineSpec,
        graph: PreparedGraph,
        library: TensorRtLibrary,
        *,
        build: Build,
        verbosity: Verbosity = Verbosity.LEAN,
    ) -> BuiltEngine:
        """The engine from its file; built, and its file written, where there is none that is sound.

        Blocks while another process builds the same one.

        Args:
            spec: what the engine must be.
            graph: the graph that it is built from.
            library: the TensorRT that builds and will run it.
            build: builds it; what it raises is raised here, and nothing is written.
            verbosity: what `build` was told; engines of both kinds may lie side by side.
        """
        key = engine_key(spec, graph, library, verbosity=verbosity)
        path = self.path(spec, graph, library, verbosity=verbosity)
        found, problem = _read(path, key)
        if found is not None:
            return found
        try:
            lock = self._locked(path)
        except (OSError, NotImplementedError) as err:  # the second: a file system without locks
            _log.warning(
                "engine cache %s: cannot be written (%s); the engine is built in memory, and again at every start: "
                "name a folder that this user may write",
                self._folder,
                err,
            )
            if problem:
                _log.warning("%s; nothing can be put in its place", problem)
            return build(spec, graph, library)
        try:
            found, problem = _read(path, key)  # another process may have built it while this one waited
            if found is not None:
                return found
            if problem:
                _log.warning("%s; it is built again", problem)
            built = build(spec, graph, library)
            self._save(path, built, key)
            return built
        finally:
            lock.release()

    def _locked(self, path: Path) -> FileLock:
        """This engine's lock, held; says so in the log when another process holds it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # Not reentrant between two calls of one process: each call has a descriptor of its own.
        lock = FileLock(path.with_suffix(".lock"), thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.warning("engine cache %s: another process builds %s; waiting for it", self._folder, path.name)
            lock.acquire()
        return lock

    def _save(self, path: Path, built: BuiltEngine, key: EngineKey) -> None:
        """Write the file, under its lock; a failure costs the file, not the engine."""
        try:
            for leftover in self._folder.glob(f".{path.name}.*.part"):  # of a process that was killed writing
                leftover.unlink(missing_ok=True)
            save_engine(path, built, key)
        except OSError as err:
            _log.warning(
                "engine cache %s: %s cannot be written (%s); the engine is used from memory, and built again at the "
                "next start: make room, or name another folder",
                self._folder,
                path.name,
                err.strerror or err,
            )


def engine_key(
    spec: EngineSpec, graph: PreparedGraph, library: TensorRtLibrary, *, verbosity: Verbosity
) -> dict[str, str | int | None]:
    """Everything that makes one engine another: two builds of one key may stand for each other."""
    return {
        "format": FORMAT_VERSION,
        "onnx_sha256": graph.sha256,
        "profile": str(spec.profile),
        "precision": spec.precision.value,
        "library": library.name,
        "library_version": library.version,
        "compute_capability": str(spec.compute_capability),
        "workspace_bytes": spec.workspace_bytes,
        "verbosity": verbosity.value,
    }


def _read(path: Path, key: EngineKey) -> tuple[BuiltEngine | None, str]:
    """The engine, or None and why there is none of use ('' where there is no file at all)."""
    try:
        return load_engine(path, key), ""
    except FileNotFoundError:
        return None, ""
    except EngineFileError as err:
        return None, str(err)
    except OSError as err:
        return None, f"engine file {path}: cannot be read ({err.strerror or err})"
