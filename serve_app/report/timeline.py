"""What happened when, on one router's clock: counts in steps that widen as the log grows. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.report.frame_line import FrameLine
from serve_app.verdicts import Outcome, VerdictKind

# Each divides the next, so that steps can be put together; ten days at last.
STEPS_S = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 10800.0, 21600.0, 86400.0, 864000.0)
# More than these are put together: no picture shows more.
MAX_STEPS = 240

ENDS = ("in time", "late", "finished", "rejected", "expired", "superseded", "cancelled", "failed")
"""How frames end, for a picture: `finished` where no deadline is known."""
VERDICTS = ("admit", "defer", "degrade", "reject", "refused unread")
MAX_RUNG = 3
RUNGS = ("own size", "rung 1", "rung 2", "rung 3 or lower")

# Of these classes the latency is followed: those that finish.
FOLLOWED = ("critical", "normal", "deferred")

_FIRST_CLASS = len(ENDS) + len(VERDICTS) + len(RUNGS)
_NUM = _FIRST_CLASS + 2 * len(FOLLOWED)
_VERDICT_PLACE = {
    VerdictKind.ADMIT: 0, VerdictKind.DEFER: 1, VerdictKind.DEGRADE: 2, VerdictKind.REJECT: 3, None: 4,
}  # fmt: skip
_END_PLACE = {
    Outcome.REJECTED: 3, Outcome.EXPIRED: 4, Outcome.SUPERSEDED: 5, Outcome.CANCELLED: 6, Outcome.FAILED: 7,
}  # fmt: skip


def end_place(frame: FrameLine) -> int:
    """The place of its end in `ENDS`."""
    if not frame.is_finished:
        return _END_PLACE[frame.outcome]
    return 2 if frame.slo_s is None else 0 if frame.is_in_time else 1


def verdict_place(frame: FrameLine) -> int:
    """The place of its verdict in `VERDICTS`."""
    return _VERDICT_PLACE[frame.verdict]


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """Counts of frames by when they came.

    Attributes:
        step_s: how long each step is.
        ends, verdicts, rungs: for each word of `ENDS`, `VERDICTS`, `RUNGS` the frames in each step; rungs of the
            finished ones.
        means_s: for each class of `FOLLOWED` the mean seconds of the finished ones; NaN where there are none.
    """

    step_s: float
    ends: tuple[tuple[int, ...], ...]
    verdicts: tuple[tuple[int, ...], ...]
    rungs: tuple[tuple[int, ...], ...]
    means_s: tuple[tuple[float, ...], ...]

    @property
    def num_steps(self) -> int:
        """How many there are."""
        return len(self.ends[0])


class Timeline:
    """Counts frames of one clock in at most `MAX_STEPS` steps."""

    def __init__(self) -> None:
        """Start with the shortest step."""
        self._level = 0
        self._steps: dict[int, list[float]] = {}
        self._first = self._last = 0

    def add(self, at_s: float, frame: FrameLine) -> None:
        """Count a frame."""
        place = math.floor(at_s / STEPS_S[self._level])
        if not self._steps:
            self._first = self._last = place
        elif not self._first <= place <= self._last:
            self._first, self._last = min(place, self._first), max(place, self._last)
            while self._last - self._first >= MAX_STEPS and self._level + 1 < len(STEPS_S):
                self._widen()
                place = math.floor(at_s / STEPS_S[self._level])
        counts = self._steps.get(place)
        if counts is None:
            counts = self._steps[place] = [0.0] * _NUM
        counts[end_place(frame)] += 1
        counts[len(ENDS) + verdict_place(frame)] += 1
        if frame.is_finished:
            counts[len(ENDS) + len(VERDICTS) + min(frame.rung, MAX_RUNG)] += 1
            if frame.lane_class in FOLLOWED:
                place = _FIRST_CLASS + 2 * FOLLOWED.index(frame.lane_class)
                counts[place] += 1
                counts[place + 1] += frame.total_s

    def series(self) -> TimeSeries:
        """All counts so far; of a clock without frames one step of zeros."""
        places = range(self._first, min(self._last, self._first + 10 * MAX_STEPS) + 1)
        columns = list(zip(*(self._steps.get(place, [0.0] * _NUM) for place in places), strict=True))
        first, second = len(ENDS), len(ENDS) + len(VERDICTS)
        numbers, sums_s = columns[_FIRST_CLASS::2], columns[_FIRST_CLASS + 1 :: 2]
        return TimeSeries(
            STEPS_S[self._level],
            _rows(columns[:first]),
            _rows(columns[first:second]),
            _rows(columns[second:_FIRST_CLASS]),
            tuple(
                tuple(sum_s / number if number else math.nan for number, sum_s in zip(ofs, sums, strict=True))
                for ofs, sums in zip(numbers, sums_s, strict=True)
            ),
        )

    def _widen(self) -> None:
        narrow_s = STEPS_S[self._level]
        self._level += 1
        ratio = round(STEPS_S[self._level] / narrow_s)
        steps, self._steps = self._steps, {}
        for place, counts in steps.items():
            wider = self._steps.setdefault(place // ratio, [0.0] * _NUM)
            for index, count in enumerate(counts):
                wider[index] += count
        self._first, self._last = self._first // ratio, self._last // ratio


def _rows(columns: Sequence[tuple[float, ...]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, column)) for column in columns)
