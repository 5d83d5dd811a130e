"""The scheduler's decisions, one example for each rule."""

from __future__ import annotations

import pytest
from serve_samples import BUCKET_OF_CANVAS, HD, PORTRAIT, UHD, admit, ids, sample_frame, sample_limits, sample_plan

from serve_app.batching import Batch
from serve_app.frames import Priority
from serve_app.plan import Pool
from serve_app.scheduler import Decisions, PoolLoad, Scheduler, SchedulerStateError
from serve_app.verdicts import Verdict, VerdictKind

CRITICAL = Priority.CRITICAL
NOTHING = Decisions((), ())


def scheduler_of(*frames, near: int = 0, far: int = 0, **changes) -> Scheduler:
    """A scheduler of the sample plan with so many replicas, in which these frames wait."""
    scheduler = Scheduler(sample_plan(**changes))
    scheduler.replicas_ready("near", near)
    scheduler.replicas_ready("far", far)
    admit(scheduler, *frames)
    return scheduler


def batch(number: int, *frames) -> Batch:
    """The batch that these frames make."""
    canvas = frames[0].canvas
    pool = "far" if canvas == UHD else "near"
    return Batch(number, pool, BUCKET_OF_CANVAS[canvas], canvas, frames)


def sent(decisions: Decisions) -> list[list[str]]:
    """The ids of each batch."""
    return [ids(each.frames) for each in decisions.batches]


def test_a_frame_goes_to_its_pool_at_once():
    """With a free credit nothing waits for company."""
    frame = sample_frame("a")
    scheduler = scheduler_of(frame, near=1)

    assert scheduler.decide(1.0) == Decisions((batch(1, frame),), ())
    assert scheduler.decide(1.0) == NOTHING


def test_admission_is_a_value_with_its_reason():
    """An admitted frame has a verdict too."""
    assert Scheduler(sample_plan()).arrived(sample_frame("a")) == Verdict(VerdictKind.ADMIT, "room in its lane")


def test_critical_frames_pass_every_normal_one():
    """Strict priority, whatever the deadlines, the sizes and the order of arrival."""
    frames = [
        sample_frame("n1", deadline_s=1.5),
        sample_frame("n2", deadline_s=1.6, canvas=HD),
        sample_frame("c1", deadline_s=90, canvas=PORTRAIT, priority=CRITICAL),
        sample_frame("c2", deadline_s=80, canvas=HD, priority=CRITICAL),
    ]
    scheduler = scheduler_of(*frames, near=1)

    assert scheduler.decide(1.0) == Decisions((batch(1, frames[3]), batch(2, frames[2])), ())
    scheduler.batch_ended(1)
    scheduler.batch_ended(2)
    assert sent(scheduler.decide(1.0)) == [["n1"], ["n2"]]


def test_critical_and_normal_frames_never_share_a_batch():
    """A normal frame does not ride in a critical batch that has room for it, nor on its credit."""
    scheduler = scheduler_of(
        sample_frame("n1", deadline_s=2),
        sample_frame("c1", deadline_s=3, priority=CRITICAL),
        sample_frame("n2", deadline_s=4),
        near=1,
    )

    assert sent(scheduler.decide(1.0)) == [["c1"], ["n1", "n2"]]


def test_lanes_are_served_by_the_deadline_of_their_first_frame():
    """Earliest deadline first across canvases; a batch takes its own canvas's frames along."""
    scheduler = scheduler_of(
        sample_frame("v9", deadline_s=9),
        sample_frame("h5", deadline_s=5, canvas=HD),
        sample_frame("v7", deadline_s=7),
        sample_frame("p6", deadline_s=6, canvas=PORTRAIT),
        sample_frame("h8", deadline_s=8, canvas=HD),
        near=2,
    )

    assert sent(scheduler.decide(1.0)) == [["h5", "h8"], ["p6"], ["v7", "v9"]]


def test_a_batch_has_one_canvas_though_the_bucket_has_two():
    """Portrait and landscape of one bucket are two shapes for the engine."""
    landscape, portrait = sample_frame("l", deadline_s=5), sample_frame("p", deadline_s=6, canvas=PORTRAIT)
    scheduler = scheduler_of(landscape, portrait, near=1)

    assert scheduler.decide(1.0) == Decisions((batch(1, landscape), batch(2, portrait)), ())


@pytest.mark.parametrize(
    ("num_frames", "sizes"),
    [(1, [1]), (2, [2]), (3, [2, 1]), (4, [4]), (5, [4, 1]), (7, [4, 2]), (9, [4, 4]), (12, [4, 4])],
)
def test_batches_are_the_warmed_sizes(num_frames, sizes):
    """Ladder 1, 2, 4 and two credits: each batch is the largest warmed size that is left."""
    scheduler = scheduler_of(*(sample_frame(str(at), deadline_s=10 + at) for at in range(num_frames)), near=1)

    batches = sent(scheduler.decide(1.0))

    assert [len(each) for each in batches] == sizes
    assert [name for each in batches for name in each] == [str(at) for at in range(sum(sizes))]


@pytest.mark.parametrize("num_replicas", [1, 2, 3])
def test_a_replica_has_two_credits_and_never_more(num_replicas):
    """One batch runs, one is staged; the third waits until one of them ends."""
    num_credits = 2 * num_replicas
    frames = [sample_frame(f"{at:02}", deadline_s=10 + at, canvas=UHD) for at in range(num_credits + 2)]
    scheduler = scheduler_of(*frames, far=num_replicas)

    assert len(scheduler.decide(1.0).batches) == num_credits
    assert scheduler.decide(1.0) == NOTHING
    scheduler.batch_ended(1)
    assert scheduler.decide(1.0) == Decisions((batch(num_credits + 1, frames[num_credits]),), ())
    assert scheduler.decide(1.0) == NOTHING


def test_a_pool_that_shrinks_sends_nothing_until_its_batches_have_ended():
    """Two replicas hold four batches; when one leaves, two of them must end before a credit is free."""
    frames = [sample_frame(str(at), deadline_s=10 + at, canvas=UHD) for at in range(5)]
    scheduler = scheduler_of(*frames, far=2)
    scheduler.decide(1.0)
    scheduler.replicas_ready("far", 1)

    for ended in (1, 2):
        scheduler.batch_ended(ended)
        assert scheduler.decide(1.0) == NOTHING
    scheduler.batch_ended(3)
    assert sent(scheduler.decide(1.0)) == [["4"]]


def test_one_pool_does_not_spend_the_credits_of_another():
    """Pools are devices of their own."""
    frames = [sample_frame(str(at), deadline_s=10 + at, canvas=UHD) for at in range(3)]
    scheduler = scheduler_of(*frames, sample_frame("v", deadline_s=50), near=1, far=1)

    assert sent(scheduler.decide(1.0)) == [["v"], ["0"], ["1"]]


def test_without_a_replica_nothing_is_sent_but_frames_expire():
    """Callers are answered in time though nobody serves."""
    early, late = sample_frame("early", deadline_s=2), sample_frame("late", deadline_s=3)
    scheduler = scheduler_of(late, early)

    assert scheduler.decide(1.0) == NOTHING
    assert scheduler.decide(2.5) == Decisions((), (early,))
    assert scheduler.decide(3.5) == Decisions((), (late,))
    assert scheduler.num_waiting == 0


def test_at_exactly_its_deadline_a_frame_expires_instead_of_being_sent():
    """No device time for a frame that is due now; its neighbour goes without it."""
    due, next_due = sample_frame("due", deadline_s=5.0), sample_frame("next", deadline_s=5.001)
    scheduler = scheduler_of(due, next_due, near=1)

    assert scheduler.decide(5.0) == Decisions((batch(1, next_due),), (due,))


def test_of_three_waiting_frames_one_is_cancelled_and_the_other_two_are_sent():
    """A cancelled frame leaves before the batch is formed and takes nobody along."""
    frames = [sample_frame(str(at), deadline_s=10 + at) for at in range(3)]
    scheduler = scheduler_of(*frames)

    assert scheduler.cancelled("1") is True
    assert scheduler.num_waiting == 2
    scheduler.replicas_ready("near", 1)
    assert scheduler.decide(1.0) == Decisions((batch(1, frames[0], frames[2]),), ())


def test_a_frame_that_runs_cannot_be_cancelled():
    """Its batch runs on and ends as usual."""
    scheduler = scheduler_of(sample_frame("a"), near=1)
    scheduler.decide(1.0)

    assert scheduler.cancelled("a") is False
    assert scheduler.loads()["near"] == PoolLoad(num_replicas=1, num_waiting=0, num_running=1)
    scheduler.batch_ended(1)
    assert scheduler.loads()["near"] == PoolLoad(num_replicas=1, num_waiting=0, num_running=0)


def test_cancelling_what_is_gone_says_no():
    """Unknown, cancelled, expired and answered frames do not wait."""
    scheduler = scheduler_of(sample_frame("cancelled"), sample_frame("expired", deadline_s=1), sample_frame("done"))
    scheduler.cancelled("cancelled")
    scheduler.replicas_ready("near", 1)
    scheduler.decide(1.0)
    scheduler.batch_ended(1)

    assert [scheduler.cancelled(name) for name in ("nobody", "cancelled", "expired", "done")] == [False] * 4


@pytest.mark.parametrize(("priority", "retry_after_s"), [(CRITICAL, 0.25), (Priority.NORMAL, 1.0)])
def test_more_frames_than_the_budget_are_rejected(priority, retry_after_s):
    """A rejection says why and when to come back: after the class's usual deadline, when the lanes have turned over."""
    scheduler = scheduler_of(sample_frame("a"), sample_frame("b"), limits=sample_limits(frames=2))

    assert scheduler.arrived(sample_frame("c", priority=priority)) == Verdict(
        VerdictKind.REJECT, "2 frames wait, allowed are 2", retry_after_s
    )
    assert scheduler.num_waiting == 2
    assert scheduler.cancelled("c") is False


def test_more_bytes_than_the_budget_are_rejected():
    """The budget may be filled to the last byte; a smaller frame still finds room."""
    scheduler = scheduler_of(sample_frame("a", num_bytes=1500), limits=sample_limits(num_bytes=2500))

    assert scheduler.arrived(sample_frame("b", num_bytes=1001)) == Verdict(
        VerdictKind.REJECT, "1,500 bytes wait and the frame has 1,001, allowed are 2,500", 1.0
    )
    assert scheduler.arrived(sample_frame("c", num_bytes=1000)).kind is VerdictKind.ADMIT
    assert scheduler.arrived(sample_frame("d", num_bytes=1)).kind is VerdictKind.REJECT


@pytest.mark.parametrize("way_out", ["sent", "expired", "cancelled"])
def test_whatever_leaves_its_lane_makes_room(way_out):
    """The budgets count what waits: each of the three ways out gives frames and bytes back, exactly."""
    limits = sample_limits(frames=1, num_bytes=1000)
    scheduler = scheduler_of(sample_frame("a", deadline_s=5, num_bytes=1000), limits=limits)
    assert scheduler.arrived(sample_frame("b", num_bytes=1000)).kind is VerdictKind.REJECT

    match way_out:
        case "sent":
            scheduler.replicas_ready("near", 1)
            assert sent(scheduler.decide(1.0)) == [["a"]]
        case "expired":
            assert ids(scheduler.decide(5.0).expired) == ["a"]
        case "cancelled":
            assert scheduler.cancelled("a")

    assert scheduler.arrived(sample_frame("b", num_bytes=1000)).kind is VerdictKind.ADMIT
    assert scheduler.arrived(sample_frame("c", num_bytes=1)).kind is VerdictKind.REJECT


def test_frames_of_a_lost_batch_are_sent_once_more_and_then_given_up():
    """Twice in a row is the frame's fault as likely as the replica's."""
    frames = (sample_frame("a", deadline_s=10), sample_frame("b", deadline_s=11))
    scheduler = scheduler_of(*frames, near=1)
    assert scheduler.decide(1.0) == Decisions((batch(1, *frames),), ())

    assert scheduler.batch_lost(1, 2.0) == ()
    assert scheduler.loads()["near"] == PoolLoad(num_replicas=1, num_waiting=2, num_running=0)
    assert scheduler.decide(2.0) == Decisions((batch(2, *frames),), ())

    assert scheduler.batch_lost(2, 3.0) == frames
    assert scheduler.loads()["near"] == PoolLoad(num_replicas=1, num_waiting=0, num_running=0)
    assert scheduler.decide(3.0) == NOTHING


def test_a_lost_frame_whose_deadline_has_come_is_given_up_at_once():
    """Only what can still be in time is tried again."""
    due, later = sample_frame("due", deadline_s=2.0), sample_frame("later", deadline_s=2.1)
    scheduler = scheduler_of(due, later, near=1)
    scheduler.decide(1.0)

    assert scheduler.batch_lost(1, 2.0) == (due,)
    assert sent(scheduler.decide(2.0)) == [["later"]]


def test_a_lost_frame_stands_at_its_old_deadline_again():
    """It passes what arrived after it but is due later, and lets pass what is due earlier."""
    scheduler = scheduler_of(sample_frame("lost", deadline_s=10), near=1)
    scheduler.decide(1.0)
    admit(scheduler, sample_frame("sooner", deadline_s=9), sample_frame("later", deadline_s=11))
    scheduler.replicas_ready("near", 0)
    scheduler.batch_lost(1, 1.0)
    scheduler.replicas_ready("near", 1)

    assert sent(scheduler.decide(1.0)) == [["sooner", "lost"], ["later"]]


def test_lost_frames_wait_again_even_when_the_budget_is_full():
    """What was admitted is not rejected later; the budgets hold new frames back until there is room."""
    scheduler = scheduler_of(sample_frame("a"), near=1, limits=sample_limits(frames=1))
    scheduler.decide(1.0)
    admit(scheduler, sample_frame("b"))

    assert scheduler.batch_lost(1, 1.0) == ()
    assert scheduler.num_waiting == 2
    assert scheduler.arrived(sample_frame("c")).reason == "2 frames wait, allowed are 1"


def test_a_lost_frame_can_be_cancelled_while_it_waits_again():
    """Its second life is like the first."""
    scheduler = scheduler_of(sample_frame("a"), near=1)
    scheduler.decide(1.0)
    scheduler.batch_lost(1, 1.0)

    assert scheduler.cancelled("a") is True
    assert scheduler.decide(1.0) == NOTHING


@pytest.mark.parametrize("end", ["ended", "cancelled", "expired", "given up"])
def test_an_id_that_comes_back_has_both_attempts_again(end):
    """However a frame ended, nothing of it is remembered: a client may use its id for a new frame."""
    scheduler = scheduler_of(sample_frame("a", deadline_s=5), near=1)
    scheduler.decide(1.0)
    scheduler.batch_lost(1, 1.0)
    match end:
        case "cancelled":
            scheduler.cancelled("a")
        case "expired":
            scheduler.decide(5.0)
        case "ended":
            scheduler.batch_ended(scheduler.decide(1.0).batches[0].batch_id)
        case "given up":
            scheduler.batch_lost(scheduler.decide(1.0).batches[0].batch_id, 1.0)
    admit(scheduler, sample_frame("a", deadline_s=50))

    assert scheduler.batch_lost(scheduler.decide(6.0).batches[0].batch_id, 6.0) == ()
    assert sent(scheduler.decide(6.0)) == [["a"]]


def test_an_id_that_comes_back_with_more_time_does_not_keep_late_frames_waiting():
    """Cancel a frame, send it again with a later deadline: its neighbour still expires instead of being sent late."""
    scheduler = scheduler_of(sample_frame("again", deadline_s=10), sample_frame("late", deadline_s=15))
    scheduler.cancelled("again")
    admit(scheduler, sample_frame("again", deadline_s=20))
    scheduler.replicas_ready("near", 1)

    decisions = scheduler.decide(16.0)

    assert (ids(decisions.expired), sent(decisions)) == (["late"], [["again"]])


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (lambda scheduler: scheduler.batch_ended(2), "batch 2: is not running"),
        (lambda scheduler: scheduler.batch_lost(2, 1.0), "batch 2: is not running"),
        (lambda scheduler: scheduler.replicas_ready("nowhere", 1), "pool 'nowhere': got 1 replicas"),
        (lambda scheduler: scheduler.replicas_ready("near", -1), "pool 'near': got -1 replicas"),
        (lambda scheduler: scheduler.arrived(sample_frame("waits", deadline_s=1)), "frame waits: is here already"),
        (
            lambda scheduler: scheduler.arrived(sample_frame("waits", canvas=HD, priority=CRITICAL)),
            "frame waits: is here already",
        ),
    ],
    ids=["end of no batch", "loss of no batch", "unknown pool", "fewer than none", "same id", "same id elsewhere"],
)
def test_an_event_that_cannot_have_happened_raises_and_changes_nothing(event, message):
    """An illegal move is an error; afterwards the scheduler decides as if it had not been tried."""
    running, waiting = sample_frame("runs", canvas=UHD), sample_frame("waits")
    scheduler = scheduler_of(running, waiting, far=1)
    scheduler.decide(1.0)
    before = scheduler.loads()

    with pytest.raises(SchedulerStateError, match=message):
        event(scheduler)

    assert scheduler.loads() == before
    scheduler.batch_ended(1)
    scheduler.replicas_ready("near", 1)
    assert scheduler.decide(1.0) == Decisions((batch(2, waiting),), ())
    assert scheduler.num_waiting == 0


@pytest.mark.parametrize("second", ["batch_ended", "batch_lost"])
@pytest.mark.parametrize("first", ["batch_ended", "batch_lost"])
def test_a_batch_ends_once(first, second):
    """A second end gives no second credit."""
    scheduler = scheduler_of(sample_frame("a", canvas=UHD), far=1)
    scheduler.decide(1.0)
    ends = {"batch_ended": lambda: scheduler.batch_ended(1), "batch_lost": lambda: scheduler.batch_lost(1, 1.0)}
    ends[first]()
    before = scheduler.loads()

    with pytest.raises(SchedulerStateError, match="batch 1: is not running; a batch ends once"):
        ends[second]()

    assert scheduler.loads() == before


def test_the_next_deadline_is_the_first_of_those_that_wait():
    """Over all lanes and pools, without the frames that were sent or cancelled."""
    scheduler = scheduler_of(
        sample_frame("sent", deadline_s=3, canvas=UHD),
        sample_frame("gone", deadline_s=4),
        sample_frame("hd", deadline_s=6, canvas=HD, priority=CRITICAL),
        sample_frame("vga", deadline_s=5),
        far=1,
    )
    assert scheduler.next_deadline_s() == 3
    scheduler.decide(1.0)
    assert scheduler.next_deadline_s() == 4
    scheduler.cancelled("gone")
    assert scheduler.next_deadline_s() == 5
    scheduler.decide(5.0)
    assert scheduler.next_deadline_s() == 6
    scheduler.decide(6.0)
    assert scheduler.next_deadline_s() is None


def test_after_decide_at_the_next_deadline_it_is_a_later_one():
    """Whoever sets a timer by it makes progress."""
    scheduler = scheduler_of(*(sample_frame(str(at), deadline_s=at // 2) for at in range(6)))

    while (deadline_s := scheduler.next_deadline_s()) is not None:
        scheduler.decide(deadline_s)
        assert scheduler.next_deadline_s() is None or scheduler.next_deadline_s() > deadline_s
    assert scheduler.num_waiting == 0


def test_loads_tell_each_pool_apart():
    """In the plan's order: replicas, frames that wait, batches that run."""
    scheduler = scheduler_of(*(sample_frame(str(at), canvas=UHD) for at in range(3)), sample_frame("v"), far=1)
    scheduler.decide(1.0)

    assert list(scheduler.loads().items()) == [
        ("near", PoolLoad(num_replicas=0, num_waiting=1, num_running=0)),
        ("far", PoolLoad(num_replicas=1, num_waiting=1, num_running=2)),
    ]


def test_a_new_scheduler_has_nothing_to_do():
    """No replica is assumed before one has said that it is ready."""
    scheduler = Scheduler(sample_plan(pools=(Pool("near", num_replicas=4), Pool("far"))))

    assert scheduler.loads() == {"near": PoolLoad(0, 0, 0), "far": PoolLoad(0, 0, 0)}
    assert (scheduler.decide(0.0), scheduler.next_deadline_s(), scheduler.num_waiting) == (NOTHING, None, 0)
