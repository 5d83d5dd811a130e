"""Verdicts: which route, or why none."""

from __future__ import annotations

import pytest
from serve_samples import (
    HD,
    UHD,
    VGA,
    admit,
    ladder_plan,
    ladder_scheduler,
    prepared,
    sample_frame,
    sample_latency,
    sample_limits,
    scheduler_of,
    sent,
)

from serve_app.admission import (
    ADMITTED,
    CRITICAL_EARLIER_FRACTION,
    CRITICAL_MARGIN_FRACTION,
    DEFERRED,
    DEFERRED_MARGIN,
    MARGIN_FRACTION,
    MIN_RETRY_S,
    TOO_SHORT,
)
from serve_app.frames import Frame, Priority
from serve_app.memory_level import MemoryLevel, MemoryMarks
from serve_app.plan import Scheduling
from serve_app.pool_queue import ASSUMED_AROUND_S, SHARE_BEFORE
from serve_app.routes import CALL_COST_S
from serve_app.scheduler import Scheduler
from serve_app.verdicts import Verdict, VerdictKind

CRITICAL = Priority.CRITICAL
ADMIT, DEGRADE, DEFER, REJECT = VerdictKind.ADMIT, VerdictKind.DEGRADE, VerdictKind.DEFER, VerdictKind.REJECT
# A frame alone: its batch, and the call around it.
VGA_OWN_S, HD_OWN_S, UHD_OWN_S, LIGHT_OWN_S = 0.020, 0.040, 0.090, 0.014
# Of the call, the way there.
BEFORE_S = SHARE_BEFORE * ASSUMED_AROUND_S
# What a prediction is multiplied with before it is believed.
SAFE = 1 + MARGIN_FRACTION
CRITICAL_SAFE = 1 + CRITICAL_MARGIN_FRACTION + CRITICAL_EARLIER_FRACTION
# What one more HD frame costs in the best batch.
HD_PIECE_S = (0.054 + CALL_COST_S) / 2


def verdict_of(scheduler: Scheduler, frame: Frame) -> Verdict:
    """What is decided about a frame that replaces no other."""
    arrival = scheduler.arrived(frame)
    assert arrival.superseded is None
    return arrival.verdict


def busy(num_frames: int, *, priority: Priority = Priority.NORMAL, **changes) -> Scheduler:
    """A scheduler with one replica that was lent out, and so many HD frames (28.5 ms each) that wait for it."""
    scheduler = ladder_scheduler(near=1, far=1, **changes)
    for number in range(num_frames):
        admit(
            scheduler, sample_frame(f"busy-{number}", size_hw=HD, deadline_s=50.0, priority=priority, camera="firm-1")
        )
    return scheduler


@pytest.mark.parametrize("priority", list(Priority))
def test_a_frame_with_time_is_admitted(priority):
    """At its own size, by its own model."""
    scheduler = ladder_scheduler(near=1)

    arrival = scheduler.arrived(sample_frame("a", priority=priority))
    assert (arrival.verdict, arrival.superseded) == (ADMITTED, None)
    assert ADMITTED.kind is ADMIT


def test_a_large_normal_frame_is_deferred_and_a_critical_one_is_not():
    """Large is above `defer_above_px`, by the frame and not by its canvas."""
    scheduler = ladder_scheduler(near=1, far=1, scheduling=Scheduling(defer_above_px=1_500_000))
    sizes = {"limit": (1000, 1500), "above": (1000, 1501)}

    assert {name: verdict_of(scheduler, sample_frame(name, size_hw=size_hw)) for name, size_hw in sizes.items()} == {
        "limit": ADMITTED,
        "above": DEFERRED,
    }
    assert verdict_of(scheduler, sample_frame("c", size_hw=(1000, 1501), priority=CRITICAL)) == ADMITTED
    assert DEFERRED.kind is DEFER


@pytest.mark.parametrize("size_hw", [HD, VGA], ids=str)
def test_a_normal_frame_longer_than_a_chunk_is_deferred(size_hw):
    """In tiles or whole: it is not for the moment between two critical frames."""
    plan = ladder_plan(scheduling=Scheduling(max_chunk_s=0.009))
    scheduler = prepared(Scheduler(plan, sample_latency()), near=1)

    assert verdict_of(scheduler, sample_frame("a", size_hw=size_hw, camera="firm-1")) == DEFERRED


def test_a_frame_larger_than_every_canvas_is_rejected_where_the_plan_says_so():
    """For ever: there is no use in asking again."""
    scheduler = ladder_scheduler(near=1)

    for priority in Priority:
        frame = sample_frame("a", size_hw=(1089, 1920), camera="reject-1", priority=priority)
        assert verdict_of(scheduler, frame) == Verdict(
            REJECT, "larger than every canvas, and the plan rejects such frames", retry_after_s=None
        )
    assert scheduler.num_frames == 0


def test_a_critical_frame_is_degraded_before_it_would_be_late():
    """One rung after the other, as its time shrinks; the last one is taken however late."""
    time_s = {"full": 0.060, "smaller": 0.035, "light": 0.018, "late": 0.005}
    verdicts = {}
    for name, slo_s in time_s.items():
        scheduler = ladder_scheduler(near=1)
        verdicts[name] = verdict_of(scheduler, sample_frame(name, size_hw=HD, deadline_s=slo_s, priority=CRITICAL))

    light = Verdict(DEGRADE, "rung 2: light on 480x640 instead of full on 736x1280", rung=2)
    assert verdicts == {
        "full": ADMITTED,
        "smaller": Verdict(DEGRADE, "rung 1: full on 480x640 instead of full on 736x1280", rung=1),
        "light": light,
        "late": light,
    }


def test_critical_work_ahead_degrades_a_critical_frame():
    """Fourteen HD frames need 0.4 s: what is left is enough for a smaller rung only."""
    scheduler = busy(14, priority=CRITICAL)
    deadline_s = CRITICAL_SAFE * (14 * HD_PIECE_S + (HD_OWN_S + VGA_OWN_S) / 2)
    frame = sample_frame("c", size_hw=HD, deadline_s=deadline_s, priority=CRITICAL)

    assert verdict_of(scheduler, frame) == Verdict(
        DEGRADE, "rung 1: full on 480x640 instead of full on 736x1280", rung=1
    )


def test_normal_work_that_waits_degrades_no_critical_frame():
    """It passes all of it."""
    scheduler = busy(30)

    assert verdict_of(scheduler, sample_frame("c", size_hw=HD, deadline_s=0.06, priority=CRITICAL)) == ADMITTED


def test_staged_normal_work_degrades_no_critical_frame():
    """It overtakes the staged batch: only what runs and its own time must fit."""
    scheduler = busy(4)
    assert [len(batch) for batch in sent(scheduler.decide(0.0))] == [2, 2]

    deadline_s = CRITICAL_SAFE * (BEFORE_S + 0.054 + HD_OWN_S) + 0.001
    assert verdict_of(scheduler, sample_frame("c", size_hw=HD, deadline_s=deadline_s, priority=CRITICAL)) == ADMITTED


def test_a_camera_that_must_not_degrade_is_late_instead():
    """A critical frame of it is admitted, a normal one of it is rejected where another would be degraded."""
    frames = {
        (camera, priority): sample_frame("x", size_hw=HD, deadline_s=0.1, priority=priority, camera=camera)
        for camera in ("firm-2", "gate-1")
        for priority in Priority
    }
    kinds = {key: verdict_of(busy(5, priority=CRITICAL), frame).kind for key, frame in frames.items()}

    assert kinds == {
        ("firm-2", CRITICAL): ADMIT,
        ("gate-1", CRITICAL): DEGRADE,
        ("firm-2", Priority.NORMAL): REJECT,
        ("gate-1", Priority.NORMAL): REJECT,
    }


def test_a_normal_frame_is_degraded_where_that_makes_it_in_time():
    """Before it is rejected."""
    scheduler = ladder_scheduler(near=1)

    assert verdict_of(scheduler, sample_frame("n", size_hw=HD, deadline_s=0.035)) == Verdict(
        DEGRADE, "rung 1: full on 480x640 instead of full on 736x1280", rung=1
    )


def test_a_normal_frame_that_would_be_late_is_rejected_with_the_time_to_come_back():
    """By as much as it would be late; the reason names the work ahead."""
    scheduler = busy(10, priority=CRITICAL)
    work_s = 10 * HD_PIECE_S
    wait_s = work_s / (1 - work_s / 5)
    late_s = SAFE * (wait_s + LIGHT_OWN_S) - 0.2
    verdict = verdict_of(scheduler, sample_frame("n", deadline_s=0.2))

    assert verdict.retry_after_s == pytest.approx(late_s)
    assert verdict == Verdict(
        REJECT,
        f"predicted to finish {late_s:.3f} s after its deadline, {wait_s:.3f} s of work is ahead of it",
        retry_after_s=verdict.retry_after_s,
    )


def test_a_rejection_never_asks_for_a_retry_at_once():
    """A frame that is late by a hair comes back a little later, not in a loop."""
    scheduler = busy(3, priority=CRITICAL)
    work_s = 3 * HD_PIECE_S
    deadline_s = SAFE * (work_s / (1 - work_s / 5) + VGA_OWN_S) - 0.001

    assert verdict_of(scheduler, sample_frame("n", deadline_s=deadline_s, camera="firm-2")).retry_after_s == MIN_RETRY_S


def test_a_deadline_that_no_waiting_mends_is_tried_all_the_same():
    """Shorter than its own time on an idle pool: rejecting it would only make its caller ask for ever."""
    scheduler = scheduler_of(near=1)

    assert verdict_of(scheduler, sample_frame("n", deadline_s=0.005)) == TOO_SHORT
    assert sent(scheduler.decide(0.001)) == [["n"]]


def test_a_verdict_says_on_which_rung_a_frame_with_too_short_a_deadline_is():
    """It is served by the light model then, and its caller must be able to see it."""
    scheduler = ladder_scheduler(near=1)
    verdict = verdict_of(scheduler, sample_frame("n", size_hw=HD, deadline_s=0.005))
    (batch,) = scheduler.decide(0.001).batches

    assert (batch.model, batch.pieces[0].route.rung) == ("light", 2)
    assert (verdict.kind, verdict.rung) == (DEGRADE, 2)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (MemoryLevel.NORMAL, (ADMIT, 0)),
        (MemoryLevel.HIGH, (DEGRADE, 1)),
        (MemoryLevel.CRITICAL, (DEGRADE, 2)),
        (MemoryLevel.SHED, (REJECT, 0)),
    ],
)
def test_memory_degrades_and_then_sheds_normal_frames(level, expected):
    """Critical ones go on as before at every level."""
    scheduler = ladder_scheduler(near=1)
    scheduler.memory_is("near", level)
    verdict = verdict_of(scheduler, sample_frame("n", size_hw=HD, deadline_s=3.0))

    assert (verdict.kind, verdict.rung) == expected
    assert verdict_of(scheduler, sample_frame("c", size_hw=HD, priority=CRITICAL)) == ADMITTED


def test_shedding_says_which_pool_and_when_to_come_back():
    """No sooner than the level can fall."""
    scheduler = ladder_scheduler(near=1, memory=MemoryMarks(calm_s=2.5))
    scheduler.memory_is("near", MemoryLevel.SHED)

    assert verdict_of(scheduler, sample_frame("n", arrived_s=7.0, deadline_s=9.5)) == Verdict(
        REJECT, "the memory of pool near is nearly full: critical frames only", retry_after_s=2.5
    )


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        (MemoryLevel.NORMAL, ADMITTED.reason),
        (MemoryLevel.HIGH, "rung 1: full on 480x640 instead of full on 736x1280; memory of pool near: level high"),
        (
            MemoryLevel.CRITICAL,
            "rung 2: light on 480x640 instead of full on 736x1280; memory of pool near: level critical",
        ),
    ],
)
def test_a_verdict_that_memory_made_says_so(level, reason):
    """It names the pool; a rung that slack or the queue chose says nothing of memory."""
    scheduler = ladder_scheduler(near=1)
    scheduler.memory_is("near", level)

    assert verdict_of(scheduler, sample_frame("n", size_hw=HD, deadline_s=3.0)).reason == reason
    short = verdict_of(scheduler, sample_frame("c", size_hw=HD, deadline_s=0.03, priority=CRITICAL))
    assert short.kind is DEGRADE
    assert "memory" not in short.reason


def test_a_rung_that_the_queue_forces_is_not_blamed_on_memory():
    """The pool is down its ladder for its queue alone."""
    scheduler = busy(20)
    verdicts = [verdict_of(scheduler, sample_frame(f"n{at_s}", size_hw=HD, arrived_s=at_s)) for at_s in (0.5, 1.0)]

    assert [(verdict.kind, verdict.rung > 0) for verdict in verdicts] == [(DEGRADE, True)] * 2
    assert not any("memory" in verdict.reason for verdict in verdicts)


def test_a_large_frame_that_memory_keeps_waiting_is_told():
    """Without a ladder there is no rung to give it; it waits, and says for what."""
    scheduler = scheduler_of(far=1)
    scheduler.memory_is("far", MemoryLevel.CRITICAL)

    verdict = verdict_of(scheduler, sample_frame("n", size_hw=UHD))
    assert (verdict.kind, verdict.reason) == (
        DEFER, "a large frame: it waits until the memory of pool far is free again, or expires"
    )  # fmt: skip


def test_memory_that_is_short_degrades_no_firm_camera():
    """Its only route stays; only shedding stops it."""
    scheduler = ladder_scheduler(near=1)
    scheduler.memory_is("near", MemoryLevel.CRITICAL)

    assert verdict_of(scheduler, sample_frame("n", size_hw=HD, camera="firm-1")) == ADMITTED


@pytest.mark.parametrize(("priority", "retry_after_s"), [(CRITICAL, 0.25), (Priority.NORMAL, 1.0)])
def test_more_frames_than_the_budget_are_rejected(priority, retry_after_s):
    """With the class's usual deadline as the time to come back: by then what is here is gone."""
    of = "" if priority is CRITICAL else ", 90% of them by noncritical ones"
    scheduler = scheduler_of(*(sample_frame(name, priority=CRITICAL) for name in "ab"), limits=sample_limits(frames=2))

    assert verdict_of(scheduler, sample_frame("c", priority=priority)) == Verdict(
        REJECT, f"2 frames are here, allowed are 2{of}", retry_after_s
    )
    assert scheduler.num_frames == 2


def test_more_bytes_than_the_budget_are_rejected():
    """It may be filled to the last byte by critical frames, to nine tenths by others; smaller ones still find room."""
    scheduler = scheduler_of(sample_frame("a", num_bytes=1500), limits=sample_limits(num_bytes=2000))
    too_many = sample_frame("b", num_bytes=301)

    assert verdict_of(scheduler, too_many) == Verdict(
        REJECT, "1,500 bytes are here and the frame has 301, allowed are 2,000, 90% of them by noncritical ones", 1.0
    )
    assert verdict_of(scheduler, sample_frame("c", num_bytes=300)).kind is ADMIT
    assert verdict_of(scheduler, sample_frame("d", num_bytes=200, priority=CRITICAL)).kind is ADMIT
    assert verdict_of(scheduler, sample_frame("e", num_bytes=1, priority=CRITICAL)) == Verdict(
        REJECT, "2,000 bytes are here and the frame has 1, allowed are 2,000", 0.25
    )


def test_an_empty_house_takes_any_frame_within_the_limits():
    """The share that is kept for critical frames must not shut out the only frame there is."""
    scheduler = scheduler_of(limits=sample_limits(frames=1, num_bytes=1000))

    assert verdict_of(scheduler, sample_frame("a", num_bytes=1001)).kind is REJECT
    assert verdict_of(scheduler, sample_frame("a", num_bytes=1000)).kind is ADMIT


def test_due_times_are_latest_starts_but_for_critical_frames():
    """Critical: deadline. Normal: less its own time. Deferred: half as much again, a chunk earlier; or old."""
    scheduler = ladder_scheduler(near=1, far=1, scheduling=Scheduling(max_defer_s=10.0))
    frames = [
        sample_frame("c", deadline_s=5.0, priority=CRITICAL),
        sample_frame("n", deadline_s=5.0),
        sample_frame("d", deadline_s=5.0, size_hw=UHD),
        sample_frame("old", deadline_s=50.0, size_hw=UHD),
        sample_frame("tight", deadline_s=0.1, size_hw=UHD, camera="firm-1"),
    ]
    admit(scheduler, *frames)

    assert {name: entry.due_s for name, entry in scheduler._room.entries.items()} == pytest.approx(
        {
            "c": 5.0,
            "n": 5.0 - SAFE * VGA_OWN_S,
            "d": 5.0 - DEFERRED_MARGIN * SAFE * UHD_OWN_S - ladder_plan().max_chunk_s,
            "old": 10.0,
            "tight": 0.0,
        }
    )
