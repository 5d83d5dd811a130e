"""The time that ages in a spool are counted in: it stands still never, and jumps for nobody.

Within a process it passes as the monotonic clock does, so a wall clock that is set has no say. Between two processes it
goes on by how long nothing ran: on one boot of a machine by the clock since boot, elsewhere by the wall clock, and
never backwards. What is left: a wall clock that is set wrong while no spool runs, or within `MARK_INTERVAL_S` before
the machine itself goes down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# A mark is a few bytes; a power cut loses at most so much of a jump's correction.
MARK_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What a machine's clocks say at one moment.

    Attributes:
        wall_s: since 1970, as somebody has set it.
        monotonic_s: of this process.
        boot_id: which boot of which machine this is; empty if that is not known.
        boot_s: since that boot, suspended time included.
    """

    wall_s: float
    monotonic_s: float
    boot_id: str
    boot_s: float


@dataclass(frozen=True, slots=True)
class ClockMark:
    """Which time of the spool it was at a reading; kept with the records."""

    spool_s: float
    wall_s: float
    boot_id: str
    boot_s: float


class SpoolClock:
    """Seconds of a spool; its first process begins at the wall clock's."""

    def __init__(self, read: Callable[[], ClockReading], mark: ClockMark | None) -> None:
        """Take what reads the clocks, and the last mark of an earlier process, if there was one."""
        self._read = read
        now = read()
        self._base_s = now.wall_s if mark is None else mark.spool_s + _gone_s(mark, now)
        self._started_s = now.monotonic_s

    def now_s(self) -> float:
        """The time now."""
        return self._base_s + self._read().monotonic_s - self._started_s

    def mark(self) -> ClockMark:
        """What a later process needs to go on from here."""
        now = self._read()
        spool_s = self._base_s + now.monotonic_s - self._started_s
        return ClockMark(spool_s, now.wall_s, now.boot_id, now.boot_s)


def _gone_s(mark: ClockMark, now: ClockReading) -> float:
    """How long nothing ran since a mark."""
    if mark.boot_id and mark.boot_id == now.boot_id:
        return max(0.0, now.boot_s - mark.boot_s)
    return max(0.0, now.wall_s - mark.wall_s)
