"""Calls of TensorRT's runtime, whose every False, None, exception and logged error becomes a named error.

The bindings answer False or None and tell the reason to a logger only, so the two belong together. It has run on a
hand-written fake of the bindings; with the real ones only where no device is needed.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from engines.errors import DeviceError, EngineError, EngineMemoryError
from engines.tensorrt_library import TensorRtLibrary

# How many lines of TensorRT's log an error quotes: the first says what failed, the others where.
QUOTED_LINES = 3
# How TensorRT says that the device is full, in the message of a CUDA error or of its own allocator.
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "cudaerrormemoryallocation")
_LEVELS = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.WARNING}

_log = logging.getLogger(__name__)


class RuntimeCalls:
    """Calls with a name, and the logger that TensorRT is to be given. One thread at a time makes any of them."""

    def __init__(self, library: TensorRtLibrary) -> None:
        """Take the logger that all of this library's calls share: TensorRT keeps the first it is given."""
        self.logger, self._errors = _shared_logger(library.module.ILogger, library.name)

    def ask(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call what answers False or None where it fails; answers all else.

        Raises:
            EngineMemoryError: TensorRT says that the device is full.
            DeviceError: it failed for another reason, which the message quotes.
        """
        answer, cause = self._attempt(function, args)
        if cause is None and answer is not None and answer is not False:
            return answer
        # The error's traceback keeps this frame, and TensorRT's objects must not live as long as an error does.
        del function, args
        raise self._error(name, answer, cause) from cause

    def tell(self, name: str, function: Callable[..., Any], *args: Any) -> None:
        """Call what answers nothing, and of whose failure only the logger is told; raises as `ask` does."""
        answer, cause = self._attempt(function, args)
        del function, args
        if cause is not None or self._errors:
            raise self._error(name, answer, cause) from cause

    def _attempt(self, function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Exception | None]:
        """The answer, or what was raised instead, without its traceback."""
        self._errors.clear()
        try:
            return function(*args), None
        except Exception as err:  # pybind turns the C++ exceptions of TensorRT into several kinds
            return None, err.with_traceback(None)

    def _error(self, name: str, answer: Any, cause: Exception | None) -> EngineError:
        got = str(answer) if cause is None else f"{type(cause).__name__} ({(str(cause).splitlines() or [''])[0][:200]})"
        said = "; ".join(line[:300] for line in self._errors) or (got if cause is not None else "nothing")
        if any(words in said.lower() for words in _OUT_OF_MEMORY):
            return EngineMemoryError(
                f"{name}: got {got}, the device is out of memory (TensorRT says: {said}); use smaller canvases or "
                "batches, or a GPU with more free memory"
            )
        return DeviceError(
            f"{name}: got {got}, allowed is success (TensorRT says: {said}); build the engine again with this version "
            "on this kind of GPU, and if that does not help report this message"
        )


@functools.cache
def _shared_logger(base: Any, library: str) -> tuple[Any, deque[str]]:
    """The one logger for the runtimes of a library in this process, and the last errors that it was told."""
    errors: deque[str] = deque(maxlen=QUOTED_LINES)

    class RuntimeLog(base):  # type: ignore[misc]
        """Keeps the last errors, and passes errors and warnings on to `logging`."""

        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            level = _LEVELS.get(severity.name, logging.DEBUG)
            if level == logging.ERROR:
                errors.append(message)
            _log.log(level, "%s: %s", library, message)

    return RuntimeLog(), errors
