"""What became of one camera's frames: the figures of the table that `stream` and `demo` end with."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field

from engines.spec import CanvasShape
from serve_app.errors import FramelaneError
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome


@dataclass(slots=True)
class CameraSummary:
    """Adds up one camera's frames.

    Attributes:
        camera, priority: whose.
        sizes: frames by (height, width) px.
        canvases: frames by canvas.
        outcomes: frames by how they ended.
        latencies_s: of the finished ones, from sending to answer, at the client.
        num_detections: boxes in all.
        num_unreadable: frames that the source could not give.
        first_error: what went wrong first, for the user to read.
    """

    camera: str
    priority: str
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    canvases: Counter[CanvasShape] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    padding_fractions: list[float] = field(default_factory=list)
    num_detections: int = 0
    num_unreadable: int = 0
    num_skipped: int = 0
    first_error: str | None = None

    def add(self, result: FrameResult, latency_s: float) -> None:
        """Count a frame that has its outcome."""
        self.sizes[result.size_hw] += 1
        self.outcomes[result.outcome] += 1
        if result.canvas is not None:
            self.canvases[result.canvas] += 1
        if result.error is not None:
            self._note(result.error)
        else:
            self.latencies_s.append(latency_s)
            self.padding_fractions.append(result.padding_fraction)
            self.num_detections += len(result.detections)

    def add_unreadable(self, error: FramelaneError) -> None:
        """Count a frame that could not be read."""
        self.num_unreadable += 1
        self._note(error)

    @property
    def num_frames(self) -> int:
        """Frames that were sent."""
        return self.outcomes.total()

    @property
    def all_answered(self) -> bool:
        """Whether every frame of the source was read, sent and finished."""
        others = self.num_unreadable + self.num_skipped
        return others == 0 and 0 < self.num_frames == self.outcomes[Outcome.FINISHED]

    @property
    def padding_fraction(self) -> float:
        """Mean share of the canvas that showed no frame."""
        return statistics.fmean(self.padding_fractions) if self.padding_fractions else 0.0

    def latency_s(self, quantile: float) -> float | None:
        """A quantile (0..1) of the latencies by the nearest-rank method; None if nothing finished."""
        if not self.latencies_s:
            return None
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]

    def _note(self, error: FramelaneError) -> None:
        if self.first_error is None:
            self.first_error = str(error)
