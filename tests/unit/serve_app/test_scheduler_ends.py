"""How frames leave: expired, cancelled, failed, lost with a replica; and what cannot have happened."""

from __future__ import annotations

import pytest
from serve_samples import (
    HD,
    PORTRAIT,
    RUN_S,
    UHD,
    VGA,
    admit,
    expired,
    ids,
    replicas,
    sample_frame,
    sample_latency,
    scheduler_of,
    sent,
)

from serve_app.admission import MARGIN_FRACTION
from serve_app.decisions import Decisions
from serve_app.frames import Priority
from serve_app.memory_level import MemoryLevel
from serve_app.plan import Scheduling
from serve_app.replica_credits import SchedulerStateError

CRITICAL = Priority.CRITICAL
NOTHING = Decisions((), ())
# One batch of a VGA frame, as `RUN_S` says.
VGA_S = 0.010
# So long before its deadline a frame must begin, with the call around it: 10 ms until one was seen.
SAFE = 1 + MARGIN_FRACTION
VGA_SAFE_S = SAFE * (VGA_S + 0.01)


# Expiry and cancelling


def test_without_a_replica_nothing_is_sent_but_frames_expire():
    """Callers are answered when their frames cannot make it any more, though nobody serves."""
    scheduler = scheduler_of(sample_frame("late", deadline_s=3), sample_frame("early", deadline_s=2))

    assert scheduler.next_wake_s() == pytest.approx(2 - VGA_SAFE_S)
    assert scheduler.decide(1.999 - VGA_SAFE_S) == NOTHING
    times_s = (2 - VGA_SAFE_S, 2.5, 3 - VGA_SAFE_S)
    assert [expired(scheduler.decide(now_s)) for now_s in times_s] == [["early"], [], ["late"]]
    assert (scheduler.num_frames, scheduler.next_wake_s()) == (0, None)


def test_an_expired_frame_says_how_it_would_have_been_served():
    """For its record."""
    scheduler = scheduler_of(sample_frame("a", size_hw=HD, deadline_s=2))
    (gone,) = scheduler.decide(2.0).expired

    assert (gone.frame.frame_id, gone.route.model, gone.route.canvas) == ("a", "full", HD)


def test_a_frame_with_too_short_a_deadline_may_wait_until_that():
    """It could never make it by prediction, so it is tried until its deadline has come."""
    scheduler = scheduler_of(sample_frame("a", deadline_s=0.01))

    assert scheduler.decide(0.0099) == NOTHING
    assert expired(scheduler.decide(0.01)) == ["a"]


def test_a_tiled_frame_that_has_begun_may_go_on_until_its_deadline():
    """Its latest start has passed and no smaller rung is left to it, but only some of its tiles are still to run."""
    tiles = Scheduling(max_chunk_s=0.05)
    scheduler = scheduler_of(sample_frame("big", size_hw=UHD, deadline_s=1.0), near=1, scheduling=tiles)
    assert sent(scheduler.decide(0.8)) == [["big"] * 4]
    latest_start_s = 1.0 - SAFE * (10 * VGA_S + 0.01)
    assert scheduler.next_wake_s() <= latest_start_s

    assert expired(scheduler.decide(latest_start_s)) == []
    assert scheduler.next_wake_s() == 1.0
    assert expired(scheduler.decide(1.0)) == ["big"]


def test_a_frame_that_another_replica_can_still_make_does_not_expire():
    """Two replicas have a free place but are busy for long, the third has none but will soon: it waits for that one."""
    latency = sample_latency(RUN_S | {("full", HD): (0.5, 0.9)})
    scheduler = scheduler_of(near=3, latency=latency, scheduling=Scheduling(max_chunk_s=0.8))
    admit(scheduler, *(sample_frame(f"slow{number}", size_hw=HD, deadline_s=50 + number) for number in range(2)))
    admit(scheduler, sample_frame("quick"))
    assert sent(scheduler.decide(0.0)) == [["slow0"], ["slow1"], ["quick"]]
    admit(scheduler, sample_frame("staged", size_hw=PORTRAIT))
    assert sent(scheduler.decide(0.0)) == [["staged"]]
    admit(scheduler, sample_frame("a", deadline_s=0.49))

    assert scheduler.decide(0.001) == NOTHING
    scheduler.batch_ended(3, 0.01)
    assert sent(scheduler.decide(0.01)) == [["a"]]


def test_a_frame_does_not_expire_in_the_decision_that_sends_some_of_its_tiles():
    """Whoever carries it out could not: the others are late by prediction, but the first ones are on their way."""
    tiles = Scheduling(max_chunk_s=0.05)
    big = sample_frame("big", size_hw=UHD, deadline_s=0.01)
    scheduler = scheduler_of(big, near=1, scheduling=tiles)
    decisions = scheduler.decide(0.0)

    assert (set(sent(decisions)[0]), expired(decisions)) == ({"big"}, [])
    assert scheduler.decide(0.0) == NOTHING
    assert expired(scheduler.decide(0.01)) == ["big"]
    assert scheduler.batch_ended(decisions.batches[0].batch_id, 0.03) == ()


@pytest.mark.parametrize("gone", ["0", "1", "2"])
def test_of_three_waiting_frames_one_is_cancelled_and_the_other_two_are_sent(gone):
    """A cancelled frame leaves before the batch is formed and takes nobody along."""
    scheduler = scheduler_of(*(sample_frame(str(at), deadline_s=10 + at) for at in range(3)))

    assert scheduler.cancelled(gone) is True
    scheduler.replicas_ready("near", ["near-0"])
    assert sent(scheduler.decide(1.0)) == [[name for name in "012" if name != gone]]


def test_a_frame_that_runs_cannot_be_cancelled():
    """Its batch runs on and ends as usual."""
    scheduler = scheduler_of(sample_frame("a"), near=1)
    scheduler.decide(1.0)

    assert scheduler.cancelled("a") is False
    assert ids(scheduler.batch_ended(1, 1.0)) == ["a"]


def test_a_tiled_frame_can_be_cancelled_while_some_of_its_tiles_wait():
    """The rest of it is not sent, and what runs of it is answered to nobody."""
    scheduler = scheduler_of(sample_frame("big", size_hw=UHD), near=1, scheduling=Scheduling(max_chunk_s=0.05))
    scheduler.decide(0.0)

    assert scheduler.cancelled("big") is True
    assert scheduler.num_frames == 0
    assert scheduler.batch_ended(1, 0.03) == ()
    assert scheduler.decide(0.03) == NOTHING


def test_cancelling_what_is_gone_says_no():
    """Unknown, cancelled, expired and answered frames do not wait."""
    scheduler = scheduler_of(sample_frame("cancelled"), sample_frame("expired", deadline_s=1), sample_frame("done"))
    scheduler.cancelled("cancelled")
    scheduler.replicas_ready("near", ["near-0"])
    scheduler.decide(1.0)
    scheduler.batch_ended(1, 1.0)

    assert [scheduler.cancelled(name) for name in ("nobody", "cancelled", "expired", "done")] == [False] * 4


# Failures


def test_a_failed_piece_ends_its_frame_and_no_other():
    """Its neighbours in the batch are done."""
    scheduler = scheduler_of(*(sample_frame(name) for name in "ab"), near=1)
    scheduler.decide(0.0)

    assert ids(scheduler.batch_ended(1, 1.0, failed=["a"])) == ["b"]
    assert (scheduler.num_frames, scheduler.held_bytes) == (0, 0)


def test_a_failed_tile_takes_the_other_tiles_of_its_frame_along():
    """Those that wait are not sent; the caller has been told already."""
    scheduler = scheduler_of(sample_frame("big", size_hw=UHD), near=1, scheduling=Scheduling(max_chunk_s=0.05))
    scheduler.decide(0.0)

    assert scheduler.batch_ended(1, 0.03, failed=["big"]) == ()
    assert (scheduler.num_frames, scheduler.decide(0.03)) == (0, NOTHING)


def test_frames_of_a_lost_batch_are_sent_twice_more_and_then_given_up():
    """A node takes several replicas along; three in a row are the frame's fault as likely as theirs."""
    frames = (sample_frame("a", deadline_s=10), sample_frame("b", deadline_s=11))
    scheduler = scheduler_of(*frames, near=1)
    assert sent(scheduler.decide(1.0)) == [["a", "b"]]

    assert scheduler.batch_lost(1, 2.0) == ()
    scheduler.replicas_ready("near", ["near-1"])
    assert sent(scheduler.decide(2.0)) == [["a", "b"]]
    assert scheduler.batch_lost(2, 2.5) == ()
    scheduler.replicas_ready("near", ["near-2"])
    assert sent(scheduler.decide(2.5)) == [["a", "b"]]
    assert scheduler.batch_lost(3, 3.0) == frames
    assert (scheduler.num_frames, scheduler.decide(3.0)) == (0, NOTHING)


def test_a_lost_frame_that_cannot_make_it_any_more_is_given_up_at_once():
    """Only what can still be in time is tried again."""
    due, later = sample_frame("due", deadline_s=2.0), sample_frame("later", deadline_s=2.1)
    scheduler = scheduler_of(due, later, near=1)
    scheduler.decide(1.0)

    assert scheduler.batch_lost(1, 1.99) == (due,)
    assert sent(scheduler.decide(1.99)) == [["later"]]


def test_a_lost_frame_stands_at_its_old_place_again():
    """It passes what arrived after it but is due later, and lets pass what is due earlier."""
    scheduler = scheduler_of(sample_frame("lost", deadline_s=10), near=1)
    scheduler.decide(1.0)
    admit(scheduler, sample_frame("sooner", deadline_s=9), sample_frame("later", deadline_s=11))
    scheduler.replicas_ready("near", [])
    scheduler.batch_lost(1, 1.0)
    scheduler.replicas_ready("near", replicas("near", 2))

    assert sent(scheduler.decide(1.0)) == [["sooner", "lost"], ["later"]]


def test_a_tiled_frame_of_a_lost_batch_sends_exactly_the_lost_tiles_again():
    """Those that came back before are not run twice, those that wait keep waiting."""
    scheduler = scheduler_of(sample_frame("big", size_hw=UHD), near=1, scheduling=Scheduling(max_chunk_s=0.05))
    numbers = []
    for now_s, lost in ((0.0, False), (0.1, True), (0.2, False), (0.3, False)):
        (batch,) = scheduler.decide(now_s).batches
        numbers.append([piece.number for piece in batch.pieces])
        done = (
            scheduler.batch_lost(batch.batch_id, now_s + 0.1)
            if lost
            else scheduler.batch_ended(batch.batch_id, now_s + 0.1)
        )
        assert ids(done) == (["big"] if now_s == 0.3 else [])

    assert [sorted(each) for each in numbers] == [[0, 1, 2, 3], [4, 5, 6, 7], [4, 5, 6, 7], [8, 9]]


def test_a_tiled_frame_with_two_batches_on_a_replica_that_died_is_tried_once_more():
    """One death is one attempt, however many of its tiles were there."""
    scheduler = scheduler_of(sample_frame("big", size_hw=UHD), near=1, scheduling=Scheduling(max_chunk_s=0.05))
    batches = [*scheduler.decide(0.0).batches, *scheduler.decide(0.025).batches]
    assert [len(batch.pieces) for batch in batches] == [4, 4]
    scheduler.replicas_ready("near", [])

    assert [scheduler.batch_lost(batch.batch_id, 0.026) for batch in batches] == [(), ()]
    assert scheduler.loads()["near"].num_waiting == 10


def test_a_lost_frame_can_be_cancelled_while_it_waits_again():
    """Its second life is like the first."""
    scheduler = scheduler_of(sample_frame("a"), near=1)
    scheduler.decide(1.0)
    scheduler.batch_lost(1, 1.0)

    assert scheduler.cancelled("a") is True
    assert scheduler.decide(1.0) == NOTHING


@pytest.mark.parametrize("end", ["ended", "cancelled", "expired", "given up"])
def test_an_id_that_comes_back_has_all_attempts_again(end):
    """However a frame ended, nothing of it is remembered: a client may use its id for a new frame."""
    scheduler = scheduler_of(sample_frame("a", deadline_s=5), near=1)
    scheduler.decide(1.0)
    scheduler.batch_lost(1, 1.0)
    scheduler.replicas_ready("near", ["near-1"])
    match end:
        case "cancelled":
            scheduler.cancelled("a")
        case "expired":
            scheduler.decide(5.0)
        case "ended":
            scheduler.batch_ended(scheduler.decide(1.0).batches[0].batch_id, 1.0)
        case "given up":
            scheduler.batch_lost(scheduler.decide(1.0).batches[0].batch_id, 1.0)
            scheduler.replicas_ready("near", ["near-9"])
            assert scheduler.batch_lost(scheduler.decide(1.0).batches[0].batch_id, 1.0) != ()
    admit(scheduler, sample_frame("a", arrived_s=6.0, deadline_s=50))
    scheduler.replicas_ready("near", ["near-2"])

    assert scheduler.batch_lost(scheduler.decide(6.0).batches[0].batch_id, 6.0) == ()
    assert sent(scheduler.decide(6.0)) == [["a"]]


def test_what_runs_of_a_frame_that_ended_is_not_taken_for_a_new_frame_of_its_id():
    """Its tiles come back when a frame of the same id is here: that one is not done by them, nor lost with them."""
    for how in ("batch_ended", "batch_lost"):
        scheduler = scheduler_of(sample_frame("a", size_hw=UHD), near=1, scheduling=Scheduling(max_chunk_s=0.05))
        scheduler.decide(0.0)
        scheduler.cancelled("a")
        admit(scheduler, sample_frame("a"))
        assert getattr(scheduler, how)(1, 0.03) == ()
        (batch,) = scheduler.decide(0.03).batches
        assert (batch.canvas, ids(scheduler.batch_ended(batch.batch_id, 0.04))) == (VGA, ["a"])


@pytest.mark.parametrize("second", ["batch_ended", "batch_lost"])
@pytest.mark.parametrize("first", ["batch_ended", "batch_lost"])
def test_a_batch_ends_once(first, second):
    """A second end gives no second credit."""
    scheduler = scheduler_of(sample_frame("a", size_hw=UHD), far=1)
    scheduler.decide(1.0)
    getattr(scheduler, first)(1, 1.0)
    before = scheduler.loads()

    with pytest.raises(SchedulerStateError, match="batch 1: is not running; a batch ends once"):
        getattr(scheduler, second)(1, 1.0)
    assert scheduler.loads() == before


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (lambda s: s.batch_ended(2, 1.0), "batch 2: is not running"),
        (lambda s: s.batch_lost(2, 1.0), "batch 2: is not running"),
        (lambda s: s.replicas_ready("nowhere", ["x"]), "pool: got 'nowhere', allowed are those of the plan: near, far"),
        (
            lambda s: s.memory_is("nowhere", MemoryLevel.HIGH),
            "pool: got 'nowhere', allowed are those of the plan: near, far",
        ),
        (lambda s: s.arrived(sample_frame("waits", deadline_s=1)), "frame waits: is here already"),
        (lambda s: s.arrived(sample_frame("runs", priority=CRITICAL)), "frame runs: is here already"),
    ],
    ids=["ended", "lost", "replicas", "memory", "waits", "runs"],
)
def test_what_cannot_have_happened_changes_nothing(event, message):
    """Unknown batches and pools, and ids that are here."""
    scheduler = scheduler_of(sample_frame("runs", size_hw=UHD), far=1)
    scheduler.decide(0.0)
    admit(scheduler, sample_frame("waits"))
    before = (scheduler.loads(), scheduler.num_frames, scheduler.held_bytes)

    with pytest.raises(SchedulerStateError, match=message):
        event(scheduler)
    assert (scheduler.loads(), scheduler.num_frames, scheduler.held_bytes) == before
