"""The comparison batcher, and what the scheduler gains over it on interleaved sizes."""

from __future__ import annotations

import random

import pytest
from shape_closing import ShapeClosing
from simulated_fleets import SIZES, mixed_fleet, plan_of, table_of

from serve_app.frames import Frame, Priority
from serve_app.latency import LatencyModel
from serve_app.scheduler import Scheduler
from serve_app.simulation.simulate import Simulation
from serve_app.simulation.simulation_report import offered_use, report

VGA, HD = SIZES[1][0], SIZES[3][0]


def closing(*sizes_hw, slo_s=1.0) -> ShapeClosing:
    """A batcher with these frames in its queue."""
    plan = plan_of(1)
    batcher = ShapeClosing(plan, LatencyModel(table_of(plan)))
    batcher.replicas_ready("gpu", ["gpu-1"])
    for number, size_hw in enumerate(sizes_hw):
        batcher.arrived(Frame(str(number), "cam", size_hw, Priority.NORMAL, 0.0, slo_s, 1))
    return batcher


@pytest.mark.parametrize(
    ("sizes_hw", "batches"),
    [
        ((VGA, VGA, VGA), [["0", "1", "2"]]),
        ((VGA, HD, VGA, VGA), [["0"], ["1"]]),
        ((VGA,) * 9, [[str(number) for number in range(8)], ["8"]]),
    ],
    ids=["one shape", "closes at the other shape, two batches a replica", "the largest batch"],
)
def test_a_batch_closes_at_the_first_other_shape(sizes_hw, batches):
    """In the order of arrival; nothing is held back."""
    decisions = closing(*sizes_hw).decide(0.1)

    assert [[piece.frame.frame_id for piece in batch.pieces] for batch in decisions.batches] == batches


def test_frames_past_their_deadline_leave_at_the_head():
    """No device time is spent on them."""
    decisions = closing(VGA, VGA, slo_s=0.05).decide(0.1)

    assert [expired.frame.frame_id for expired in decisions.expired] == ["0", "1"]
    assert decisions.batches == ()


def test_on_interleaved_sizes_the_schedulers_batches_are_three_times_as_large():
    """At a load of full devices, on the same trace with the same devices; more frames are in time as well."""
    plan = plan_of(2)
    fleet = mixed_fleet(100, 5.0, 3.0)
    unit = offered_use(plan, fleet.at_load(1.0), LatencyModel(table_of(plan)))
    trace = fleet.at_load(1.0 / unit)
    figures = [
        report(
            Simulation(plan, policy, LatencyModel(table_of(plan)), random.Random(0).gauss).run(trace), offered_use=1.0
        )
        for policy in (Scheduler(plan, LatencyModel(table_of(plan))), ShapeClosing(plan, LatencyModel(table_of(plan))))
    ]

    assert figures[0].mean_batch >= 3 * figures[1].mean_batch
    assert figures[0].in_time_fraction > figures[1].in_time_fraction
