"""What became of one camera's frames: the figures of the table that `stream` and `demo` end with."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from engines.spec import CanvasShape
from serve_app.results import FrameResult
from serve_app.streams.stream_values import Answer, Gap, GapCause, StreamItem

# Quantiles are those of so many latencies at the end: a stream may run for months.
NUM_LATENCIES = 10_000
# A camera that changes its size with every frame must not fill the memory either.
MAX_SIZES = 100


@dataclass(slots=True)
class CameraSummary:
    """Adds up one camera's items.

    Attributes:
        camera, priority: whose.
        keeps_latest: whether superseded frames are as asked.
        sizes: answered frames by (height, width) px.
        canvases: the same by canvas.
        latencies_s: of the last ones, from sending to answer, at the client.
        num_answered: frames with detections.
        num_detections: boxes in all.
        gaps: frames without, by cause.
        breaks: gaps of which nobody knows how many frames they cost, by cause.
        first_error: what went wrong first, for the user to read.
        last_error: what went wrong last.
    """

    camera: str
    priority: str
    keeps_latest: bool = False
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    canvases: Counter[CanvasShape] = field(default_factory=Counter)
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_LATENCIES))
    num_answered: int = 0
    num_detections: int = 0
    gaps: Counter[GapCause] = field(default_factory=Counter)
    breaks: Counter[GapCause] = field(default_factory=Counter)
    first_error: str | None = None
    last_error: str | None = None
    _padding_sum: float = 0.0

    def add(self, item: StreamItem) -> None:
        """Count an item of this camera."""
        if isinstance(item, Answer):
            self._add_answer(item.result, item.latency_s)
        else:
            self._add_gap(item)

    @property
    def num_frames(self) -> int:
        """Frames that were read: those that were answered, and those in gaps."""
        return self.num_answered + self.num_missing

    @property
    def num_missing(self) -> int:
        """Frames without detections."""
        return self.gaps.total()

    @property
    def all_answered(self) -> bool:
        """Whether every frame of the source was answered; but for what newer ones replaced where that was asked for."""
        allowed = {GapCause.SUPERSEDED} if self.keeps_latest else set()
        return self.num_answered > 0 and not self.breaks and set(self.gaps) <= allowed

    @property
    def padding_fraction(self) -> float:
        """Mean share of the canvas that showed no frame."""
        return self._padding_sum / self.num_answered if self.num_answered else 0.0

    def latency_s(self, quantile: float) -> float | None:
        """A quantile (0..1) of the latencies by the nearest-rank method; None if nothing finished."""
        if not self.latencies_s:
            return None
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]

    def _add_answer(self, result: FrameResult, latency_s: float) -> None:
        self.num_answered += 1
        if result.size_hw in self.sizes or len(self.sizes) < MAX_SIZES:
            self.sizes[result.size_hw] += 1
        if result.canvas is not None:
            self.canvases[result.canvas] += 1
        self.latencies_s.append(latency_s)
        self._padding_sum += result.padding_fraction
        self.num_detections += len(result.detections)

    def _add_gap(self, gap: Gap) -> None:
        if gap.num_frames:
            self.gaps[gap.cause] += gap.num_frames
        else:
            self.breaks[gap.cause] += 1
        if gap.cause is GapCause.SUPERSEDED and self.keeps_latest:
            return
        self.first_error = self.first_error or gap.reason
        self.last_error = gap.reason
