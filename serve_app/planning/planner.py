"""The planner: canvases, buckets, batch ladders, pools and replica counts for traffic, at the least device time.

Pure: traffic, a latency model and limits in, a `Proposal` out; it reads no file and no clock.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from engines.spec import CanvasShape
from serve_app.errors import InvalidPlanError
from serve_app.latency import LatencyModel
from serve_app.plan import Bucket, CameraRule, Oversize, Plan, Pool, Rung, Scheduling
from serve_app.planning.bucket_search import CanvasGroup, UsedCanvas, group_canvases, ladder_to
from serve_app.planning.canvas_search import Costs, Selection, select_columns
from serve_app.planning.plan_load import SizeLoad, loads_under, padding_fraction, padding_of, seconds_a_frame
from serve_app.planning.plan_task import PlanTask, candidate_canvases, shrunk_to
from serve_app.planning.proposal import Alternative, CanvasStep, CanvasUse, PlannedModel, PlannerLimits, Proposal
from serve_app.planning.traffic import SizeRate, Traffic, deadline_s, total_rate_hz

# Rungs of the degradation ladder: each has at most half the pixels of the one above, or it would relieve too little.
RUNG_STEP = 0.5
MAX_RUNGS = 2


class _Row(NamedTuple):
    """Frames that may be placed on the same canvases: those that hold `own`, of the `num_quick` smallest ones."""

    own: CanvasShape
    num_quick: int


def propose(
    traffic: Traffic,
    model: PlannedModel,
    latency: LatencyModel,
    limits: PlannerLimits,
    *,
    pool: Pool,
) -> Proposal:
    """Plan for this traffic.

    Algorithm: (1) the canvases that need the fewest predicted device seconds, exact over all sets of at most
    `max_canvases` canvases (`select_columns`); every candidate is the height of one size and the width of one, because
    any other canvas could be cut down to such a one that still holds the same frames. A canvas is never taken to be
    cheaper than one of fewer pixels: where a table says so, that is scatter. A frame goes nowhere where it alone
    would take longer than its deadline, unless even its own canvas is too slow (`Proposal.late`). (2) Buckets and
    ladders, exact for these canvases (`group_canvases`). (3) One pool for all buckets; a pool for each if they need
    more than one replica a bucket on average. Replicas: device seconds a second
    over the planned utilisation, rounded up.

    Steps 2 and 3 can cost device time that other canvases might not, so `Proposal.gap_fraction` compares with the
    bound of step 1, which holds for every plan. It is 0 wherever batching gains nothing, and mostly elsewhere.

    Args:
        traffic: one entry or more.
        model: serves all of it.
        latency: predicts seconds by the model's name.
        limits: what the plan must keep.
        pool: name and resources of a replica; its count is ignored.

    Raises:
        InvalidPlanError: no traffic, or no plan keeps the limits; says what the least would be.
    """
    task = PlanTask(traffic, model, latency, limits)
    chosen, selection, curve = _choose_canvases(task)
    used = _uses(task, chosen)
    groups, per_bucket = _choose_groups(task, used, chosen[-1])
    plan = _plan(task, used, groups, pool, per_bucket=per_bucket)
    loads = loads_under(plan, task.traffic, latency)
    canvases = _canvas_uses(task, plan, loads)
    memory = model.memory
    return Proposal(
        plan=plan,
        limits=limits,
        traffic=task.traffic,
        canvases=canvases,
        device_s_per_s=sum(load.device_s_per_s for load in loads),
        bound_s_per_s=selection.bound,
        padding_fraction=padding_fraction(loads),
        memory_bytes=(
            max(memory.together_bytes([group]) for group in groups) if per_bucket else memory.together_bytes(groups)
        ),
        engine_memory=memory,
        activation_bytes={_bucket_name(group): group.activation_bytes for group in groups},
        curve=curve,
        one_square=_one_square(task),
        one_wide=_one_wide(task),
        late=tuple(load for load in loads if task.run_s(load.choice.canvas) > deadline_s(load.size, task.slo_s)),
    )


def _choose_canvases(task: PlanTask) -> tuple[list[CanvasShape], Selection, tuple[CanvasStep, ...]]:
    """The best canvases in ascending order of pixels, with the proof, and what fewer of them would get."""
    candidates = candidate_canvases([task.own_canvas(entry.size_hw) for entry in task.traffic])
    rows = _rows(task, candidates)
    costs = _costs(task, rows, candidates)
    curve: list[CanvasStep] = []
    selection = None
    for num_canvases in range(1, task.limits.max_canvases + 1):
        selection = select_columns(costs, num_canvases) or selection
        if selection is None:
            continue
        columns = list(selection.columns)
        served = costs[:, columns].argmin(axis=1)
        pairs = [
            (entry, candidates[columns[at]]) for at, row in zip(served, rows.values(), strict=True) for entry in row
        ]
        curve.append(CanvasStep(num_canvases, selection.total, _padding(pairs)))
        if len(columns) < num_canvases or num_canvases >= len(rows):
            break
    if selection is None:
        enough = next(n for n in range(task.limits.max_canvases + 1, len(rows) + 1) if select_columns(costs, n))
        raise InvalidPlanError(
            f"max_canvases: got {task.limits.max_canvases}, allowed are {enough} or more: with fewer, some frames "
            "would lie on a canvas that takes longer than their deadline; raise --max-canvases, or their slo_s"
        )
    return (
        sorted((candidates[column] for column in selection.columns), key=lambda c: (c.num_px, c)),
        selection,
        tuple(curve),
    )


def _rows(task: PlanTask, candidates: Sequence[CanvasShape]) -> dict[_Row, list[SizeRate]]:
    """The traffic by what it may be placed on, whatever its exact sizes and deadlines."""
    run_s = np.maximum.accumulate([task.run_s(canvas) for canvas in candidates])
    rows: dict[_Row, list[SizeRate]] = {}
    for entry in task.traffic:
        own, slo_s = task.own_canvas(entry.size_hw), deadline_s(entry, task.slo_s)
        is_late = run_s[candidates.index(own)] > slo_s
        num_quick = len(candidates) if is_late else int(np.searchsorted(run_s, slo_s, side="right"))
        rows.setdefault(_Row(own, num_quick), []).append(entry)
    return rows


def _costs(task: PlanTask, rows: Mapping[_Row, Sequence[SizeRate]], candidates: Sequence[CanvasShape]) -> Costs:
    """Device seconds a second of each row on each candidate; infinite where it does not fit or would be late."""
    frame_s = np.maximum.accumulate([task.frame_s(canvas) for canvas in candidates])
    canvases, places = np.array(candidates), np.arange(len(candidates))
    costs = np.full((len(rows), len(candidates)), np.inf)
    for number, (row, entries) in enumerate(rows.items()):
        allowed = (canvases >= np.array(row.own)).all(axis=1) & (places < row.num_quick)
        costs[number, allowed] = total_rate_hz(entries) * frame_s[allowed]
    return costs


def _padding(pairs: Sequence[tuple[SizeRate, CanvasShape]]) -> float:
    """Padding of entries on canvases, weighted by the pixels computed a second."""
    padded = sum(e.rate_hz * canvas.num_px * padding_of(e.size_hw, canvas) for e, canvas in pairs)
    return padded / sum(e.rate_hz * canvas.num_px for e, canvas in pairs)


def _uses(task: PlanTask, chosen: Sequence[CanvasShape]) -> list[UsedCanvas]:
    """How much each canvas is used: frames placed by the plan's own rule."""
    buckets = tuple(Bucket(f"b{canvas}", task.model.name, "any", (canvas,), (1,)) for canvas in chosen)
    trial = Plan({task.model.name: task.model.source}, (Pool("any"),), buckets)
    rates_hz = dict.fromkeys(chosen, 0.0)
    for entry in task.traffic:
        rates_hz[trial.canvas_for(task.model.name, entry.size_hw).canvas] += entry.rate_hz
    return [UsedCanvas(canvas, rate_hz, task.top_batch(canvas)) for canvas, rate_hz in rates_hz.items()]


def _choose_groups(
    task: PlanTask, used: Sequence[UsedCanvas], largest: CanvasShape
) -> tuple[tuple[CanvasGroup, ...], bool]:
    """The buckets, and whether each has a pool of its own."""
    limit = math.inf if task.limits.memory_bytes is None else task.limits.memory_bytes

    def best(*, together: bool) -> tuple[CanvasGroup, ...] | None:
        return group_canvases(
            used, task.latency, task.model.name, max_groups=task.limits.max_buckets,
            memory=task.model.memory, limit_bytes=limit, together=together,
        )  # fmt: skip

    in_one = best(together=True)
    if in_one is None:
        least = task.model.memory.alone_bytes(largest, 1)
        raise InvalidPlanError(
            f"memory: got a limit of {limit / 2**20:,.0f} MiB, allowed is {math.ceil(least / 2**20):,} MiB or more: "
            f"one engine for single frames on canvas {largest} holds that by estimate; raise --memory-mib, or let "
            "larger frames be shrunk with --max-canvas"
        )
    apart = best(together=False) or in_one
    busy_s = sum(
        u.rate_hz * seconds_a_frame(task.latency, task.model.name, u.canvas, ladder_to(u.max_batch)) for u in used
    )
    if len(apart) > 1 and _replicas(task, busy_s) > len(apart):
        return apart, True
    return in_one, False


def _plan(
    task: PlanTask, used: Sequence[UsedCanvas], groups: Sequence[CanvasGroup], pool: Pool, *, per_bucket: bool
) -> Plan:
    """The plan of these groups."""
    rates_hz = {use.canvas: use.rate_hz for use in used}
    buckets, busy_s = [], dict[str, float]()
    for group in groups:
        name, ladder = _bucket_name(group), ladder_to(group.max_batch)
        pool_name = f"{pool.name}-{name}" if per_bucket else pool.name
        buckets.append(Bucket(name, task.model.name, pool_name, group.canvases, ladder))
        needed_s = sum(rates_hz[c] * seconds_a_frame(task.latency, task.model.name, c, ladder) for c in group.canvases)
        busy_s[pool_name] = busy_s.get(pool_name, 0.0) + needed_s
    is_shrunk = any(shrunk_to(e.size_hw, task.limits.max_canvas) != e.size_hw for e in task.traffic)
    return Plan(
        models={task.model.name: task.model.source},
        pools=tuple(
            dataclasses.replace(pool, name=name, num_replicas=_replicas(task, seconds))
            for name, seconds in busy_s.items()
        ),
        buckets=tuple(buckets),
        cameras=(CameraRule("*", oversize=Oversize.SHRINK),) if is_shrunk else (),
        ladder=tuple(Rung(task.model.name, canvas) for canvas in _rungs(list(rates_hz))),
        scheduling=_scheduling(task, list(rates_hz)),
        slo_s=task.slo_s,
    )


def _replicas(task: PlanTask, busy_s: float) -> int:
    return max(1, math.ceil(busy_s / task.limits.utilisation))


def _scheduling(task: PlanTask, chosen: Sequence[CanvasShape]) -> Scheduling:
    """The chunk; and larger frames than keep a device for one are deferred."""
    quick = [canvas for canvas in chosen if task.run_s(canvas) <= task.chunk_s]
    chunk_s = round(task.chunk_s, 4) or task.chunk_s
    if len(quick) == len(chosen) or not quick:
        return Scheduling(max_chunk_s=chunk_s)
    return Scheduling(max_chunk_s=chunk_s, defer_above_px=quick[-1].num_px)


def _bucket_name(group: CanvasGroup) -> str:
    smallest, largest = (pick(group.canvases, key=lambda c: (c.num_px, c)) for pick in (min, max))
    return f"b{smallest}" if smallest == largest else f"b{smallest}-{largest}"


def _canvas_uses(task: PlanTask, plan: Plan, loads: Sequence[SizeLoad]) -> tuple[CanvasUse, ...]:
    uses = []
    for bucket in plan.buckets:
        for canvas in bucket.canvases:
            here = tuple(load for load in loads if load.choice.canvas == canvas)
            uses.append(
                CanvasUse(
                    canvas,
                    bucket.name,
                    bucket.batches,
                    here,
                    sum(load.size.rate_hz for load in here),
                    task.run_s(canvas),
                    sum(load.device_s_per_s for load in here),
                    padding_fraction(here) if here else 0.0,
                )
            )
    return tuple(sorted(uses, key=lambda use: (use.canvas.num_px, use.canvas)))


def _one_square(task: PlanTask) -> Alternative:
    """Every frame on the smallest square that holds all of them."""
    side = max(max(task.own_canvas(entry.size_hw)) for entry in task.traffic)
    square = CanvasShape(side, side)
    return _alternative(task, [(entry, square) for entry in task.traffic])


def _one_wide(task: PlanTask) -> Alternative:
    """Every frame on the canvas of its own size."""
    return _alternative(task, [(entry, task.own_canvas(entry.size_hw)) for entry in task.traffic])


def _alternative(task: PlanTask, pairs: Sequence[tuple[SizeRate, CanvasShape]]) -> Alternative:
    canvases = sorted({canvas for _, canvas in pairs}, key=lambda c: (c.num_px, c))
    return Alternative(
        device_s_per_s=sum(entry.rate_hz * task.frame_s(canvas) for entry, canvas in pairs),
        padding_fraction=_padding(pairs),
        memory_bytes=_engine_bytes(task, canvases),
        num_shapes=sum(len(ladder_to(task.top_batch(canvas))) for canvas in canvases),
        canvas=canvases[-1],
    )


def _engine_bytes(task: PlanTask, canvases: Sequence[CanvasShape]) -> int:
    """What one engine for all of these canvases holds.

    TensorRT's memory is that of the profile's corner, the largest height, width and batch of all; ONNX Runtime's that
    of the largest shape that ever runs.
    """
    memory = task.model.memory
    if not memory.shares_arena:
        return max(memory.alone_bytes(canvas, task.top_batch(canvas)) for canvas in canvases)
    return memory.alone_bytes(memory.largest(canvases), max(task.top_batch(canvas) for canvas in canvases))


def _rungs(chosen: Sequence[CanvasShape]) -> tuple[CanvasShape, ...]:
    """Canvases of the plan, each with at most half the pixels of the one above it, dearest first."""
    rungs: list[CanvasShape] = []
    above_px = chosen[-1].num_px
    for canvas in reversed(chosen):
        if canvas.num_px <= RUNG_STEP * above_px and len(rungs) < MAX_RUNGS:
            rungs.append(canvas)
            above_px = canvas.num_px
    return tuple(rungs)
