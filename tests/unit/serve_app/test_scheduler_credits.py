"""The scheduler beside other routers: batches that replicas refuse, and the work of others in its predictions."""

from __future__ import annotations

import math

import pytest
from serve_samples import (
    admit,
    criticals,
    ids,
    in_batch,
    ladder_scheduler,
    sample_frame,
    sample_plan,
    scheduler_of,
    sent,
)  # fmt: skip

from serve_app.frames import Priority
from serve_app.plan import Scheduling
from serve_app.replica_credits import ReplicaCredits, SchedulerStateError
from serve_app.verdicts import VerdictKind

UHD_HW = (1088, 1920)


def refuse(scheduler, batch, now_s):
    """The replica has no credit for a batch."""
    scheduler.batch_refused(batch.batch_id, now_s)


def test_a_refused_batch_waits_again_in_its_order():
    """As if it had not been sent: what is due first goes first, in the same batch."""
    scheduler = scheduler_of(*(sample_frame(name, deadline_s=50.0 + at) for at, name in enumerate("abc")), near=1)
    batch, other = scheduler.decide(0.0).batches
    assert (in_batch(batch), in_batch(other)) == (["a", "b"], ["c"])
    refuse(scheduler, batch, 0.1)
    admit(scheduler, sample_frame("z", deadline_s=40.0, arrived_s=0.1))
    scheduler.batch_ended(other.batch_id, 0.1)

    assert sent(scheduler.decide(0.1)) == [["z", "a"]]
    with pytest.raises(SchedulerStateError):
        refuse(scheduler, batch, 0.1)


def test_a_refusal_is_no_attempt():
    """However often it happens; three deaths of its replicas would end the frame."""
    scheduler = scheduler_of(sample_frame("a"), near=1)
    for step in range(10):
        (batch,) = scheduler.decide(0.1 * step).batches
        refuse(scheduler, batch, 0.1 * step)
    (batch,) = scheduler.decide(1.0).batches
    for number in (1, 2):
        scheduler.replicas_ready("near", [f"near-{number}"])
        assert scheduler.batch_lost(batch.batch_id, 1.0) == ()
        (batch,) = scheduler.decide(1.0).batches
    assert ids(scheduler.batch_lost(batch.batch_id, 1.1)) == ["a"]


def test_a_refused_frame_that_is_late_expires():
    """It had not been served, and nobody could help it."""
    scheduler = scheduler_of(sample_frame("a", deadline_s=1.0), near=1)
    (batch,) = scheduler.decide(0.0).batches
    refuse(scheduler, batch, 1.0)

    assert [each.frame.frame_id for each in scheduler.decide(1.0).expired] == ["a"]
    assert scheduler.num_frames == 0


def test_a_frame_that_left_does_not_come_back_with_its_batch():
    """One of the batch was superseded before; the others wait again, the budgets are right."""
    scheduler = scheduler_of(sample_frame("a"), sample_frame("b"), near=1)
    (batch,) = scheduler.decide(0.0).batches
    refuse(scheduler, batch, 0.1)
    assert scheduler.cancelled("a")
    (batch,) = scheduler.decide(0.1).batches
    assert in_batch(batch) == ["b"]
    refuse(scheduler, batch, 0.2)
    assert scheduler.num_frames == 1


def test_tiles_of_a_refused_batch_join_those_that_wait():
    """Every tile is served once."""
    tiled = sample_frame("t", size_hw=(1440, 2560), camera="tile-1", deadline_s=30.0)
    scheduler = ladder_scheduler(tiled, near=1, far=1, scheduling=Scheduling(max_chunk_s=0.09))
    served, now_s = [], 0.0
    refused = 0
    while scheduler.num_frames and now_s < 20:
        for batch in scheduler.decide(now_s).batches:
            if refused < 3:
                refused += 1
                refuse(scheduler, batch, now_s)
            else:
                served += [piece.number for piece in batch.pieces]
                scheduler.batch_ended(batch.batch_id, now_s + 0.01, busy_s=batch.run_s)
        now_s += 0.02

    assert refused == 3
    assert len(served) > 1
    assert sorted(served) == list(range(len(served)))


def test_what_was_refused_has_not_been_served():
    """Under critical load a class that starved is sent as critical work, although a refused batch of it was sent."""
    scheduler = scheduler_of(
        sample_frame("n"), near=1, scheduling=Scheduling(max_starve_s=0.5, max_chunk_s=0.2, max_defer_s=5.0)
    )
    for now_s in (0.0, 0.45):
        (batch,) = scheduler.decide(now_s).batches
        refuse(scheduler, batch, now_s)
    admit(scheduler, *criticals("a", "b", "c", "d", "e", "f", arrived_s=0.45))

    first = scheduler.decide(0.6).batches[0]
    assert (in_batch(first), first.urgent) == (["n"], True)


# The work of others


def shared(scheduler, share=1.0, urgent_s=-math.inf, other_s=-math.inf, replica="near-0"):
    """A replica tells of the work of other routers."""
    scheduler.replica_shared("near", replica, share, urgent_s, other_s)


def test_a_batch_goes_to_the_replica_where_others_have_less_to_do():
    """Of replicas that are idle for us; a critical one passes what others have staged."""
    scheduler = scheduler_of(near=2)
    shared(scheduler, 0.5, urgent_s=10.01, other_s=10.5, replica="near-0")
    shared(scheduler, 0.5, urgent_s=10.05, other_s=10.05, replica="near-1")
    admit(scheduler, sample_frame("n", arrived_s=10.0))
    (batch,) = scheduler.decide(10.0).batches
    assert batch.replica == "near-1"
    scheduler.batch_ended(batch.batch_id, 10.0)

    admit(scheduler, *criticals("c", arrived_s=10.0))
    (batch,) = scheduler.decide(10.0).batches
    assert batch.replica == "near-0"


def test_a_frame_that_would_wait_too_long_behind_others_takes_a_lower_rung():
    """The start that is predicted counts their work; without it the frame is served as it is."""
    for others_s, rung in ((0.0, 0), (0.085, 2)):
        scheduler = ladder_scheduler(
            sample_frame("a", deadline_s=10.1, arrived_s=10.0, priority=Priority.CRITICAL), near=1
        )
        shared(scheduler, 0.9, urgent_s=10.0 + others_s, other_s=10.0 + others_s)
        (batch,) = scheduler.decide(10.0).batches
        assert batch.pieces[0].route.rung == rung


def test_admission_reckons_with_the_share_that_others_leave():
    """Half a device: twice the wait, and half as many frames that can be in time."""
    admitted = []
    for share in (1.0, 0.5):
        scheduler = scheduler_of(near=1)
        shared(scheduler, share)
        scheduler.decide(9.0)
        frames = (sample_frame(f"f{number}", arrived_s=10.0, deadline_s=11.0) for number in range(400))
        verdicts = [scheduler.arrived(frame).verdict.kind for frame in frames]
        admitted.append(sum(kind is not VerdictKind.REJECT for kind in verdicts))

    assert 0.4 < admitted[1] / admitted[0] < 0.6


def test_devices_are_counted_by_their_shares():
    """Of those that are ready; a replica that nobody knows is passed over."""
    credits_ = ReplicaCredits()
    credits_.set_ready(["a", "b"])
    credits_.set_shared("a", 0.5, 0.0, 0.0)
    credits_.set_shared("z", 0.1, 0.0, 0.0)
    assert credits_.num_devices == 1.5
    credits_.set_ready(["b"])
    assert credits_.num_devices == 1.0
    credits_.set_ready(["a", "b"])
    assert credits_.num_devices == 2.0  # what came back is another one, or has forgotten


def test_the_end_of_all_work_counts_that_of_others():
    """Whether a frame can still be in time anywhere is judged by it."""
    credits_ = ReplicaCredits()
    credits_.set_ready(["a"])
    assert credits_.first_end_s(5.0) == 0.0
    credits_.set_shared("a", 0.5, 5.1, 5.2)
    assert credits_.first_end_s(5.0) == 5.2


def test_a_batch_behind_others_is_thought_to_run_after_them():
    """So the next one is staged behind both."""
    credits_ = ReplicaCredits()
    credits_.set_ready(["a"])
    credits_.set_shared("a", 0.5, 5.1, 5.2)
    place = credits_.place_for_other(5.0, 0.0)
    assert (place.start_s, place.there_s) == (5.2, 5.0)
    credits_.sent(1, place, 0.3, urgent=False)
    assert credits_.place_for_other(5.0, 0.0).start_s == pytest.approx(5.5)
    assert credits_.running_s(5.0) == pytest.approx(0.5)


def test_a_plan_without_other_routers_knows_no_shares():
    """Nobody has told of any."""
    scheduler = scheduler_of(near=2)
    assert scheduler._pools["near"].credits.num_devices == 2.0
    assert sample_plan().num_routers == 1
