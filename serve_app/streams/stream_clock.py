"""The time as cameras' threads see it: read, and waited for in a way that closing interrupts."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class StreamClock(Protocol):
    """Seconds, and waiting for them."""

    def now_s(self) -> float:
        """Seconds on a clock that only goes forwards."""

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait for so long, or until `stop` is set; whether it is."""


class MonotonicClock:
    """The machine's own."""

    def now_s(self) -> float:
        """See `StreamClock`."""
        return time.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """See `StreamClock`."""
        return stop.wait(seconds)
