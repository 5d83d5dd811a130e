"""A device that has no memory for a batch: smaller ones, then a cheaper route, and no loop."""

from __future__ import annotations

import pytest
from serve_samples import HD, VGA, admit, criticals, ids, ladder_scheduler, sample_frame, scheduler_of, sent

from serve_app.decisions import Decisions
from serve_app.frames import Priority
from serve_app.routes import CRITICAL_MEMORY_PAUSE_S, MEMORY_PAUSE_S

NOTHING = Decisions((), ())


def test_the_frames_of_a_batch_that_was_too_large_go_in_halves():
    """Four at once did not fit: two and two, nobody is lost, and the order stays."""
    scheduler = scheduler_of(*(sample_frame(name) for name in "abcd"), near=1)
    (batch,) = scheduler.decide(1.0).batches
    assert len(batch.pieces) == 4

    assert scheduler.batch_out_of_memory(batch.batch_id, 1.1) == ()
    scheduler.replicas_ready("near", ["near-0", "near-1", "near-2"])

    assert sent(scheduler.decide(1.1)) == [["a", "b"], ["c", "d"]]


def test_halving_goes_on_until_one_is_alone():
    """Four, two, one: each end is heard once, and what waits is counted."""
    scheduler = scheduler_of(*(sample_frame(name) for name in "abcd"), near=1)
    sizes = []
    for now_s in (1.0, 1.1, 1.2):
        batch = scheduler.decide(now_s).batches[0]
        sizes.append(len(batch.pieces))
        if sizes[-1] > 1:
            assert scheduler.batch_out_of_memory(batch.batch_id, now_s) == ()

    assert sizes == [4, 2, 1]
    assert scheduler.num_frames == 4


def test_smaller_batches_are_for_a_while_only():
    """Whoever filled the memory may have gone: after the pause large ones are tried again."""
    scheduler = scheduler_of(*(sample_frame(name) for name in "abcd"), near=1)
    first = scheduler.decide(1.0).batches[0]
    scheduler.batch_out_of_memory(first.batch_id, 1.0)
    for _ in range(2):
        for batch in scheduler.decide(1.5).batches:
            scheduler.batch_ended(batch.batch_id, 1.5)
    sizes = {}
    for at_s in (1.0 + MEMORY_PAUSE_S / 2, 2.5 + MEMORY_PAUSE_S):
        scheduler.replicas_ready("near", [])
        admit(scheduler, *(sample_frame(f"{at_s}-{n}", arrived_s=at_s, deadline_s=at_s + 60) for n in range(4)))
        scheduler.replicas_ready("near", ["near-1"])
        batches = [*scheduler.decide(at_s).batches, *scheduler.decide(at_s).batches]
        sizes[at_s] = len(batches[0].pieces)
        while scheduler.num_frames:
            for batch in batches:
                scheduler.batch_ended(batch.batch_id, at_s)
            batches = list(scheduler.decide(at_s).batches)

    assert list(sizes.values()) == [2, 4]


def test_a_frame_that_does_not_fit_alone_takes_its_next_rung():
    """And those that come after it are not tried there for a while."""
    scheduler = ladder_scheduler(sample_frame("a", size_hw=HD), near=1)
    (batch,) = scheduler.decide(1.0).batches
    assert (batch.model, batch.canvas) == ("full", HD)

    assert scheduler.batch_out_of_memory(batch.batch_id, 1.0) == ()
    (again,) = scheduler.decide(1.0).batches
    assert (again.model, again.canvas) == ("full", VGA)
    scheduler.batch_ended(again.batch_id, 1.1)
    admit(scheduler, sample_frame("b", size_hw=HD, arrived_s=1.2, deadline_s=60))
    (later,) = scheduler.decide(1.2).batches
    assert (later.model, later.canvas) == ("full", VGA)


def test_a_frame_without_a_cheaper_route_is_given_up():
    """Nothing is tried over and over; whoever sent it is told."""
    frame = sample_frame("a")
    scheduler = scheduler_of(frame, near=1)
    (batch,) = scheduler.decide(1.0).batches

    assert scheduler.batch_out_of_memory(batch.batch_id, 1.0) == (frame,)
    assert (scheduler.num_frames, scheduler.decide(1.0)) == (0, NOTHING)


def test_a_frame_that_would_be_late_now_is_given_up():
    """The other one of its batch goes on."""
    frames = [sample_frame("due", deadline_s=2.0), sample_frame("later", deadline_s=60)]
    scheduler = scheduler_of(*frames, near=1)
    (batch,) = scheduler.decide(1.0).batches

    assert ids(scheduler.batch_out_of_memory(batch.batch_id, 1.999)) == ["due"]
    assert sent(scheduler.decide(1.999)) == [["later"]]


def test_a_frame_that_was_cancelled_meanwhile_is_forgotten():
    """It waits no more, and nobody is told of it again."""
    scheduler = scheduler_of(sample_frame("a"), sample_frame("b"), near=1)
    (batch,) = scheduler.decide(1.0).batches
    scheduler.batch_out_of_memory(batch.batch_id, 1.0)
    assert scheduler.cancelled("a")

    assert sent(scheduler.decide(1.0)) == [["b"]]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_limit_on_one_canvas_is_none_on_another(size):
    """Memory was short for large frames: small ones go together as before."""
    scheduler = scheduler_of(sample_frame("a", size_hw=HD), sample_frame("b", size_hw=HD), near=1)
    (batch,) = scheduler.decide(1.0).batches
    assert (batch.canvas, len(batch.pieces)) == (HD, 2)
    scheduler.batch_out_of_memory(batch.batch_id, 1.0)
    for each in scheduler.decide(1.0).batches:
        scheduler.batch_ended(each.batch_id, 1.0)
    for each in scheduler.decide(1.0).batches:
        scheduler.batch_ended(each.batch_id, 1.0)
    admit(scheduler, *(sample_frame(f"v{n}", size_hw=VGA, arrived_s=1.1) for n in range(size)))
    scheduler.replicas_ready("near", ["near-9"])

    assert len(scheduler.decide(1.1).batches[0].pieces) == size


def test_a_batch_without_memory_at_one_replica_goes_to_another_as_it_is():
    """The first takes no more batches; nothing is limited, no rung is lost."""
    scheduler = ladder_scheduler(*(sample_frame(name) for name in "abcd"), near=2)
    (batch,) = scheduler.decide(1.0).batches
    others = {"near-0", "near-1"} - {batch.replica}
    scheduler.replicas_ready("near", others)

    assert scheduler.batch_out_of_memory(batch.batch_id, 1.0, elsewhere=True) == ()
    (again,) = scheduler.decide(1.0).batches
    assert ({again.replica}, again.model, len(again.pieces)) == (others, "full", 4)


def test_what_goes_elsewhere_is_given_up_when_it_is_too_late():
    """Its deadline holds there as well."""
    frame = sample_frame("due", deadline_s=2.0)
    scheduler = scheduler_of(frame, near=2)
    (batch,) = scheduler.decide(1.0).batches

    assert scheduler.batch_out_of_memory(batch.batch_id, 1.999, elsewhere=True) == (frame,)


def alone_without_memory(scheduler, priority):
    """A VGA frame of the full model that came at 1 s, alone, and found no memory; it is served otherwise."""
    admit(scheduler, sample_frame("first", priority=priority, arrived_s=1.0))
    (batch,) = scheduler.decide(1.0).batches
    assert batch.model == "full"
    assert scheduler.batch_out_of_memory(batch.batch_id, 1.0) == ()
    (again,) = scheduler.decide(1.0).batches
    assert again.model == "light"
    scheduler.batch_ended(again.batch_id, 1.0, busy_s=0.01)


def model_at(scheduler, at_s, priority):
    """Which model a frame that comes now is served by."""
    admit(scheduler, sample_frame(f"{priority}-{at_s}", priority=priority, arrived_s=at_s, deadline_s=at_s + 60))
    (batch,) = scheduler.decide(at_s).batches
    scheduler.batch_ended(batch.batch_id, at_s, busy_s=0.01)
    return batch.model


@pytest.mark.parametrize(
    ("priority", "pause_s"),
    [(Priority.CRITICAL, CRITICAL_MEMORY_PAUSE_S), (Priority.NORMAL, MEMORY_PAUSE_S)],
)
def test_a_shape_without_memory_is_left_alone_for_a_while(priority, pause_s):
    """Critical frames try it again much sooner, since they keep their model unless there is no other way."""
    scheduler = ladder_scheduler(near=1)
    alone_without_memory(scheduler, priority)

    told = [model_at(scheduler, 1.0 + share * pause_s + 1, priority) for share in (0.0, 0.5, 1.0)]
    assert told == ["light", "light", "full"]


def test_a_critical_frame_that_fits_again_opens_the_shape_to_all():
    """What one frame has memory for, the next one has."""
    scheduler = ladder_scheduler(near=1)
    alone_without_memory(scheduler, Priority.CRITICAL)
    later_s = 2.0 + CRITICAL_MEMORY_PAUSE_S

    assert model_at(scheduler, later_s, Priority.NORMAL) == "light"
    assert model_at(scheduler, later_s + 1, Priority.CRITICAL) == "full"
    assert model_at(scheduler, later_s + 2, Priority.NORMAL) == "full"


def test_a_second_try_without_memory_begins_the_pause_anew():
    """Critical frames do not all find out for themselves."""
    scheduler = ladder_scheduler(near=1)
    alone_without_memory(scheduler, Priority.CRITICAL)
    later_s = 2.0 + CRITICAL_MEMORY_PAUSE_S
    admit(scheduler, *criticals("again", arrived_s=later_s))
    (batch,) = scheduler.decide(later_s).batches
    assert batch.model == "full"
    scheduler.batch_out_of_memory(batch.batch_id, later_s)
    (lower,) = scheduler.decide(later_s).batches
    scheduler.batch_ended(lower.batch_id, later_s, busy_s=0.01)

    assert model_at(scheduler, later_s + 0.1, Priority.CRITICAL) == "light"
    assert model_at(scheduler, later_s + 2, Priority.CRITICAL) == "light"
    assert model_at(scheduler, later_s + 2 + CRITICAL_MEMORY_PAUSE_S, Priority.CRITICAL) == "full"
