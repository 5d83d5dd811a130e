"""The timings that one build leaves for the next: a file for each library, version and GPU architecture.

Plain TensorRT only: TensorRT for RTX tunes on the user's machine, its timing cache calls do nothing (1.7.1 says so).
Never run on a device: written against the signatures of the bindings of TensorRT 11.4.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from filelock import FileLock

from engines.atomic_file import write_atomically
from engines.engine_spec import ComputeCapability
from engines.tensorrt_library import TensorRtLibrary

_log = logging.getLogger(__name__)


class TimingCache:
    """A folder of timing caches that builds read and add to, one file for each (library, version, GPU)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, library: TensorRtLibrary, capability: ComputeCapability) -> Path:
        """The file of one library and GPU architecture."""
        return self._folder / f"{library.name}-{library.version}-sm{capability.major}{capability.minor}.timings"

    def attach(self, config: Any, library: TensorRtLibrary, capability: ComputeCapability) -> None:
        """Give a build the timings that are there. Timings that the library refuses are left out, with a warning."""
        if library.is_rtx:
            return
        path = self.path(library, capability)
        try:
            stored = path.read_bytes() if path.is_file() else b""
        except OSError as err:
            _log.warning("timing cache %s: cannot be read (%s); this build measures anew", path, err.strerror or err)
            stored = b""
        cache = config.create_timing_cache(stored)  # None: bytes that it cannot read
        if cache is not None and config.set_timing_cache(cache, False):  # positional in the bindings
            return
        if stored:
            _log.warning(
                "timing cache %s: %s refuses it (another GPU or driver, or damaged); this build measures anew",
                path,
                library,
            )
        config.set_timing_cache(config.create_timing_cache(b""), False)

    def keep(self, config: Any, library: TensorRtLibrary, capability: ComputeCapability) -> None:
        """Add what a build measured to the file; a folder that cannot be written costs a warning, not the build."""
        if library.is_rtx:
            return
        measured = config.get_timing_cache()
        if measured is None:
            return
        path = self.path(library, capability)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                # Another build may have added its own since this one began.
                others = config.create_timing_cache(path.read_bytes()) if path.is_file() else None
                if others is not None and not measured.combine(others, False):
                    _log.info("timing cache %s: of another GPU, replaced", path)
                write_atomically(path, [bytes(measured.serialize())])
        except (OSError, NotImplementedError) as err:
            _log.warning("timing cache %s: cannot be written (%s); the next build measures anew", path, err)
