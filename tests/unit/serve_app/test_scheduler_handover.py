"""Which frames another router may serve: those of which nothing has begun."""

from __future__ import annotations

from router_world import WIDE_HW, quick_table, tile_plan
from serve_samples import admit, replicas, sample_frame, scheduler_of

from serve_app.frames import Priority
from serve_app.latency import LatencyModel
from serve_app.scheduler import Scheduler


def taken(scheduler):
    """The frames taken out, in their order."""
    return [frame.frame_id for frame in scheduler.take_unbegun()]


def test_all_that_waits_is_taken_out_the_most_urgent_first():
    """Critical before normal, then by deadline; nothing of them is left."""
    scheduler = scheduler_of(
        sample_frame("late", deadline_s=90), sample_frame("early", deadline_s=80),
        sample_frame("critical", deadline_s=95, priority=Priority.CRITICAL),
    )  # fmt: skip

    assert taken(scheduler) == ["critical", "early", "late"]
    assert (scheduler.num_frames, scheduler.held_bytes, scheduler.next_wake_s()) == (0, 0, None)
    assert taken(scheduler) == []


def test_what_runs_stays():
    """Its replica answers it; only the others go."""
    scheduler = scheduler_of(sample_frame("a"))
    scheduler.replicas_ready("near", replicas("near", 1))
    (batch,) = scheduler.decide(0.0).batches
    admit(scheduler, sample_frame("b", arrived_s=0.0))

    assert taken(scheduler) == ["b"]
    assert scheduler.num_frames == 1
    assert [frame.frame_id for frame in scheduler.batch_ended(batch.batch_id, 0.1)] == ["a"]


def test_a_frame_whose_replica_died_may_go():
    """It waits again, whole: the new router's replicas are as good as the old one's."""
    scheduler = scheduler_of(sample_frame("a"))
    scheduler.replicas_ready("near", replicas("near", 1))
    (batch,) = scheduler.decide(0.0).batches
    scheduler.replicas_ready("near", [])
    assert scheduler.batch_lost(batch.batch_id, 0.1) == ()

    assert taken(scheduler) == ["a"]


def test_a_frame_of_which_tiles_have_run_stays():
    """Its other tiles belong to answers that are here."""
    scheduler = Scheduler(tile_plan(), LatencyModel(quick_table()))
    admit(scheduler, sample_frame("tiled", size_hw=WIDE_HW))
    scheduler.replicas_ready("near", replicas("near", 1))
    sent = scheduler.decide(0.0).batches
    assert 0 < len(sent) < 4, "none or all of its tiles are sent: the test shows nothing"
    for batch in sent:
        scheduler.batch_ended(batch.batch_id, 0.1)

    assert taken(scheduler) == []
    assert scheduler.num_frames == 1
