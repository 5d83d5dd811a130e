"""The clock of one router in one file: its times can be compared with each other and with nothing else. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from serve_app.report.frame_line import FrameLine
from serve_app.report.frames_ahead import RecentFrames
from serve_app.report.timeline import Timeline

# A router writes a record when a frame ends; frames of one batch end together, and are written one after the other.
MAX_BACKWARDS_S = 1.0


class ClockSpan:
    """From when to when frames came, for as long as their clock runs forward."""

    def __init__(self) -> None:
        """Start with none."""
        self.first_s, self.last_s = math.inf, -math.inf
        self._ended_s = -math.inf

    def runs_on(self, frame: FrameLine) -> bool:
        """Whether this frame can be of the same clock: it did not end well before the ones written earlier."""
        return (
            frame.at_s is None or not frame.is_finished or frame.at_s + frame.total_s >= self._ended_s - MAX_BACKWARDS_S
        )

    def add(self, frame: FrameLine) -> None:
        """Take a frame."""
        if frame.at_s is None:
            return
        self.first_s, self.last_s = min(self.first_s, frame.at_s), max(self.last_s, frame.at_s)
        if frame.is_finished:
            self._ended_s = max(self._ended_s, frame.at_s + frame.total_s)

    @property
    def is_known(self) -> bool:
        """Whether the records say when frames came."""
        return self.last_s >= self.first_s

    @property
    def seconds(self) -> float:
        """Between the first frame and the last."""
        return self.last_s - self.first_s if self.is_known else 0.0


class LogClock:
    """Frames of one router, as one file has them, for as long as its clock runs forward.

    Attributes:
        file, router: whose.
        first_line, last_line: where its first and last record stand.
        num_frames: records.
        span: from when to when.
        timeline: what happened when.
        recent: the last records.
    """

    def __init__(self, file: str, router: str, line: int) -> None:
        """Take where it stands: file, router, and the line of its first record."""
        self.file = file
        self.router = router
        self.first_line = self.last_line = line
        self.num_frames = 0
        self.span = ClockSpan()
        self.timeline = Timeline()
        self.recent = RecentFrames()

    def add(self, line: int, frame: FrameLine) -> None:
        """Take a frame; whoever asks `recent` about it asks before."""
        self.num_frames += 1
        self.last_line = line
        self.recent.add(frame)
        self.span.add(frame)
        if frame.at_s is not None:
            self.timeline.add(frame.at_s, frame)


def observed_s(clocks: Iterable[LogClock]) -> float:
    """How long the clocks of one file cover, without comparing their times.

    Routers whose lines lie among each other's ran at the same time: the longest of them counts. Those whose lines
    follow each other's ran one after the other: they add up.
    """
    total_s = group_s = 0.0
    last_line = 0
    for clock in sorted(clocks, key=lambda each: each.first_line):
        if clock.first_line > last_line:
            total_s, group_s = total_s + group_s, 0.0
        group_s = max(group_s, clock.span.seconds)
        last_line = max(last_line, clock.last_line)
    return total_s + group_s
