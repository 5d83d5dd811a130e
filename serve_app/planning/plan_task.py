"""What the planner was asked, with what follows from it directly: deadlines, chunk, ladders and seconds by canvas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.spec import CanvasShape, fitting_canvas
from serve_app.errors import InvalidPlanError
from serve_app.frames import Priority
from serve_app.latency import LatencyModel
from serve_app.plan import (
    CHUNK_FRACTION_OF_CRITICAL_SLO,
    DEFAULT_CRITICAL_SLO_S,
    DEFAULT_NORMAL_SLO_S,
)
from serve_app.planning.bucket_search import ladder_to, paying_batch
from serve_app.planning.plan_load import seconds_a_frame
from serve_app.planning.proposal import PlannedModel, PlannerLimits
from serve_app.planning.traffic import SizeHw, Traffic, deadline_s, merged


class PlanTask:
    """What is asked, with what follows from it directly."""

    def __init__(self, traffic: Traffic, model: PlannedModel, latency: LatencyModel, limits: PlannerLimits) -> None:
        if not traffic:
            raise InvalidPlanError("traffic: got no frames, allowed is one size with its rate or more")
        _check_limits(limits, model.stride_px)
        self.traffic, self.model, self.latency, self.limits = merged(traffic), model, latency, limits
        self.slo_s = default_slos(traffic)
        tightest_s = min(deadline_s(entry, self.slo_s) for entry in traffic)
        usual_s = CHUNK_FRACTION_OF_CRITICAL_SLO * self.slo_s[Priority.CRITICAL]
        # One device serves all sizes, so a batch of any size may stand before the most urgent frame.
        self.chunk_s = min(limits.max_chunk_s or usual_s, tightest_s / 2)

    def top_batch(self, canvas: CanvasShape) -> int:
        """The largest batch on this canvas."""
        return paying_batch(
            self.latency, self.model.name, canvas, max_batch=self.limits.max_batch, chunk_s=self.chunk_s
        )  # fmt: skip

    def frame_s(self, canvas: CanvasShape) -> float:
        """Device seconds of one frame on this canvas, in its best batch."""
        return seconds_a_frame(self.latency, self.model.name, canvas, ladder_to(self.top_batch(canvas)))

    def run_s(self, canvas: CanvasShape) -> float:
        """Seconds of one frame alone."""
        return self.latency.predict_s(self.model.name, canvas, 1)

    def own_canvas(self, size_hw: SizeHw) -> CanvasShape:
        """The smallest canvas for a size, shrunk to the limit if it is larger."""
        return fitting_canvas(shrunk_to(size_hw, self.limits.max_canvas), self.model.stride_px)


def default_slos(traffic: Traffic) -> dict[Priority, float]:
    """Default deadlines for a plan: the tightest of a priority whose frames all name their own, else the usual one."""
    slo_s = {}
    for priority, usual_s in ((Priority.CRITICAL, DEFAULT_CRITICAL_SLO_S), (Priority.NORMAL, DEFAULT_NORMAL_SLO_S)):
        own_s = [entry.slo_s for entry in traffic if entry.priority is priority]
        named_s = [slo for slo in own_s if slo is not None]
        slo_s[priority] = min(named_s) if named_s and len(named_s) == len(own_s) else usual_s
    return slo_s


def shrunk_to(size_hw: SizeHw, most: CanvasShape | None) -> SizeHw:
    """A size in its own proportions, no larger than `most`; an upright frame may lie on it turned."""
    if most is None:
        return size_hw
    height, width = size_hw
    high, wide = most if (most.height > most.width) == (height > width) else (most.width, most.height)
    scale = min(1.0, high / height, wide / width)
    return max(1, min(high, round(height * scale))), max(1, min(wide, round(width * scale)))


def candidate_canvases(own: Sequence[CanvasShape]) -> list[CanvasShape]:
    """Every canvas that is the tightest around the sizes that it holds, in ascending order of pixels."""
    sizes_hw = np.array(own)
    tightest = set()
    for height in np.unique(sizes_hw[:, 0]):
        for width in np.unique(sizes_hw[:, 1]):
            held = sizes_hw[(sizes_hw[:, 0] <= height) & (sizes_hw[:, 1] <= width)]
            if len(held):
                tightest.add(CanvasShape(int(held[:, 0].max()), int(held[:, 1].max())))
    return sorted(tightest, key=lambda canvas: (canvas.num_px, canvas))


def _check_limits(limits: PlannerLimits, stride_px: int) -> None:
    for name, number in (
        ("canvases", limits.max_canvases),
        ("buckets", limits.max_buckets),
        ("batch", limits.max_batch),
    ):
        if number < 1:
            raise InvalidPlanError(f"max_{name}: got {number}, allowed is 1 or more")
    most = limits.max_canvas
    if most is not None and (min(most) < stride_px or most.height % stride_px or most.width % stride_px):
        raise InvalidPlanError(
            f"max_canvas: got {most}, allowed are positive multiples of the model's stride, {stride_px} px; the next "
            f"one up is {fitting_canvas(most, stride_px)}"
        )
    if limits.max_chunk_s is not None and not limits.max_chunk_s > 0:
        raise InvalidPlanError(f"max_chunk_s: got {limits.max_chunk_s:g}, allowed are seconds above 0")
    if not 0 < limits.utilisation <= 1:
        raise InvalidPlanError(f"utilisation: got {limits.utilisation:g}, allowed is a share above 0, at most 1")
