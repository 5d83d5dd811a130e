"""Replicas that fall silent: their batches are overdue, their frames go elsewhere, and one answer counts."""

from __future__ import annotations

import pytest
from serve_samples import UHD, VGA, admit, criticals, expired, ids, sample_frame, scheduler_of, sent

from serve_app.decisions import NOTHING, Decisions
from serve_app.overdue import HEDGE_FLOOR_S, LATE_GRACE_S, OVERDUE_FLOOR_S, STALL_S
from serve_app.plan import Scheduling
from serve_app.replica_pace import MIN_BATCHES

# Run, and the way there, of a lone VGA frame on a scheduler that has seen nothing yet.
END_S = 0.007 + 0.010
OVERDUE_S = END_S + OVERDUE_FLOOR_S


def at_wake(scheduler, *, until_s: float = 1e9) -> tuple[float, Decisions]:
    """The first moment at which the scheduler decides anything, and what; it is asked when it said."""
    now_s = 0.0
    while (wake_s := scheduler.next_wake_s()) is not None and wake_s <= until_s:
        assert wake_s > now_s or now_s == 0.0
        now_s = wake_s
        if (decisions := scheduler.decide(now_s)) != NOTHING:
            return now_s, decisions
    return now_s, NOTHING


def test_frames_of_a_silent_replica_go_to_another_one():
    """Soon after its batch should have ended, and it gets no other till it answers."""
    scheduler = scheduler_of(sample_frame("a"), near=2)
    (first,) = scheduler.decide(0.0).batches

    now_s, decisions = at_wake(scheduler)
    (second,) = decisions.batches

    assert now_s == pytest.approx(OVERDUE_S)
    assert (sent(decisions), first.replica != second.replica) == ([["a"]], True)
    assert list(scheduler.unfit_replicas("near", now_s)) == [first.replica]
    admit(scheduler, *(sample_frame(name) for name in "bcde"))
    assert {batch.replica for batch in scheduler.decide(now_s).batches} <= {second.replica}


def test_a_replica_that_has_answered_anything_lately_is_not_silent():
    """Its running batch may have let another one pass: it is waited for anew."""
    scheduler = scheduler_of(*criticals("a"), near=1)
    scheduler.decide(0.0)
    admit(scheduler, *criticals("b"))
    scheduler.decide(0.0)
    scheduler.batch_ended(2, 0.3)

    at_wake(scheduler, until_s=0.3 + 0.01 + OVERDUE_FLOOR_S - 1e-6)
    assert not scheduler.is_late(1)
    at_wake(scheduler, until_s=0.3 + 0.02 + OVERDUE_FLOOR_S)
    assert scheduler.is_late(1)


def test_a_critical_frame_is_tried_elsewhere_while_there_is_time():
    """After half of what is left, though others at its replica are waited for as ever."""
    scheduler = scheduler_of(*criticals("slow", deadline_s=0.5), near=2)
    (first,) = scheduler.decide(0.0).batches

    now_s, decisions = at_wake(scheduler)

    assert END_S + HEDGE_FLOOR_S <= now_s <= 0.3
    assert sent(decisions) == [["slow"]]
    assert decisions.batches[0].replica != first.replica


def test_the_normal_batch_ahead_of_a_hedged_critical_one_keeps_its_credit():
    """Only what is critical is in a hurry."""
    scheduler = scheduler_of(sample_frame("n"), near=1)
    scheduler.decide(0.0)
    admit(scheduler, *criticals("c", deadline_s=0.4))
    scheduler.decide(0.0)

    while not scheduler.unfit_replicas("near", 0.0):
        scheduler.decide(scheduler.next_wake_s())

    assert scheduler.loads()["near"].num_running == 1
    assert (scheduler.is_late(1), scheduler.is_late(2)) == (False, True)


@pytest.mark.parametrize("first_answer", ["late", "second"])
def test_whichever_copy_is_answered_first_counts_and_the_other_is_ignored(first_answer):
    """Once answered, never twice."""
    scheduler = scheduler_of(sample_frame("a"), near=2)
    scheduler.decide(0.0)
    now_s, decisions = at_wake(scheduler)
    second = decisions.batches[0].batch_id
    order = (1, second) if first_answer == "late" else (second, 1)

    assert [ids(scheduler.batch_ended(batch_id, now_s + 0.1)) for batch_id in order] == [["a"], []]
    assert (scheduler.num_frames, scheduler.unfit_replicas("near", now_s)) == (0, {})


def test_a_late_answer_takes_its_frame_out_of_the_lane():
    """No replica was free for the second attempt yet."""
    scheduler = scheduler_of(sample_frame("a"), near=1)
    scheduler.decide(0.0)
    while not scheduler.is_late(1):
        assert scheduler.decide(scheduler.next_wake_s()) == NOTHING
    assert scheduler.loads()["near"].num_waiting == 1

    assert ids(scheduler.batch_ended(1, 1.0)) == ["a"]
    assert (scheduler.loads()["near"].num_waiting, scheduler.decide(1.0), scheduler.next_wake_s()) == (0, NOTHING, None)


def test_a_late_failure_leaves_the_frame_to_the_other_attempt():
    """Unless there is none: then it ends as failed."""
    scheduler = scheduler_of(sample_frame("a"), near=2)
    scheduler.decide(0.0)
    _, decisions = at_wake(scheduler)
    assert scheduler.batch_ended(1, 1.0, failed=["a"]) == ()
    assert scheduler.has("a")
    assert ids(scheduler.batch_ended(decisions.batches[0].batch_id, 1.0)) == ["a"]

    scheduler = scheduler_of(sample_frame("b", deadline_s=0.3), near=1)
    scheduler.decide(0.0)
    while not scheduler.is_late(1):
        scheduler.decide(scheduler.next_wake_s())
    scheduler.batch_ended(1, 1.0, failed=["b"])
    assert not scheduler.has("b")


def test_late_tiles_are_done_once_each_and_the_frame_when_all_are():
    """Some by the silent replica after all, some by the other."""
    scheduler = scheduler_of(sample_frame("big", size_hw=UHD), near=2, scheduling=Scheduling(max_chunk_s=0.05))
    first, *others = scheduler.decide(0.0).batches
    for batch in others:
        scheduler.batch_ended(batch.batch_id, 0.05)
    now_s = 0.05
    done = []
    while not scheduler.is_late(first.batch_id):
        now_s = max(now_s, scheduler.next_wake_s() or now_s)
        for batch in scheduler.decide(now_s).batches:
            if batch.replica != first.replica:
                done += scheduler.batch_ended(batch.batch_id, now_s)
    assert done == []
    assert scheduler.has("big")
    done += scheduler.batch_ended(first.batch_id, now_s)
    while scheduler.has("big"):
        for batch in scheduler.decide(now_s).batches:
            done += scheduler.batch_ended(batch.batch_id, now_s)

    assert ids(done) == ["big"]
    assert scheduler.loads()["near"].num_waiting == 0


@pytest.mark.parametrize("how", ["batch_lost", "batch_out_of_memory", "batch_refused"])
def test_tiles_that_the_late_batch_has_answered_are_not_sent_again_with_the_copy(how):
    """The copy comes back undone: of its tiles only those wait that nobody has answered, here none."""
    scheduler = scheduler_of(sample_frame("big", size_hw=UHD), near=2, scheduling=Scheduling(max_chunk_s=0.05))
    first, second, *_ = scheduler.decide(0.0).batches
    assert first.replica != second.replica
    now_s, copies = 0.0, []
    while not copies:
        now_s = scheduler.next_wake_s()
        if not scheduler.is_late(second.batch_id) and now_s > 0.3 and scheduler._batches.running.get(second.batch_id):
            scheduler.batch_ended(second.batch_id, 0.3)
        copies = [b for b in scheduler.decide(now_s).batches if {p.number for p in b.pieces} & numbers_of(first)]
    assert scheduler.batch_ended(first.batch_id, now_s) == ()
    waiting_before = scheduler.loads()["near"].num_waiting
    copy = copies[0]
    assert numbers_of(copy) <= numbers_of(first)
    assert getattr(scheduler, how)(copy.batch_id, now_s) == ()

    assert scheduler.loads()["near"].num_waiting == waiting_before


def numbers_of(batch) -> set[int]:
    """Which tiles are in a batch."""
    return {piece.number for piece in batch.pieces}


def test_a_frame_without_another_chance_ends_soon_after_its_deadline():
    """Three replicas have fallen silent with it, or there is no time: nobody waits for ever."""
    scheduler = scheduler_of(sample_frame("thrice", deadline_s=20.0), near=3)
    scheduler.decide(0.0)
    at_wake(scheduler)
    at_wake(scheduler)
    now_s, decisions = at_wake(scheduler)

    assert (now_s, ids(decisions.given_up), expired(decisions)) == (20.0 + LATE_GRACE_S, ["thrice"], [])
    assert scheduler.num_frames == 0
    assert [scheduler.batch_ended(batch_id, 30.0) for batch_id in (1, 2, 3)] == [(), (), ()]


def test_a_frame_that_hopes_is_answered_by_the_late_batch():
    """Better late than never; and when its replica has died it is given up at once."""
    for end, expected in (("batch_ended", ["due"]), ("batch_lost", ["due"])):
        scheduler = scheduler_of(sample_frame("due", deadline_s=0.5), near=2)
        scheduler.decide(0.0)
        while not scheduler.is_late(1):
            scheduler.decide(scheduler.next_wake_s())
        assert ids(getattr(scheduler, end)(1, 0.9)) == expected
        assert (scheduler.num_frames, scheduler.next_wake_s()) == (0, None)


def test_a_death_after_the_silence_is_no_second_attempt():
    """The frame was lost with that replica once."""
    scheduler = scheduler_of(sample_frame("a"), near=2)
    scheduler.decide(0.0)
    now_s, decisions = at_wake(scheduler)
    assert scheduler.batch_lost(1, now_s) == ()

    assert ids(scheduler.batch_ended(decisions.batches[0].batch_id, now_s)) == ["a"]


def test_a_replica_that_is_stopped_in_order_costs_no_attempt():
    """Its batch was refused: twice, and the frame still has both."""
    scheduler = scheduler_of(sample_frame("a"), near=1)
    for number in range(1, 4):
        (batch,) = scheduler.decide(float(number)).batches
        assert scheduler.batch_refused(batch.batch_id, float(number)) == ()
        scheduler.replicas_ready("near", [f"near-{number}"])
    (batch,) = scheduler.decide(4.0).batches

    assert scheduler.batch_lost(batch.batch_id, 4.0) == ()
    assert sent(scheduler.decide(4.0)) == [["a"]]


def test_a_router_that_has_slept_does_not_blame_its_replicas():
    """A decision that comes late means that answers may lie unread: they get a moment."""
    scheduler = scheduler_of(sample_frame("a"), near=2)
    scheduler.decide(0.0)

    assert scheduler.decide(60.0) == NOTHING
    assert not scheduler.is_late(1)
    assert scheduler.next_wake_s() == pytest.approx(60.0 + STALL_S)
    scheduler.decide(60.0 + STALL_S)
    assert scheduler.is_late(1)


def test_a_suspect_that_is_known_to_be_alive_gets_batches_again():
    """Its engine is not stuck: the batch hangs where its pixels are fetched."""
    scheduler = scheduler_of(sample_frame("a"), near=1)
    scheduler.decide(0.0)
    while not scheduler.is_late(1):
        scheduler.decide(scheduler.next_wake_s())
    scheduler.replica_is_alive("near", "near-0")

    assert sent(scheduler.decide(1.0)) == [["a"]]


def slow_pool():
    """Two replicas, of which `near-0` has become ten times slower than the model says."""
    scheduler = scheduler_of(near=2)
    for number in range(4 * MIN_BATCHES):
        now_s = float(number)
        admit(scheduler, sample_frame(f"{number}a", arrived_s=now_s), sample_frame(f"{number}b", arrived_s=now_s))
        for batch in scheduler.decide(now_s).batches:
            factor = 10 if batch.replica == "near-0" else 1
            scheduler.batch_ended(batch.batch_id, now_s + 0.1, busy_s=factor * batch.run_s, around_s=0.01)
        scheduler.decide(now_s + 0.1)
    return scheduler


def test_a_slow_replica_gets_nothing_while_another_one_can():
    """And spoils no prediction; when it is alone it goes on."""
    scheduler = slow_pool()

    assert scheduler.slow_replicas("near") == ("near-0",)
    assert "slow: 10.0 times" in scheduler.unfit_replicas("near", 0.0)["near-0"]
    assert scheduler.latency.predict_s("full", VGA, 1) == pytest.approx(0.010, rel=0.12)
    assert scheduler.loads()["near"].num_replicas == 1
    admit(scheduler, *criticals("c1", "c2", "c3", arrived_s=50.0))
    assert {batch.replica for batch in scheduler.decide(50.0).batches} == {"near-1"}
    scheduler.replicas_ready("near", ["near-0"])
    assert scheduler.loads()["near"].num_replicas == 1
    admit(scheduler, *criticals("c4", arrived_s=50.0))
    assert {batch.replica for batch in scheduler.decide(50.0).batches} == {"near-0"}


def test_nothing_is_held_against_a_replica_that_has_gone():
    """Another one may get its name; and the status names those that are there."""
    scheduler = slow_pool()
    scheduler.replicas_ready("near", ["near-1"])

    assert (scheduler.slow_replicas("near"), scheduler.unfit_replicas("near", 0.0)) == ((), {})


def test_probes_bring_a_slow_replica_back():
    """As soon as they are as quick as predicted."""
    scheduler = slow_pool()
    for _ in range(3):
        assert scheduler.loads()["near"].num_replicas == 1
        scheduler.replica_probed("near", "near-0", 0.010, 0.011)

    assert (scheduler.slow_replicas("near"), scheduler.loads()["near"].num_replicas) == ((), 2)
