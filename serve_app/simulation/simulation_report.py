"""The figures of one simulation, and the same as JSON. Pure; tables are in `simulation_table.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serve_app.frames import Priority
from serve_app.latency import LatencyModel
from serve_app.plan import Plan
from serve_app.planning.plan_load import padding_of
from serve_app.routes import RouteTable
from serve_app.simulation.simulated_scaling import ScalingFigures
from serve_app.simulation.simulation_run import OUTCOME_CODES, OUTCOMES, VERDICT_CODES, VERDICTS, SimulationRun
from serve_app.simulation.traces import Floats, Trace
from serve_app.verdicts import Outcome, VerdictKind

Flags = npt.NDArray[np.bool_]

CLASSES = ("critical", "normal", "deferred")
# At so many evenly spread moments the queues are looked at, and so many quantiles make a curve.
NUM_MOMENTS = 400
NUM_QUANTILES = 201


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Frames of one class: critical; normal; deferred, which are the normal ones that admission deferred.

    Attributes:
        name: the class.
        num_frames: all that arrived.
        in_time_fraction: share of them that finished within their deadline; what did not finish counts as late.
        goodput_hz: those a second.
        quantiles_s: of the time from arrival to answer of the finished ones, at evenly spread shares from 0 to 1;
            empty if none finished.
        slos_s: their different deadlines, ascending.
        lower_rung_fraction: share of the finished ones that a lower rung of the ladder served.
        outcomes, verdicts: frames by name.
    """

    name: str
    num_frames: int
    in_time_fraction: float
    goodput_hz: float
    quantiles_s: tuple[float, ...]
    slos_s: tuple[float, ...]
    lower_rung_fraction: float
    outcomes: Mapping[str, int]
    verdicts: Mapping[str, int]

    def latency_s(self, share: float) -> float | None:
        """The quantile at this share, to the nearest kept one; None if none finished."""
        return self.quantiles_s[round(share * (NUM_QUANTILES - 1))] if self.quantiles_s else None


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """One pool.

    Attributes:
        name, num_replicas: of the plan.
        use_fraction: share of its replicas' time, while the cameras sent, in which a batch ran.
        num_batches: that came to a device.
        mean_batch: pieces in one of them.
        batch_counts: batches by size.
        scaling: how its size went; None: it kept it.
    """

    name: str
    num_replicas: int
    use_fraction: float
    num_batches: int
    mean_batch: float
    batch_counts: Mapping[int, int]
    scaling: ScalingFigures | None = None

    @property
    def mean_replicas(self) -> float:
        """Replicas over the time."""
        return self.num_replicas if self.scaling is None else self.scaling.mean


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Frames that wait, at moments of the trace: `depths[class]` beside `times_s`."""

    times_s: tuple[float, ...]
    depths: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """The figures of one run.

    Attributes:
        load: how many times the trace's own rate was played.
        duration_s: how long the cameras sent.
        num_frames, offered_hz: that they sent.
        offered_use: device seconds a second that they ask for, at each frame's own size in its best batch, as a share
            of what all replicas have; above 1 something must shrink, wait or go.
        goodput_hz: frames a second that finished within their deadline.
        in_time_fraction: those of all frames.
        padding_fraction: share of the computed pixels that were no frame's own.
        mean_batch: pieces a batch over all pools.
        classes: those of `CLASSES` that had frames.
        pools: in the plan's order.
        queue: how many waited when.
    """

    load: float
    duration_s: float
    num_frames: int
    offered_hz: float
    offered_use: float
    goodput_hz: float
    in_time_fraction: float
    padding_fraction: float
    mean_batch: float
    classes: tuple[ClassFigures, ...]
    pools: tuple[PoolFigures, ...]
    queue: QueueDepth

    def class_named(self, name: str) -> ClassFigures | None:
        """The figures of a class; None if it had no frame."""
        return next((figures for figures in self.classes if figures.name == name), None)

    def as_json(self) -> dict[str, object]:
        """All figures, for `json.dumps`; p50, p95 and p99 in milliseconds beside the quantiles in seconds."""
        content = dataclasses.asdict(self)
        for pool, figures in zip(content["pools"], self.pools, strict=True):
            if figures.scaling is None:
                del pool["scaling"]
            else:
                pool["scaling"]["ratio"] = figures.scaling.ratio
        content["classes"] = [
            dataclasses.asdict(figures)
            | {f"p{percent}_ms": _ms(figures.latency_s(percent / 100)) for percent in (50, 95, 99)}
            for figures in self.classes
        ]
        return content


def report(
    run: SimulationRun,
    *,
    offered_use: float,
    load: float = 1.0,
    scaling: Mapping[str, ScalingFigures] | None = None,
) -> SimulationReport:
    """Work the figures out; `scaling` has those of the pools that grew and shrank."""
    trace, in_time = run.trace, run.in_time
    rows = _class_rows(run)
    batches = run.batches
    ran = batches.ran_s > 0
    return SimulationReport(
        load=load,
        duration_s=trace.duration_s,
        num_frames=len(trace),
        offered_hz=trace.rate_hz,
        offered_use=offered_use,
        goodput_hz=float(in_time.sum()) / trace.duration_s,
        in_time_fraction=float(in_time.mean()),
        padding_fraction=_padding_fraction(run),
        mean_batch=float(batches.size[ran].mean()) if ran.any() else 0.0,
        classes=tuple(_class_figures(run, name, of, in_time) for name, of in rows.items() if of.any()),
        pools=tuple(_pool_figures(run, index, (scaling or {}).get(name)) for index, name in enumerate(run.pools)),
        queue=_queue_depth(run, rows),
    )


def offered_use(plan: Plan, trace: Trace, latency: LatencyModel) -> float:
    """Device seconds a second that a trace asks for, at each frame's own rung in its best batch, over all replicas."""
    routes = RouteTable(plan, latency)
    keys = np.stack([trace.camera.astype(np.int64), trace.size, trace.is_critical], axis=1)
    if len({id(routes.rule_of(camera)) for camera in trace.cameras}) == 1:
        keys[:, 0] = 0  # they differ in nothing that counts here
    needed_s = 0.0
    for (camera, size, is_critical), count in zip(*np.unique(keys, axis=0, return_counts=True), strict=True):
        priority = Priority.CRITICAL if is_critical else Priority.NORMAL
        ways = routes.routes(routes.rule_of(trace.cameras[camera]), trace.sizes_hw[size], priority)
        if ways:
            best_s = latency.predict_s(ways[0].model, ways[0].canvas, ways[0].max_batch) / ways[0].max_batch
            needed_s += int(count) * best_s * ways[0].num_pieces
    return needed_s / (trace.duration_s * max(1, sum(pool.num_replicas for pool in plan.pools)))


def _class_rows(run: SimulationRun) -> dict[str, Flags]:
    critical = run.trace.is_critical
    deferred = ~critical & (run.verdict == VERDICT_CODES[VerdictKind.DEFER])
    return dict(zip(CLASSES, (critical, ~critical & ~deferred, deferred), strict=True))


def _class_figures(run: SimulationRun, name: str, rows: Flags, in_time: Flags) -> ClassFigures:
    finished = rows & (run.outcome == OUTCOME_CODES[Outcome.FINISHED])
    took_s = run.end_s[finished] - run.trace.at_s[finished]
    quantiles_s = np.quantile(took_s, np.linspace(0, 1, NUM_QUANTILES)) if len(took_s) else np.empty(0)
    slos_s = np.unique(np.round(run.deadline_s[rows] - run.trace.at_s[rows], 6))
    return ClassFigures(
        name=name,
        num_frames=int(rows.sum()),
        in_time_fraction=float(in_time[rows].mean()),
        goodput_hz=float(in_time[rows].sum()) / run.trace.duration_s,
        quantiles_s=tuple(quantiles_s.tolist()),
        slos_s=tuple(slos_s.tolist()),
        lower_rung_fraction=float((run.rung[finished] > 0).mean()) if len(took_s) else 0.0,
        outcomes=_counts([outcome.value for outcome in OUTCOMES], run.outcome[rows]),
        verdicts=_counts([verdict.value for verdict in VERDICTS], run.verdict[rows]),
    )


def _counts(names: Sequence[str], codes: npt.NDArray[np.uint8]) -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(names) + 1)[1:].tolist()
    return {name: count for name, count in zip(names, counts, strict=True) if count}


def _pool_figures(run: SimulationRun, index: int, scaling: ScalingFigures | None) -> PoolFigures:
    batches, duration_s = run.batches, run.trace.duration_s
    rows = (batches.pool == index) & (batches.ran_s > 0)
    sizes, start_s = batches.size[rows], batches.start_s[rows]
    within_s = np.clip(duration_s - start_s, 0, batches.ran_s[rows])
    counts = np.bincount(sizes).tolist() if len(sizes) else []
    replica_s = duration_s * run.num_replicas[index] if scaling is None else scaling.replica_s
    return PoolFigures(
        name=run.pools[index],
        num_replicas=run.num_replicas[index],
        use_fraction=float(within_s.sum()) / replica_s if replica_s else 0.0,
        num_batches=len(sizes),
        mean_batch=float(sizes.mean()) if len(sizes) else 0.0,
        batch_counts={size: count for size, count in enumerate(counts) if count},
        scaling=scaling,
    )


def _padding_fraction(run: SimulationRun) -> float:
    """Padded over computed pixels of all frames and tiles that were sent."""
    rows = (run.batch >= 0) & (run.is_tiled == 0)
    pairs = np.stack([run.trace.size[rows], run.batches.canvas[run.batch[rows]]], axis=1)
    computed_px, padded_px = float(run.tile_px), float(run.tile_px - run.tile_own_px)
    for (size, canvas), count in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
        shape = run.batches.canvases[canvas]
        computed_px += int(count) * shape.num_px
        padded_px += int(count) * shape.num_px * padding_of(run.trace.sizes_hw[size], shape)
    return padded_px / computed_px if computed_px else 0.0


def _queue_depth(run: SimulationRun, rows: Mapping[str, Flags]) -> QueueDepth:
    """Arrived less left: a frame leaves its lane when it, or its last piece, is sent, or else when it ends."""
    times_s = np.linspace(0, max(run.trace.duration_s, run.end_of_work_s), NUM_MOMENTS)
    waited = run.outcome != OUTCOME_CODES[Outcome.REJECTED]
    left_s = np.where(np.isnan(run.sent_s), run.end_s, run.sent_s)
    depths = {}
    for name, of in rows.items():
        counted = of & waited
        if of.any():
            depths[name] = _below(run.trace.at_s[counted], times_s) - _below(left_s[counted], times_s)
    return QueueDepth(
        tuple(times_s.tolist()), {name: tuple(depth.tolist()) for name, depth in depths.items()}
    )  # fmt: skip


def _below(values_s: Floats, times_s: Floats) -> npt.NDArray[np.int64]:
    """How many values are no later than each of the times."""
    return np.searchsorted(np.sort(values_s), times_s, side="right").astype(np.int64)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
