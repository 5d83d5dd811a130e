"""Pools that are known to have no replica: who waits for the first one, and who takes a rung elsewhere meanwhile."""

from __future__ import annotations

import pytest
from serve_samples import HD, UHD, VGA, ladder_plan, prepared, sample_frame, sample_latency

from serve_app.frames import Priority
from serve_app.plan import Bucket, Pool, Scheduling
from serve_app.scheduler import Scheduler
from serve_app.verdicts import VerdictKind

ADMIT, DEGRADE, DEFER = VerdictKind.ADMIT, VerdictKind.DEGRADE, VerdictKind.DEFER
# UHD frames are deferred and are `far`'s; the ladder's rungs are in `near`.
PLAN = ladder_plan(scheduling=Scheduling(defer_above_px=1_500_000))
UHD_OWN_S = 0.090


def scheduler(*, near=1, far=0, plan=PLAN):
    """Both pools have been counted: `near` has replicas, `far` has so many."""
    counted = prepared(Scheduler(plan, sample_latency()))
    for pool, number in (("near", near), ("far", far)):
        counted.replicas_ready(pool, [f"{pool}-{each}" for each in range(number)])
    return counted


def test_deferred_frames_wait_for_a_pool_that_has_no_replica_however_many_there_are():
    """Eighty seconds of work for one replica: nobody knows how many will come."""
    core = scheduler()

    verdicts = [core.arrived(sample_frame(str(n), size_hw=UHD, deadline_s=30.0)).verdict.kind for n in range(300)]

    assert set(verdicts) == {DEFER}
    assert core.decide(0.0).batches == ()


def test_they_are_served_by_the_first_one_that_comes():
    """At their own size."""
    core = scheduler()
    core.arrived(sample_frame("a", size_hw=UHD, deadline_s=30.0))
    core.decide(0.0)

    core.replicas_ready("far", ["far-0"])

    ((batch,), _, _) = core.decide(20.0)
    assert (batch.pool, batch.canvas) == ("far", UHD)


def test_a_deferred_frame_that_can_wait_no_longer_takes_a_rung_in_another_pool():
    """The ladder bridges the start: late enough that its own pool had every chance, early enough to be in time."""
    core = scheduler()
    core.arrived(sample_frame("a", size_hw=UHD, deadline_s=10.0))
    assert core.decide(0.0).batches == ()

    wake_s = core.next_wake_s()

    assert wake_s == pytest.approx(10.0 - 1.25 * UHD_OWN_S)
    ((batch,), expired, _) = core.decide(wake_s)
    assert (batch.pool, batch.canvas, expired) == ("near", VGA, ())
    assert wake_s + batch.run_s + 0.010 < 10.0


def test_without_a_ladder_it_waits_until_its_deadline_says_that_it_is_over():
    """Then it expires, and is answered."""
    core = scheduler()
    core.arrived(sample_frame("a", size_hw=UHD, deadline_s=10.0, camera="firm-1"))

    ends = []
    while (wake_s := core.next_wake_s()) is not None:
        decisions = core.decide(wake_s)
        ends += [(wake_s, each.frame.frame_id) for each in decisions.expired]

    assert ends == [(pytest.approx(10.0 - 1.25 * UHD_OWN_S), "a")]


@pytest.mark.parametrize("priority", list(Priority))
def test_other_frames_take_a_rung_in_another_pool_at_once(priority):
    """They have no time for a start; a critical one even less."""
    buckets = (
        Bucket("hd", "full", "far", (HD,), (1, 2)),
        Bucket("vga", "full", "near", (VGA,), (1, 2, 4)),
        Bucket("light", "light", "near", (VGA,), (1, 2, 4)),
    )
    core = scheduler(plan=ladder_plan(buckets=buckets, pools=(Pool("near"), Pool("far"))))

    verdict = core.arrived(sample_frame("a", size_hw=HD, deadline_s=1.0, priority=priority)).verdict

    assert (verdict.kind, verdict.rung) == (DEGRADE, 1)
    assert [batch.pool for batch in core.decide(0.0).batches] == ["near"]


def test_a_pool_that_was_never_counted_is_not_thought_empty():
    """The first second of a service: every pool is about to be counted."""
    core = prepared(Scheduler(PLAN, sample_latency()))
    core.replicas_ready("near", ["near-0"])

    core.arrived(sample_frame("a", size_hw=UHD, deadline_s=1.0, priority=Priority.CRITICAL))

    assert core.decide(0.0).batches == ()
    assert core.loads()["far"].num_waiting == 1


def test_where_no_pool_has_a_replica_frames_wait_for_their_own():
    """There is nowhere to go."""
    core = scheduler(near=0)

    kinds = [
        core.arrived(sample_frame(name, size_hw=size_hw, deadline_s=5.0)).verdict.kind
        for name, size_hw in {"a": VGA, "b": UHD}.items()
    ]

    assert kinds == [ADMIT, DEFER]
    assert {name: load.num_waiting for name, load in core.loads().items()} == {"near": 1, "far": 1}


def test_what_waited_in_a_pool_whose_replicas_all_died_is_bridged_as_well():
    """Before it would be late in its own."""
    core = scheduler(far=1)
    frames = [sample_frame(str(number), size_hw=UHD, deadline_s=10.0) for number in range(3)]
    for frame in frames:
        core.arrived(frame)
    (batch,) = core.decide(0.0).batches
    core.replicas_ready("far", [])
    assert core.batch_lost(batch.batch_id, 0.1) == ()

    pools = []
    while (wake_s := core.next_wake_s()) is not None:
        decisions = core.decide(wake_s)
        assert [each.frame.frame_id for each in decisions.expired] in ([], [batch.pieces[0].frame.frame_id])
        for each in decisions.batches:
            pools += [each.pool] * len(each.pieces)
            core.batch_ended(each.batch_id, wake_s + each.run_s, busy_s=each.run_s)

    assert pools == ["near", "near"], "the one that had begun may not change its way"


def test_what_is_offered_counts_by_the_first_route_whatever_becomes_of_it():
    """Degraded, refused for want of room, rejected: the pool that was wanted counts it."""
    core = scheduler()
    frames = [sample_frame(str(number), size_hw=UHD, priority=Priority.CRITICAL) for number in range(4)]
    for frame in frames:
        core.arrived(frame)
    core.arrived(sample_frame("huge", size_hw=UHD, num_bytes=2**60))
    core.arrived(sample_frame("never", size_hw=(2000, 3000), camera="reject-1"))

    loads = core.loads()
    assert loads["far"].offered_s == pytest.approx(5 * 0.083)
    assert loads["near"].offered_s == 0.0
    assert core.decide(0.0).batches
    assert core.loads()["near"].sent_s > 0
