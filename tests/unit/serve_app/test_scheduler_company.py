"""Whom a batch waits for, and who may join it."""

from __future__ import annotations

import pytest
from serve_samples import (
    BUCKETS,
    HD,
    RUN_S,
    VGA,
    admit,
    criticals,
    sample_frame,
    sample_latency,
    scheduler_of,
    sent,
)

from engines.spec import CanvasShape
from serve_app.decisions import Decisions
from serve_app.frames import Priority
from serve_app.plan import Bucket, CameraRule, Oversize, Pool, Scheduling
from serve_app.pool_queue import ASSUMED_AROUND_S, SHARE_BEFORE
from serve_app.scheduler import Scheduler

CRITICAL = Priority.CRITICAL
NOTHING = Decisions((), ())


def test_a_batch_that_would_only_be_staged_waits_for_company_by_the_cameras_rate():
    """Frames come every 4 ms: the next is expected, and when the batch is full it goes."""
    scheduler = busy_with_hd()
    batches = []
    for number in range(1, 5):
        admit(scheduler, sample_frame(f"v{number}", arrived_s=0.004 * number))
        batches += sent(scheduler.decide(0.004 * number)) if number > 1 else []

    assert batches == [["v1", "v2", "v3", "v4"]]


def test_a_staged_batch_is_sent_when_company_does_not_come():
    """At the wake time that was named, not before: two gaps after the last arrival."""
    scheduler = busy_with_hd()
    admit(scheduler, sample_frame("a", arrived_s=0.004), sample_frame("b", arrived_s=0.008))
    assert sent(scheduler.decide(0.008)) == []
    wake_s = scheduler.next_wake_s()

    assert wake_s == pytest.approx(0.008 + 2 * 0.004)
    assert scheduler.decide(wake_s - 0.001) == NOTHING
    assert sent(scheduler.decide(wake_s)) == [["a", "b"]]


def test_a_full_batch_is_staged_at_once():
    """No company could join it."""
    scheduler = busy_with_hd()
    admit(scheduler, *(sample_frame(name, arrived_s=0.001 * at) for at, name in enumerate("abcd", 1)))

    assert sent(scheduler.decide(0.004)) == [["a", "b", "c", "d"]]


def test_critical_frames_never_wait_for_company():
    """Staged at once, though more of their stream are expected."""
    scheduler = busy_with_hd()
    admit(
        scheduler,
        *(sample_frame(name, arrived_s=0.001 * at, priority=CRITICAL) for at, name in enumerate("ab", 1)),
    )

    assert sent(scheduler.decide(0.002)) == [["a", "b"]]


def test_a_batch_waits_for_company_no_longer_than_the_device_is_busy():
    """It leaves so early that it is there when the device is free."""
    scheduler = busy_with_hd()
    admit(scheduler, sample_frame("a", arrived_s=0.001), sample_frame("b", arrived_s=0.031))
    assert scheduler.decide(0.031) == NOTHING

    leaves_s = SHARE_BEFORE * ASSUMED_AROUND_S + 0.054 - ASSUMED_AROUND_S
    assert scheduler.next_wake_s() == pytest.approx(leaves_s)
    assert sent(scheduler.decide(leaves_s + 0.0001)) == [["a", "b"]]


def busy_with_hd() -> Scheduler:
    """A replica that runs two HD frames from 0 to 54 ms."""
    scheduler = scheduler_of(sample_frame("hd1", size_hw=HD), sample_frame("hd2", size_hw=HD), near=1)
    assert sent(scheduler.decide(0.0)) == [["hd1", "hd2"]]
    return scheduler


NARROW = CanvasShape(480, 512)
NEIGHBOURLY = (*BUCKETS, Bucket("narrow", "full", "near", (NARROW,), (1, 2, 4)))
GAINS = RUN_S | {("full", NARROW): (0.009, 0.0145, 0.025)}
LOSES = {("full", VGA): (0.5, 1.0, 2.0), ("full", NARROW): (0.4, 0.8, 1.6)}


def neighbourly(*frames, run_s=GAINS, near: int = 4, **changes) -> Scheduler:
    """A scheduler that serves two canvases of nearly the same size."""
    return scheduler_of(*frames, near=near, latency=sample_latency(run_s), buckets=NEIGHBOURLY, **changes)


def test_frames_of_nearly_the_same_size_fill_up_a_batch():
    """One call and the engine's fixed costs are saved; they go on the larger canvas."""
    scheduler = neighbourly(
        *(sample_frame(name, deadline_s=5) for name in "ab"), *(sample_frame(name, size_hw=NARROW) for name in "xyz")
    )
    batches = scheduler.decide(1.0).batches

    assert [(batch.canvas, batch.run_s) for batch in batches] == [(VGA, 0.028), (NARROW, 0.009)]
    assert sent(Decisions(batches, ())) == [["a", "b", "x", "y"], ["z"]]


@pytest.mark.parametrize(
    ("run_s", "slo_s"), [(LOSES, 50.0), (GAINS, 50.0)], ids=["where batches gain nothing", "where they do"]
)
def test_neighbours_join_only_where_the_latency_model_gains(run_s, slo_s):
    """On a device whose time is proportional to pixels the larger canvas would cost more than the call."""
    frames = sample_frame("a", deadline_s=5), sample_frame("x", size_hw=NARROW, deadline_s=slo_s)
    scheduler = neighbourly(*frames, run_s=run_s, scheduling=Scheduling(max_chunk_s=9.0))

    assert sent(scheduler.decide(1.0)) == ([["a"], ["x"]] if run_s is LOSES else [["a", "x"]])


def test_a_larger_frame_never_joins_a_smaller_canvas():
    """It would lose pixels."""
    frames = sample_frame("x", size_hw=NARROW, deadline_s=5), sample_frame("a", deadline_s=50)

    assert sent(neighbourly(*frames).decide(1.0)) == [["x"], ["a"]]


def test_critical_frames_are_joined_by_none():
    """A larger batch would keep them longer."""
    frames = [*criticals("a", deadline_s=5), *criticals("x", size_hw=NARROW)]

    assert sent(neighbourly(*frames).decide(1.0)) == [["a"], ["x"]]


def test_neighbours_do_not_make_the_most_urgent_frame_late():
    """Its deadline leaves 19 ms after the call around it: two frames together take 16, four would take 28."""
    scheduler = neighbourly(
        sample_frame("urgent", deadline_s=1.029),
        sample_frame("b", deadline_s=50),
        *(sample_frame(name, size_hw=NARROW, deadline_s=50) for name in "xy"),
    )

    assert sent(scheduler.decide(1.0)) == [["urgent", "b"], ["x", "y"]]


def test_tiles_join_no_other_canvas():
    """Behind a whole frame in the same lane too: a tile keeps the scale that was chosen for it."""
    scheduler = scheduler_of(
        sample_frame("wide", size_hw=VGA, deadline_s=20, camera="large"),
        sample_frame("whole", size_hw=NARROW, deadline_s=30, camera="large"),
        sample_frame("tiled", size_hw=(480, 900), deadline_s=40, camera="tile-1"),
        near=4,
        latency=sample_latency({("full", VGA): (0.10, 0.11, 0.13), ("full", NARROW): (0.02, 0.06, 0.13)}),
        buckets=(Bucket("own", "full", "near", (VGA, NARROW), (1, 2, 4)),),
        pools=(Pool("near"),),
        cameras=(CameraRule("tile-*", oversize=Oversize.TILE),),
        scheduling=Scheduling(max_chunk_s=0.2, defer_above_px=1),
    )
    batches = scheduler.decide(1.0).batches

    tiles = [(piece.route.canvas, batch.canvas) for batch in batches for piece in batch.pieces if piece.window]
    assert tiles == [(NARROW, NARROW)] * 2
