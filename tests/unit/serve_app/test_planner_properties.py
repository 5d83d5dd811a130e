"""The planner against brute force: every set of canvases, every grouping, every ladder."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from fleet_samples import CALL_S, MODEL, POOL, SECONDS_A_PX, batching_latency
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.spec import CanvasShape
from serve_app.errors import InvalidPlanError
from serve_app.frames import Priority
from serve_app.latency import LatencyModel
from serve_app.planning.bucket_search import TUNING_LOSS_PER_DOUBLING, UsedCanvas, group_canvases, ladder_to
from serve_app.planning.engine_memory import EngineMemory
from serve_app.planning.plan_load import seconds_a_frame
from serve_app.planning.planner import propose
from serve_app.planning.proposal import PlannerLimits
from serve_app.planning.traffic import SizeRate

STRIDE = 32
SIDES = st.integers(1, 700)
RATES = st.floats(0.05, 30.0)
TRAFFIC = st.lists(st.builds(SizeRate, st.tuples(SIDES, SIDES), RATES), min_size=1, max_size=7).map(tuple)
LATENCIES = {"in proportion": LatencyModel(), "batching pays": batching_latency()}


def round_up(side):
    """To the stride."""
    return -(-side // STRIDE) * STRIDE


def device_s(traffic, canvases, frame_s):
    """Every frame on the smallest canvas that holds it."""
    total_s = 0.0
    for entry in traffic:
        holding = [c for c in canvases if c[0] >= entry.size_hw[0] and c[1] >= entry.size_hw[1]]
        if not holding:
            return math.inf
        total_s += entry.rate_hz * frame_s(*min(holding, key=lambda c: c[0] * c[1]))
    return total_s


def brute_force_s(traffic, max_canvases, frame_s):
    """The least device time over all sets of canvases with sides that some size has."""
    heights = sorted({round_up(entry.size_hw[0]) for entry in traffic})
    widths = sorted({round_up(entry.size_hw[1]) for entry in traffic})
    every = list(itertools.product(heights, widths))
    costs = np.array([[device_s([entry], [canvas], frame_s) for canvas in every] for entry in traffic])
    size = min(max_canvases, len(every))
    choices = np.array(list(itertools.combinations(range(len(every)), size)))
    return float(costs[:, choices].min(axis=2).sum(axis=0).min())


@pytest.mark.parametrize("kind", LATENCIES)
@settings(max_examples=60)
@given(traffic=TRAFFIC, max_canvases=st.integers(1, 3))
def test_no_other_set_of_canvases_needs_less_device_time(kind, traffic, max_canvases):
    """The optimum, whatever the sizes; its figures are those of the plan that it proposes."""
    latency = LATENCIES[kind]

    def frame_s(height, width):
        if kind == "in proportion":
            return latency.predict_s("full", CanvasShape(height, width), 1)
        return best_batch_s(height * width)

    proposal = propose(traffic, MODEL, latency, PlannerLimits(max_canvases=max_canvases), pool=POOL)

    canvases = [canvas for bucket in proposal.plan.buckets for canvas in bucket.canvases]
    assert proposal.device_s_per_s == pytest.approx(brute_force_s(traffic, max_canvases, frame_s))
    assert proposal.device_s_per_s == pytest.approx(device_s(traffic, canvases, frame_s))
    assert proposal.gap_fraction == 0
    assert len(canvases) <= max_canvases
    assert all(side % STRIDE == 0 for canvas in canvases for side in canvas)


def best_batch_s(num_px):
    """Seconds a frame where batches up to 8 pay as long as doubling saves 5 %, within a tenth of a second."""
    best, batch = CALL_S + SECONDS_A_PX * num_px, 1
    while batch < 8:
        doubled_s = CALL_S + SECONDS_A_PX * num_px * 2 * batch
        if doubled_s > 0.1 or doubled_s / (2 * batch) > 0.95 * best:
            break
        best, batch = doubled_s / (2 * batch), 2 * batch
    return best


@settings(max_examples=60)
@given(
    traffic=TRAFFIC,
    slos_s=st.lists(st.sampled_from([0.002, 0.01, 0.03, 1.0]), min_size=7, max_size=7),
    max_canvases=st.integers(1, 3),
)
def test_frames_are_late_only_where_no_canvas_could_help(traffic, slos_s, max_canvases):
    """Deadlines bind the choice; what is too slow even on its own canvas is named instead."""
    traffic = tuple(
        SizeRate(e.size_hw, e.rate_hz, Priority.CRITICAL, slo_s) for e, slo_s in zip(traffic, slos_s, strict=False)
    )
    latency = LatencyModel()

    def own_s(entry):
        return latency.predict_s("full", CanvasShape(*map(round_up, entry.size_hw)), 1)

    try:
        proposal = propose(traffic, MODEL, latency, PlannerLimits(max_canvases=max_canvases), pool=POOL)
    except InvalidPlanError as err:
        enough = int(str(err).partition("allowed are ")[2].split()[0])
        proposal = propose(traffic, MODEL, latency, PlannerLimits(max_canvases=enough), pool=POOL)

    assert all(own_s(load.size) > load.size.slo_s for load in proposal.late)


@settings(max_examples=60)
@given(data=st.data())
def test_no_other_grouping_loses_less(data):
    """Every cut into neighbours and every ladder of powers of two, with and without a limit, on a CPU and on a GPU."""
    sides = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True))
    used = [
        UsedCanvas(CanvasShape(STRIDE * side, 64), data.draw(RATES), data.draw(st.sampled_from([1, 2, 4, 8])))
        for side in sides
    ]
    max_groups, together = data.draw(st.integers(1, 3)), data.draw(st.booleans())
    limit = data.draw(st.sampled_from([math.inf, 100_000, 200_000, 400_000]))
    latency = batching_latency()

    is_gpu = data.draw(st.booleans())
    memory = EngineMemory(1000, shares_arena=is_gpu, built={1: 1})

    found = group_canvases(
        used, latency, "full", max_groups=max_groups, memory=memory, limit_bytes=limit, together=together
    )

    best = math.inf
    ordered = sorted(used, key=lambda u: u.canvas.num_px)
    for cuts in itertools.chain.from_iterable(
        itertools.combinations(range(1, len(used)), n) for n in range(min(max_groups, len(used)))
    ):
        edges = [0, *cuts, len(used)]
        parts = [ordered[start:end] for start, end in itertools.pairwise(edges)]
        for tops in itertools.product(*(ladder_to(min(u.max_batch for u in part)) for part in parts)):
            runs = [part[-1].canvas.num_px * top for part, top in zip(parts, tops, strict=True)]
            in_one = 1000 * len(parts) + (max(runs) if is_gpu else sum(runs))
            if (in_one if together else 1000 + max(runs)) <= limit:
                best = min(best, sum(loss_of(part, top, latency) for part, top in zip(parts, tops, strict=True)))
    if found is None:
        assert best == math.inf
    else:
        assert sum(group.loss for group in found) == pytest.approx(best)
        assert len(found) <= max_groups


def loss_of(part, top, latency):
    """A bucket's device time, canvases far from the tuned one taken dearer."""
    tuned = max(part, key=lambda u: (u.rate_hz, u.canvas.num_px)).canvas
    return sum(
        u.rate_hz
        * seconds_a_frame(latency, "full", u.canvas, ladder_to(top))
        * (1 + TUNING_LOSS_PER_DOUBLING * abs(math.log2(u.canvas.num_px / tuned.num_px)))
        for u in part
    )


def chain_optimum_s(sizes, max_canvases, seconds_a_px):
    """Of sizes that hold each other: the interval program, another algorithm than the planner's."""
    best = [[0.0] + [math.inf] * len(sizes)]
    for _ in range(max_canvases):
        row = [0.0]
        for end in range(1, len(sizes) + 1):
            area = round_up(sizes[end - 1].size_hw[0]) * round_up(sizes[end - 1].size_hw[1])
            row.append(
                min(
                    best[-1][start] + sum(e.rate_hz for e in sizes[start:end]) * area * seconds_a_px
                    for start in range(end)
                )
            )
        best.append(row)
    return min(row[-1] for row in best[1:])


@settings(max_examples=10)
@given(steps=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 90), RATES), min_size=40, max_size=40))
def test_forty_sizes_on_a_chain_agree_with_the_interval_program(steps):
    """Far beyond brute force, another exact algorithm gives the same optimum."""
    sizes, height, width = [], 100, 100
    for down, right, rate_hz in steps:
        height, width = height + down, width + right
        sizes.append(SizeRate((height, width), rate_hz, slo_s=3600.0))

    proposal = propose(tuple(sizes), MODEL, LatencyModel(), PlannerLimits(max_canvases=6), pool=POOL)

    assert proposal.gap_fraction == 0
    assert proposal.device_s_per_s == pytest.approx(chain_optimum_s(sizes, 6, 130e-9))
