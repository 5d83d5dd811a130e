"""What the simulator is told of a measured run: how long batches took, and when."""

from __future__ import annotations

import dataclasses
import random

import pytest
from overload_figures import Record
from overload_plan import overload_plan
from overload_trace import trace
from prediction import SHARE_BEFORE, MeasuredTimes, handing_over_s, measured_table, predicted

from engines.spec import CanvasShape
from serve_app.batching import Batch
from serve_app.latency import Latency, LatencyKey, LatencyTable, Origin

SMALL, WIDE, UNSEEN = CanvasShape(256, 320), CanvasShape(544, 960), CanvasShape(384, 640)
BELIEVED = {SMALL: 0.02, WIDE: 0.1, UNSEEN: 0.05}


def table(run_s=None):
    """What the service believed: one frame alone on each canvas."""
    seconds = run_s or BELIEVED
    entries = {LatencyKey("full", canvas, 1): Latency(value_s, 0.001, 9) for canvas, value_s in seconds.items()}
    return LatencyTable("here", Origin.MEASURED, entries)


def answered(at_s, run_s, canvas=SMALL, **changes):
    """The record of a frame that was alone in its batch; 5 ms of way, 2 ms between client and router."""
    seconds = {"latency_s": run_s + 0.007, "router_s": run_s + 0.005, "way_s": 0.005, "run_s": run_s}
    facts = {"model": "full", "canvas": str(canvas), "batch_size": 1} | seconds | changes
    return Record("gate", "normal", 1.0, at_s, 0.0, "finished", **facts)


def batch(number, canvas=SMALL):
    """A batch of one piece on this canvas."""
    return Batch(number, "cpu", "cpu-1", "small", "full", canvas, urgent=False, run_s=1.0, pieces=("piece",))


def test_a_shape_that_was_seen_takes_its_mean_and_others_are_as_much_slower():
    """The run was half as slow again as believed, on all that it saw; what it did not see is taken to be so too."""
    records = [answered(0.0, 0.02), answered(1.0, 0.04), answered(2.0, 0.15, WIDE)]

    found = measured_table(records, table()).entries

    assert {key.canvas: latency.run_s for key, latency in found.items()} == pytest.approx(
        {SMALL: 0.03, WIDE: 0.15, UNSEEN: 0.05 * 0.21 / 0.14}
    )


def test_tiles_and_frames_that_never_ran_tell_nothing():
    """Of a frame in tiles no batch is known; a rejected one had none."""
    tiled = dataclasses.replace(answered(0.0, 9.0), run_s=None, way_s=None)
    rejected = Record("gate", "normal", 1.0, 0.0, 0.0, "rejected", latency_s=0.001)

    found = measured_table([answered(0.0, 0.02), tiled, rejected], table()).entries

    assert found[LatencyKey("full", SMALL, 1)].run_s == pytest.approx(0.02)


def test_a_batch_takes_what_batches_took_at_that_moment():
    """The machine was three times slower in the second half; the way and the run are those of one measured batch."""
    calm = [answered(number / 10, 0.02) for number in range(100)]
    busy = [answered(10 + number / 10, 0.06, way_s=0.02, router_s=0.08, latency_s=0.09) for number in range(100)]
    times = MeasuredTimes(calm + busy, table(), random.Random(0))

    took = {}
    for at_s in (5.0, 15.0):
        way_s = times.way_s(batch(1), at_s)
        took[at_s] = (*way_s, times.run_s(batch(1), at_s), times.hop_s(at_s))

    assert took[5.0] == pytest.approx((SHARE_BEFORE * 0.005, (1 - SHARE_BEFORE) * 0.005, 0.02, 0.002))
    assert took[15.0] == pytest.approx((SHARE_BEFORE * 0.02, (1 - SHARE_BEFORE) * 0.02, 0.06, 0.01))


def test_where_nothing_was_measured_the_nearest_moment_counts():
    """Before the first answer, and after the last."""
    records = [answered(at_s, 0.02 if at_s < 5 else 0.04) for at_s in (3.0, 3.1, 3.2, 7.0, 7.1, 7.2)]
    times = MeasuredTimes(records, table(), random.Random(0))

    ratios = []
    for at_s in (0.0, 60.0):
        times.way_s(batch(1), at_s)
        ratios.append(times.run_s(batch(1), at_s))

    assert ratios == pytest.approx([0.02, 0.04])


def test_a_shape_is_drawn_from_its_own_batches():
    """The large one scattered, the small one did not: small ones do not scatter in the simulation either."""
    records = [answered(number / 10, 0.02) for number in range(60)]
    records += [answered(number / 10, run_s, WIDE) for number in range(30) for run_s in (0.05, 0.15)]
    times = MeasuredTimes(records, table(), random.Random(0))

    took = {SMALL: set(), WIDE: set()}
    for number in range(50):
        for canvas, seconds in took.items():
            times.way_s(batch(number, canvas), 1.5)
            seconds.add(round(times.run_s(batch(number, canvas), 1.5), 9))

    assert took == {SMALL: {0.02}, WIDE: {0.05, 0.15}}


def test_what_a_replica_takes_between_two_batches_belongs_to_its_device():
    """Frames that waited for nobody tell: one in ten waited no longer than this."""
    records = [answered(float(number), 0.02, router_s=0.025 + 0.001 * number) for number in range(20)]

    assert handing_over_s(records) == pytest.approx(0.001)
    times = MeasuredTimes(records, table(), random.Random(0))
    times.way_s(batch(1), 5.0)
    assert times.run_s(batch(1), 5.0) == pytest.approx(0.021)


def test_a_machine_that_was_always_the_same_is_foretold_to_the_millisecond():
    """Frames that never meet: each takes its run, its way and its hop."""
    plan = overload_plan(None, ladder=False)
    sends = [send for send in trace(0.1, 5.0, 20.0, 1) if send.size_hw == (240, 320)]
    apart = [send for number, send in enumerate(sends) if number == 0 or send.at_s - sends[number - 1].at_s > 0.1]
    measured = [answered(send.at_s, 0.02) for send in apart]
    believed = table({SMALL: 0.02, WIDE: 0.1, UNSEEN: 0.05})

    figures = predicted(plan, apart, 20.0, table=believed, measured=measured)

    assert figures.normal.p50_s == pytest.approx(0.027)
    assert figures.normal.p95_s == pytest.approx(0.027)
    assert figures.good_hz == pytest.approx(len(apart) / 20.0)
