"""What the planner is asked and what it answers. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engines.spec import CanvasShape
from serve_app.plan import Plan
from serve_app.planning.engine_memory import EngineMemory
from serve_app.planning.plan_load import SizeLoad
from serve_app.planning.traffic import Traffic

# Above it queues grow faster than deadlines allow (at 0.7 of a server's time a frame waits about one service time).
DEFAULT_UTILISATION = 0.7


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A detector as the planner sees it: its name in the plan, its source there, its stride, what its engines hold."""

    name: str
    source: str
    stride_px: int
    memory: EngineMemory


@dataclass(frozen=True, slots=True)
class PlannerLimits:
    """What a plan must keep.

    Attributes:
        max_canvases, max_buckets: how many at most.
        max_batch: the largest batch that is considered.
        memory_bytes: what the engines of one replica may hold by estimate; None: no limit.
        max_canvas: frames that fit it neither upright nor turned are shrunk until they do; None: none is shrunk.
        max_chunk_s: no batch of several frames keeps a device longer; None: the plan's own default, a share of the
            critical deadline.
        utilisation: share of a replica's time that is planned for, in 0..1.
    """

    max_canvases: int = 6
    max_buckets: int = 3
    max_batch: int = 8
    memory_bytes: int | None = None
    max_canvas: CanvasShape | None = None
    max_chunk_s: float | None = None
    utilisation: float = DEFAULT_UTILISATION


@dataclass(frozen=True, slots=True)
class CanvasUse:
    """One chosen canvas.

    Attributes:
        canvas, bucket: which, and the bucket that has it.
        batches: the bucket's ladder.
        loads: the entries of the traffic that are placed on it.
        rate_hz: frames a second.
        run_s: predicted seconds of one frame alone.
        device_s_per_s: predicted device seconds a second.
        padding_fraction: of its pixels, see `plan_load.padding_of`.
    """

    canvas: CanvasShape
    bucket: str
    batches: tuple[int, ...]
    loads: tuple[SizeLoad, ...]
    rate_hz: float
    run_s: float
    device_s_per_s: float
    padding_fraction: float


@dataclass(frozen=True, slots=True)
class Alternative:
    """What serving the same traffic in another way would cost.

    Attributes:
        device_s_per_s, padding_fraction: as in `Proposal`.
        memory_bytes: of one engine of its shapes: where engines share an arena, of one profile over all of them.
        num_shapes: how many exact shapes must be warmed.
        canvas: its largest canvas.
    """

    device_s_per_s: float
    padding_fraction: float
    memory_bytes: int
    num_shapes: int
    canvas: CanvasShape


@dataclass(frozen=True, slots=True)
class CanvasStep:
    """What a number of canvases would get at best: device seconds a second and padding."""

    num_canvases: int
    device_s_per_s: float
    padding_fraction: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan with the figures that speak for it.

    Attributes:
        plan: models, pools, buckets, ladder, scheduling, default deadlines.
        limits, traffic: what was asked.
        canvases: what each canvas does, in ascending order of pixels.
        device_s_per_s: predicted device seconds a second of all traffic, padding included; batches as full as they pay.
        bound_s_per_s: no plan of so many canvases can need less.
        padding_fraction: of all pixels computed, see `plan_load.padding_of`.
        memory_bytes: what the engines of one replica hold; of the fullest pool.
        engine_memory: what that is worked out from.
        activation_bytes: of the engine of each bucket, by its name.
        curve: the best for one canvas, for two, and so on.
        one_square: every frame on the smallest square that holds all.
        one_wide: every frame on a canvas of its own size, all in one engine's wide profile.
        late: entries whose frame alone takes longer than its deadline.
    """

    plan: Plan
    limits: PlannerLimits
    traffic: Traffic
    canvases: tuple[CanvasUse, ...]
    device_s_per_s: float
    bound_s_per_s: float
    padding_fraction: float
    memory_bytes: int
    engine_memory: EngineMemory
    activation_bytes: Mapping[str, int]
    curve: tuple[CanvasStep, ...]
    one_square: Alternative
    one_wide: Alternative
    late: tuple[SizeLoad, ...]

    @property
    def gap_fraction(self) -> float:
        """How much of the device time another choice might save at most; 0: this one is the optimum."""
        gap = 1 - self.bound_s_per_s / self.device_s_per_s
        # Rounding, and latency tables in which a larger canvas is now and then the faster one.
        return gap if gap > 1e-6 else 0.0

    @property
    def num_shapes(self) -> int:
        """How many exact shapes the plan warms in each replica that serves all buckets."""
        return sum(len(bucket.canvases) * len(bucket.batches) for bucket in self.plan.buckets)

    @property
    def num_replicas(self) -> int:
        """Replicas of all pools."""
        return sum(pool.num_replicas for pool in self.plan.pools)

    def saved_fraction(self, other: Alternative) -> float:
        """Share of the other way's device time that the plan saves; negative where it costs more."""
        return 1 - self.device_s_per_s / other.device_s_per_s
