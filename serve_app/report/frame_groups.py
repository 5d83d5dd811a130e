"""Figures of frames that have something in common: a class and a size, or a camera. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from serve_app.planning.traffic import SizeHw
from serve_app.report.frame_line import STAGES, FrameLine
from serve_app.report.quantile_sketch import QuantileSketch
from serve_app.report.timeline import ENDS, end_place


@dataclass(slots=True)
class CameraFigures:
    """One camera, in few numbers: there may be ten thousand of them.

    Attributes:
        num_frames, num_finished: all of it, and those that were answered.
        num_due, num_in_time: those that had a deadline, and were in time.
        num_lower: finished below their own size or model.
        slowest_s: the longest of the finished ones.
        own_model: what served its first frame at its own rung; empty: none was.
    """

    num_frames: int = 0
    num_finished: int = 0
    num_due: int = 0
    num_in_time: int = 0
    num_lower: int = 0
    slowest_s: float = 0.0
    own_model: str = ""

    def add(self, frame: FrameLine) -> None:
        """Count a frame."""
        self.num_frames += 1
        if frame.is_due:
            self.num_due += 1
            self.num_in_time += frame.is_in_time
        if frame.is_finished:
            self.num_finished += 1
            self.num_lower += frame.rung > 0
            if not self.own_model and frame.rung == 0:
                self.own_model = frame.model
            self.slowest_s = max(self.slowest_s, frame.total_s)

    @property
    def in_time_fraction(self) -> float | None:
        """Of those that had a deadline; None without any."""
        return self.num_in_time / self.num_due if self.num_due else None


@dataclass(slots=True)
class FrameGroup:
    """Frames of one class and size, or of several.

    Attributes:
        counts: as for a camera.
        ends: frames by how they ended, in the order of `ENDS`.
        total: seconds of the finished ones, from coming to answer.
        stages: seconds of the finished ones in each of `STAGES`.
    """

    counts: CameraFigures = field(default_factory=CameraFigures)
    ends: list[int] = field(default_factory=lambda: [0] * len(ENDS))
    total: QuantileSketch = field(default_factory=QuantileSketch)
    stages: Sequence[QuantileSketch] = field(default_factory=lambda: [QuantileSketch() for _ in STAGES])

    def add(self, frame: FrameLine) -> None:
        """Count a frame."""
        self.counts.add(frame)
        self.ends[end_place(frame)] += 1
        if frame.is_finished:
            self.total.add(frame.total_s)
            for sketch, seconds in zip(self.stages, frame.stages_s, strict=True):
                sketch.add(seconds)

    @classmethod
    def merged(cls, groups: Iterable[FrameGroup]) -> FrameGroup:
        """One of all of them."""
        parts = list(groups)
        whole = cls(
            total=QuantileSketch.merged(part.total for part in parts),
            stages=[QuantileSketch.merged(part.stages[index] for part in parts) for index in range(len(STAGES))],
        )
        for part in parts:
            whole.ends = [one + other for one, other in zip(whole.ends, part.ends, strict=True)]
            for name in ("num_frames", "num_finished", "num_due", "num_in_time", "num_lower"):
                setattr(whole.counts, name, getattr(whole.counts, name) + getattr(part.counts, name))
            whole.counts.slowest_s = max(whole.counts.slowest_s, part.counts.slowest_s)
        return whole


GroupKey = tuple[str, "SizeHw | None"]
"""Class, and size; None: not known, or of more sizes than are told apart."""
