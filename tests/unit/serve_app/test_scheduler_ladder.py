"""What becomes of frames that wait: lower rungs, and newer frames that take their places."""

from __future__ import annotations

import pytest
from serve_samples import (
    HD,
    UHD,
    VGA,
    admit,
    criticals,
    expired,
    ids,
    ladder_scheduler,
    replicas,
    sample_frame,
    sample_limits,
    sent,
)

from serve_app.frames import Priority
from serve_app.memory_level import MemoryLevel
from serve_app.plan import Scheduling
from serve_app.pool_queue import PRESSURE_INTERVAL_S
from serve_app.pressure import UP_DWELL_S
from serve_app.verdicts import VerdictKind

CRITICAL = Priority.CRITICAL


# The ladder


def test_a_critical_frame_is_degraded_when_its_turn_comes_late():
    """Its slack shrank while it waited: a smaller rung still makes it."""
    scheduler = ladder_scheduler(*criticals("c", size_hw=HD, deadline_s=1.0))
    scheduler.replicas_ready("near", ["near-0"])

    assert [(batch.model, batch.canvas) for batch in scheduler.decide(0.96).batches] == [("full", VGA)]


@pytest.mark.parametrize(("deadline_s", "waited_s", "canvas"), [
    (1.0, 0.925, HD), (1.0, 0.935, VGA),  # 40 ms of its own: by half as much again, and a quarter of it, before 1 s
    (0.065, 0.0, HD), (0.065, 0.002, HD), (0.065, 0.003, VGA),  # of the 5 ms for which it can wait, half
])  # fmt: skip
def test_a_critical_frame_goes_the_dear_way_unless_it_has_waited(deadline_s, waited_s, canvas):
    """The slowest ones are those that waited and took it all the same; an idle pool has time for it."""
    scheduler = ladder_scheduler(*criticals("c", size_hw=HD, deadline_s=deadline_s))
    scheduler.replicas_ready("near", ["near-0"])

    assert [(batch.model, batch.canvas) for batch in scheduler.decide(waited_s).batches] == [("full", canvas)]


def test_a_camera_that_must_not_degrade_expires_instead():
    """Its only route cannot make it."""
    frame = sample_frame("c", size_hw=HD, deadline_s=1.0, priority=CRITICAL, camera="firm-1")
    scheduler = ladder_scheduler(frame, near=1)

    assert expired(scheduler.decide(0.97)) == ["c"]


def test_waiting_normal_frames_go_down_when_memory_asks():
    """Those that were admitted before, too; a critical one keeps its own model."""
    scheduler = ladder_scheduler(
        sample_frame("n", size_hw=HD), *criticals("c", size_hw=HD), sample_frame("f", size_hw=HD, camera="firm-1")
    )
    scheduler.memory_is("near", MemoryLevel.CRITICAL)
    scheduler.replicas_ready("near", replicas("near", 3))

    assert {batch.pieces[0].frame.frame_id: (batch.model, batch.canvas) for batch in scheduler.decide(1.0).batches} == {
        "n": ("light", VGA),
        "c": ("full", HD),
        "f": ("full", HD),
    }


def test_a_frame_that_moves_to_another_pool_is_sent_there_at_once():
    """Its smaller rung is served by a pool that had been looked at before."""
    scheduler = ladder_scheduler(sample_frame("n", size_hw=UHD))
    scheduler.memory_is("far", MemoryLevel.HIGH)
    for pool in ("near", "far"):
        scheduler.replicas_ready(pool, replicas(pool, 1))

    assert [(batch.pool, batch.canvas) for batch in scheduler.decide(0.0).batches] == [("near", VGA)]
    assert [load.num_waiting for load in scheduler.loads().values()] == [0, 0]


def test_a_frame_that_has_begun_keeps_its_route():
    """Half of its tiles on one scale and half on another would be no answer."""
    scheduler = ladder_scheduler(sample_frame("big", size_hw=UHD), near=1, scheduling=Scheduling(max_chunk_s=0.05))
    assert sent(scheduler.decide(0.0)) == [["big"] * 4]
    scheduler.memory_is("near", MemoryLevel.HIGH)
    scheduler.batch_ended(1, 0.028)
    (batch,) = scheduler.decide(0.028).batches

    assert [(piece.number, piece.route.rung) for piece in batch.pieces] == [(4, 0), (5, 0), (6, 0), (7, 0)]


def test_a_queue_of_normal_frames_leads_down_the_ladder_and_calm_leads_back():
    """Half a second of work for one replica is pressure; when it is gone, frames go at their own size again."""
    scheduler = ladder_scheduler(near=1)
    admit(scheduler, *(sample_frame(str(at), size_hw=HD, deadline_s=9.0 + at) for at in range(20)))
    scheduler.decide(0.0)
    scheduler.batch_ended(1, 0.06)
    scheduler.decide(0.06)
    assert scheduler.loads()["near"].rung == 1
    now_s, num_frames = 0.06, scheduler.num_frames
    while scheduler.num_frames:
        now_s += 0.05
        for batch_id in list(scheduler._batches.running):
            scheduler.batch_ended(batch_id, now_s)
        scheduler.decide(now_s)
    assert num_frames == 18
    for step in range(1, 200):
        admit(scheduler, sample_frame("x", arrived_s=now_s + step / 10, deadline_s=now_s + step / 10 + 5))
        (batch,) = scheduler.decide(now_s + step / 10).batches
        scheduler.batch_ended(batch.batch_id, now_s + step / 10 + 0.01)

    assert scheduler.loads()["near"].rung == 0


def test_the_ladder_is_asked_no_more_often_than_its_interval():
    """Its steps take tenths of a second: what comes in between costs nothing."""
    scheduler = ladder_scheduler(near=1)
    felt_s = {}
    for number in range(10):
        now_s = 1.0 + number * 0.4 * PRESSURE_INTERVAL_S
        admit(scheduler, sample_frame(str(number), arrived_s=now_s))
        scheduler.decide(now_s)
        felt_s[scheduler._felt_s] = now_s

    assert list(felt_s) == pytest.approx([1.0 + step * 1.2 * PRESSURE_INTERVAL_S for step in range(4)])


def test_a_frame_after_a_long_silence_is_not_degraded():
    """An empty queue leads back to the first rung, whether or not anything happens meanwhile."""
    scheduler = ladder_scheduler(near=1)
    admit(scheduler, *(sample_frame(str(at), size_hw=HD, deadline_s=9.0) for at in range(20)))
    scheduler.decide(0.0)
    now_s = 0.0
    while scheduler.num_frames:
        now_s += 0.05
        for batch_id in list(scheduler._batches.running):
            scheduler.batch_ended(batch_id, now_s)
        scheduler.decide(now_s)
    later_s = now_s + 100 * UP_DWELL_S

    arrival = scheduler.arrived(sample_frame("x", size_hw=HD, arrived_s=later_s, deadline_s=later_s + 5))
    assert (arrival.verdict.kind, arrival.verdict.rung) == (VerdictKind.ADMIT, 0)


# Keep latest


def latest(name: str, *, camera="latest-1", **changes):
    """A frame of a camera of which only the newest may wait."""
    return sample_frame(name, camera=camera, **changes)


def test_a_newer_frame_takes_the_place_of_the_older_one_that_waits():
    """The older is handed back, and its room with it."""
    older, newer = latest("old", num_bytes=900), latest("new", num_bytes=300)
    scheduler = ladder_scheduler(older)

    assert scheduler.arrived(newer).superseded is older
    assert (scheduler.num_frames, scheduler.held_bytes, scheduler.loads()["near"].num_waiting) == (1, 300, 1)
    scheduler.replicas_ready("near", ["near-0"])
    assert sent(scheduler.decide(1.0)) == [["new"]]


@pytest.mark.parametrize(
    "other",
    [
        latest("new", camera="latest-2"),
        latest("new", priority=CRITICAL),
        sample_frame("new", camera="gate-1"),
    ],
    ids=["another camera", "another priority", "another rule"],
)
def test_a_frame_takes_the_place_of_no_other_camera_or_priority(other):
    """Both stay."""
    scheduler = ladder_scheduler(latest("old"))

    assert scheduler.arrived(other).superseded is None
    assert scheduler.num_frames == 2


def test_cameras_that_keep_all_supersede_nothing():
    """The default."""
    scheduler = ladder_scheduler(sample_frame("old"))

    assert scheduler.arrived(sample_frame("new")).superseded is None


def test_a_frame_that_was_sent_is_not_superseded():
    """Its device time is spent: it is answered."""
    scheduler = ladder_scheduler(latest("old"), near=1)
    scheduler.decide(0.0)

    assert scheduler.arrived(latest("new")).superseded is None
    assert ids(scheduler.batch_ended(1, 1.0)) == ["old"]


def test_the_older_frame_counts_no_more_in_the_budgets():
    """A camera whose frame fills the house may replace it, with one as large but no larger."""
    limits = sample_limits(frames=1, num_bytes=1000)
    scheduler = ladder_scheduler(latest("old", num_bytes=1000), limits=limits)

    too_large = scheduler.arrived(latest("large", num_bytes=1001))
    assert (too_large.verdict.kind, too_large.superseded, scheduler.num_frames) == (VerdictKind.REJECT, None, 1)
    assert ids([scheduler.arrived(latest("new", num_bytes=1000)).superseded]) == ["old"]
    assert (scheduler.num_frames, scheduler.held_bytes) == (1, 1000)


def test_a_rejected_frame_supersedes_nothing():
    """The older one is better than none."""
    scheduler = ladder_scheduler(latest("old"))
    scheduler.memory_is("near", MemoryLevel.SHED)
    arrival = scheduler.arrived(latest("new"))

    assert (arrival.verdict.kind, arrival.superseded) == (VerdictKind.REJECT, None)
    assert scheduler.cancelled("old")
