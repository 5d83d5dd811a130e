"""The scheduler's decisions, one example for each rule: the order, deferral, ageing, and what it tells."""

from __future__ import annotations

import pytest
from serve_samples import (
    HD,
    PORTRAIT,
    UHD,
    VGA,
    admit,
    criticals,
    ids,
    ladder_scheduler,
    replicas,
    sample_frame,
    sample_limits,
    sample_plan,
    scheduler_of,
    sent,
)

from serve_app.admission import DEFERRED_MARGIN, MARGIN_FRACTION
from serve_app.batching import Batch
from serve_app.decisions import Decisions
from serve_app.frames import Priority
from serve_app.memory_level import MemoryLevel
from serve_app.plan import Pool, Scheduling
from serve_app.pool_load import PoolLoad
from serve_app.pool_queue import ASSUMED_AROUND_S, SHARE_BEFORE
from serve_app.routes import CALL_COST_S
from serve_app.scheduler import Scheduler
from serve_app.verdicts import VerdictKind

CRITICAL = Priority.CRITICAL
NOTHING = Decisions((), ())
# One frame alone, as `RUN_S` says.
VGA_S, HD_S, UHD_S = 0.010, 0.030, 0.080
# So long before its deadline a frame must begin, with the call around it: 10 ms until one was seen.
SAFE = 1 + MARGIN_FRACTION
AROUND_S = ASSUMED_AROUND_S
BEFORE_S = SHARE_BEFORE * AROUND_S
VGA_SAFE_S, HD_SAFE_S = SAFE * (VGA_S + AROUND_S), SAFE * (HD_S + AROUND_S)


# The order


def test_a_frame_goes_to_an_idle_replica_at_once():
    """With a free replica nothing waits for company, and nothing is sent twice."""
    frame = sample_frame("a")
    scheduler = scheduler_of(frame, near=1)
    (batch,) = scheduler.decide(1.0).batches

    assert sent(Decisions((batch,), ())) == [["a"]]
    assert batch._replace(pieces=()) == Batch(
        batch_id=1, pool="near", replica="near-0", bucket="vga", model="full", canvas=VGA, urgent=False, run_s=VGA_S,
        pieces=(),
    )  # fmt: skip
    assert scheduler.decide(1.0) == NOTHING


def test_critical_frames_pass_every_normal_one():
    """Strict priority, whatever the deadlines, the sizes and the order of arrival."""
    scheduler = scheduler_of(
        sample_frame("n1", deadline_s=1.5),
        sample_frame("n2", deadline_s=1.6, size_hw=HD),
        sample_frame("c1", deadline_s=90, size_hw=PORTRAIT, priority=CRITICAL),
        sample_frame("c2", deadline_s=80, size_hw=HD, priority=CRITICAL),
        near=1,
    )

    batches = scheduler.decide(0.5).batches
    assert sent(Decisions(batches, ())) == [["c2"], ["c1"], ["n1"], ["n2"]]
    assert [batch.urgent for batch in batches] == [True, True, False, False]


def test_critical_and_normal_frames_never_share_a_batch():
    """A normal frame does not ride in a critical batch that has room for it."""
    scheduler = scheduler_of(
        sample_frame("n1", deadline_s=2), *criticals("c1", deadline_s=3), sample_frame("n2", deadline_s=4), near=2
    )

    assert sent(scheduler.decide(0.5)) == [["c1"], ["n1", "n2"]]


def test_lanes_are_served_by_the_latest_start_of_their_first_frame():
    """By deadline less own time across canvases; a batch takes its own canvas's frames along."""
    scheduler = scheduler_of(
        sample_frame("v9", deadline_s=9),
        sample_frame("h5", deadline_s=5.01, size_hw=HD),
        sample_frame("v5", deadline_s=5.0),
        sample_frame("p6", deadline_s=6, size_hw=PORTRAIT),
        sample_frame("h8", deadline_s=8, size_hw=HD),
        near=3,
    )

    assert sent(scheduler.decide(1.0)) == [["h5", "h8"], ["v5", "v9"], ["p6"]]


def test_a_batch_has_one_canvas_though_the_bucket_has_two():
    """Portrait and landscape of one bucket are two shapes for the engine."""
    scheduler = scheduler_of(sample_frame("l", deadline_s=5), sample_frame("p", size_hw=PORTRAIT), near=2)

    assert [(batch.canvas, batch.bucket) for batch in scheduler.decide(1.0).batches] == [
        (VGA, "vga"), (PORTRAIT, "vga"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("num_frames", "sizes"), [(1, [1]), (2, [2]), (3, [2, 1]), (4, [4]), (5, [4, 1]), (7, [4, 2, 1]), (9, [4, 4, 1])]
)
def test_batches_are_the_warmed_sizes(num_frames, sizes):
    """Ladder 1, 2, 4 and idle replicas enough: each batch is the largest warmed size that is left."""
    scheduler = scheduler_of(*(sample_frame(str(at), deadline_s=10 + at) for at in range(num_frames)), near=4)
    batches = sent(scheduler.decide(1.0))

    assert [len(each) for each in batches] == sizes
    assert [name for each in batches for name in each] == [str(at) for at in range(num_frames)]


def test_batches_shrink_with_the_chunk():
    """Four VGA frames take 28 ms: with chunks of 20 ms two go at a time, and critical ones as well."""
    for priority in Priority:
        frames = [sample_frame(str(at), priority=priority) for at in range(4)]
        scheduler = scheduler_of(*frames, near=2, scheduling=Scheduling(max_chunk_s=0.02))
        assert sent(scheduler.decide(1.0)) == [["0", "1"], ["2", "3"]]


def test_a_batch_is_as_large_as_its_most_urgent_frame_allows():
    """Its deadline leaves 19 ms after the call around it: two together, not four."""
    urgent = sample_frame("urgent", deadline_s=1.029)
    scheduler = scheduler_of(urgent, *(sample_frame(str(at), deadline_s=50 + at) for at in range(3)), near=2)

    assert sent(scheduler.decide(1.0)) == [["urgent", "0"], ["1", "2"]]


def test_one_pool_does_not_spend_the_credits_of_another():
    """Pools are devices of their own."""
    frames = [sample_frame(str(at), deadline_s=10 + at, size_hw=UHD) for at in range(2)]
    scheduler = scheduler_of(*frames, sample_frame("v", deadline_s=50), near=1, far=1)

    assert [(batch.pool, batch.replica) for batch in scheduler.decide(1.0).batches] == [
        ("near", "near-0"), ("far", "far-0"),
    ]  # fmt: skip
    assert scheduler.loads()["far"].num_waiting == 1


# Deferral


def test_a_deferred_frame_waits_until_no_normal_one_does():
    """However old it is, before it must begin."""
    scheduler = scheduler_of(
        sample_frame("d", size_hw=(700, 1200), deadline_s=3), sample_frame("n", deadline_s=90, size_hw=(600, 1000)),
        near=1, scheduling=Scheduling(defer_above_px=800_000),
    )  # fmt: skip

    assert sent(scheduler.decide(1.0)) == [["n"]]


def test_a_deferred_frame_that_must_begin_goes_before_normal_ones():
    """Half as much again as its own time, and a chunk, before its deadline; not sooner."""
    schedulers = [
        scheduler_of(
            sample_frame("d", size_hw=(700, 1200), deadline_s=3), sample_frame("n", deadline_s=90), near=1,
            scheduling=Scheduling(defer_above_px=800_000),
        )
        for _ in range(2)
    ]  # fmt: skip
    begin_s = 3 - DEFERRED_MARGIN * HD_SAFE_S - sample_plan().max_chunk_s

    times_s = (begin_s - 0.001, begin_s)
    firsts = [sent(scheduler.decide(now_s))[0] for scheduler, now_s in zip(schedulers, times_s, strict=True)]
    assert firsts == [["n"], ["d"]]


def test_a_deferred_frame_is_old_after_max_defer():
    """However far its deadline."""
    for now_s, first in ((9.99, "n"), (10.0, "d")):
        scheduler = scheduler_of(
            sample_frame("d", size_hw=(700, 1200), deadline_s=90), sample_frame("n", deadline_s=80), near=1,
            scheduling=Scheduling(defer_above_px=800_000),
        )  # fmt: skip
        assert sent(scheduler.decide(now_s))[0] == [first]


def test_a_deferred_piece_is_staged_as_late_as_it_can_be():
    """Not before the device is about to be free: what is more urgent may come until then."""
    scheduler = scheduler_of(sample_frame("run", size_hw=UHD), sample_frame("next", size_hw=UHD, deadline_s=99), far=1)
    assert sent(scheduler.decide(0.0)) == [["run"]]

    latest_s = BEFORE_S + UHD_S - AROUND_S
    assert scheduler.next_wake_s() == pytest.approx(latest_s)
    assert scheduler.decide(latest_s - 0.001) == NOTHING
    assert sent(scheduler.decide(latest_s + 0.0001)) == [["next"]]


def test_a_large_frame_runs_as_tiles_between_which_critical_frames_pass():
    """Ten tiles of 28 ms at most: the frame is answered with the last one."""
    plan_of = {"scheduling": Scheduling(max_chunk_s=0.05)}
    scheduler = scheduler_of(sample_frame("big", size_hw=UHD), near=1, far=1, **plan_of)
    assert sent(scheduler.decide(0.0)) == [["big"] * 4]
    admit(scheduler, *criticals("c", arrived_s=0.01))
    assert sent(scheduler.decide(0.01)) == [["c"]]
    assert scheduler.batch_ended(1, 0.03) == ()
    assert sent(scheduler.decide(0.031)) == [["big"] * 4]
    assert ids(scheduler.batch_ended(2, 0.04)) == ["c"]
    assert sent(scheduler.decide(0.06)) == [["big"] * 2]
    assert scheduler.batch_ended(3, 0.068) == ()
    assert ids(scheduler.batch_ended(4, 0.09)) == ["big"]
    assert scheduler.num_frames == 0


# Starvation


def test_one_chunk_of_starving_work_passes_critical_work():
    """Then critical work goes on for another `max_starve_s`, however many of the others wait."""
    scheduler = scheduler_of(
        *(sample_frame(f"n{number}", deadline_s=90, size_hw=size_hw) for number, size_hw in enumerate((VGA, HD))),
        *criticals("c1", deadline_s=80),
        *criticals("c2", deadline_s=81, size_hw=PORTRAIT),
    )
    scheduler.replicas_ready("near", replicas("near", 3))

    assert sent(scheduler.decide(1.5)) == [["n1"], ["c1"], ["c2"], ["n0"]]
    assert [batch.urgent for batch, _ in scheduler._batches.running.values()] == [True, True, True, False]


def test_starving_work_passes_critical_work_though_it_changes_its_rung():
    """A frame that is moved down the ladder when its turn has come does not lose its turn."""
    scheduler = ladder_scheduler(sample_frame("n", size_hw=HD, deadline_s=90))
    admit(scheduler, *criticals("c1", "c2", "c3", "c4", deadline_s=80))
    scheduler.memory_is("near", MemoryLevel.HIGH)
    scheduler.replicas_ready("near", ["near-0"])

    assert sent(scheduler.decide(1.5))[0] == ["n"]


# What is told


@pytest.mark.parametrize("way_out", ["done", "expired", "cancelled", "failed", "given up"])
def test_whatever_leaves_makes_room(way_out):
    """The budgets count what is here, waiting or running: each way out gives frames and bytes back, exactly."""
    scheduler = scheduler_of(
        sample_frame("a", deadline_s=5, num_bytes=1000), limits=sample_limits(frames=1, num_bytes=1000)
    )
    if way_out in {"done", "failed", "given up"}:
        scheduler.replicas_ready("near", ["near-0"])
        scheduler.decide(1.0)
    assert scheduler.arrived(sample_frame("b", num_bytes=1000)).verdict.kind is VerdictKind.REJECT
    match way_out:
        case "done":
            scheduler.batch_ended(1, 1.0)
        case "failed":
            scheduler.batch_ended(1, 1.0, failed=["a"])
        case "given up":
            scheduler.batch_lost(1, 6.0)
        case "expired":
            scheduler.decide(5.0)
        case "cancelled":
            scheduler.cancelled("a")

    assert (scheduler.num_frames, scheduler.held_bytes) == (0, 0)
    assert scheduler.arrived(sample_frame("b", num_bytes=1000)).verdict.kind is VerdictKind.ADMIT


def test_batches_teach_the_latency_model():
    """What they kept the device, under their own shape; one that never came there teaches nothing."""
    scheduler = scheduler_of(*(sample_frame(str(at)) for at in range(3)), near=2)
    scheduler.decide(0.0)
    seconds = []
    for batch_id, busy_s in ((2, None), (1, 0.017)):
        scheduler.batch_ended(batch_id, 1.0, busy_s=busy_s)
        seconds.append(scheduler.latency.predict_s("full", VGA, 2))
    num_samples = {key: latency.num_samples for key, latency in scheduler.latency.entries().items()}

    assert (seconds[0], 0.016 < seconds[1] < 0.017) == (0.016, True)
    assert (num_samples["full", VGA, 1], num_samples["full", VGA, 2]) == (8, 9)


def test_loads_tell_each_pool_apart():
    """In the plan's order: replicas, pieces that wait, batches that run, the work, the rung, the call, the counters."""
    scheduler = scheduler_of(*(sample_frame(str(at), size_hw=UHD) for at in range(3)), sample_frame("v"), far=2)
    scheduler.decide(0.0)
    vga_piece_s, uhd_piece_s = (0.028 + CALL_COST_S) / 4, UHD_S + CALL_COST_S

    (first, near), (second, far) = scheduler.loads().items()
    assert (first, second) == ("near", "far")
    assert near == PoolLoad(
        0, num_waiting=1, num_running=0, backlog_s=near.backlog_s, rung=0, around_s=0.01, offered_s=near.offered_s,
        waiting=(0, 1, 0),
    )  # fmt: skip
    assert (near.backlog_s, near.offered_s) == pytest.approx((vga_piece_s, vga_piece_s))
    assert far == PoolLoad(
        2, num_waiting=1, num_running=2, backlog_s=far.backlog_s, rung=0, around_s=0.01, deferred_s=far.deferred_s,
        offered_s=far.offered_s, sent_s=far.sent_s, waiting=(0, 0, 1), num_credits=1,
    )  # fmt: skip
    assert (far.backlog_s, far.deferred_s) == pytest.approx((uhd_piece_s, uhd_piece_s))
    assert (far.offered_s, far.sent_s) == pytest.approx((3 * uhd_piece_s, 2 * uhd_piece_s))


def test_a_new_scheduler_has_nothing_to_do():
    """No replica is assumed before one has said that it is ready."""
    scheduler = Scheduler(sample_plan(pools=(Pool("near", num_replicas=4), Pool("far"))))

    assert scheduler.loads() == {name: PoolLoad(0, 0, 0, 0.0, 0, around_s=0.01) for name in ("near", "far")}
    assert (scheduler.decide(0.0), scheduler.next_wake_s(), scheduler.num_frames) == (NOTHING, None, 0)


def test_after_decide_the_next_wake_is_later():
    """Whoever sets a timer by it makes progress."""
    scheduler = scheduler_of(*(sample_frame(str(at), deadline_s=1 + at // 2) for at in range(6)))
    wakes = []
    while (wake_s := scheduler.next_wake_s()) is not None:
        wakes.append(wake_s)
        scheduler.decide(wake_s)

    assert wakes == pytest.approx([number - VGA_SAFE_S for number in (1, 2, 3)])
    assert scheduler.num_frames == 0
