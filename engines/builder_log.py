"""What TensorRT's builder says of a build: its errors, its doubts, and the memory that the engine will need.

Written against the lines that TensorRT for RTX 1.7.1 prints; TensorRT 10 and 11 are known to print the same ones.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import Any

# Printed with every error on a machine without a driver; it is never why a build fails there.
NO_DRIVER_NOISE = "catchCudaError"
# The builder only warns of a profile whose corner the network's strides cannot take, and builds an engine that fails
# when that shape comes.
IMPOSSIBLE_SHAPE = "not self-consistent"
_ERRORS = ("INTERNAL_ERROR", "ERROR")
_ACTIVATION = re.compile(r"Total Activation Memory:\s*(\d+)")
_WEIGHTS = re.compile(r"Total Weights Memory:\s*(\d+)")
# `IBuilder::…: Error Code 4: API Usage Error (the reason. In function at /_src/file.cpp:12)`
_WRAPPED_REASON = re.compile(r"Error Code \d+: [^(]*\((.*)\)", re.DOTALL)
_SOURCE_PLACE = re.compile(r"\.?\s+In \S+ at /\S+.*$", re.DOTALL)
# A reason is to be read, not a page.
MAX_REASON_CHARS = 400

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class BuilderLog:
    """The lines of one build; the builder's threads append, the caller reads when it is over.

    Attributes:
        lines: (severity, text) of everything but the verbose ones, in order.
    """

    lines: list[tuple[str, str]] = field(default_factory=list)

    def add(self, severity: str, text: str) -> None:
        """Keep one line, and pass it on to Python's log."""
        if severity == "VERBOSE":
            return
        self.lines.append((severity, text))
        _log.debug("%s: %s", severity, text)

    @property
    def activation_bytes(self) -> int | None:
        """Device memory of one execution context; None: the builder did not say."""
        return _largest(_ACTIVATION, self.lines)

    @property
    def weights_bytes(self) -> int | None:
        """Device memory of the weights; None: the builder did not say."""
        return _largest(_WEIGHTS, self.lines)

    @property
    def impossible_shape(self) -> str | None:
        """Why a shape of the profile cannot run, where the builder warned of one."""
        return next((_reason(text) for _, text in self.lines if IMPOSSIBLE_SHAPE in text), None)

    @property
    def reason(self) -> str:
        """Why the builder gave nothing: its first error that is one."""
        errors = [text for severity, text in self.lines if severity in _ERRORS and NO_DRIVER_NOISE not in text]
        return _reason(errors[0]) if errors else "the builder gave no reason"


def make_logger(module: Any, log: BuilderLog) -> Any:
    """A logger of these bindings that fills `log`; it must live as long as the builder."""

    class Logger(module.ILogger):  # type: ignore[misc]  # the bindings are not typed
        """Hands every line on; an error in here would end the process inside the library."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            log.add(str(severity.name), text)

    return Logger()


def _largest(pattern: re.Pattern[str], lines: list[tuple[str, str]]) -> int | None:
    """The largest figure: where the builder prints several candidates, too much is safe and too little is not."""
    found = [int(match.group(1)) for _, text in lines if (match := pattern.search(text))]
    return max(found, default=None)


def _reason(text: str) -> str:
    """The reason inside an error line, without the places in NVIDIA's sources."""
    wrapped = _WRAPPED_REASON.search(text)
    bare = _SOURCE_PLACE.sub("", wrapped.group(1) if wrapped else text)
    return " ".join(bare.split())[:MAX_REASON_CHARS]
