"""What the scheduler promises, over random loads on fake devices whose seconds are exactly the predicted ones."""

from __future__ import annotations

import math
import random

from fake_devices import EPS_S, Run, World
from hypothesis import example, given, settings
from hypothesis import strategies as st
from serve_samples import HD, PORTRAIT, UHD, VGA, ladder_plan, replicas, sample_frame, sample_latency, sample_plan

from serve_app.batching import Batch
from serve_app.frames import Frame, Priority
from serve_app.lane_key import LaneClass
from serve_app.lanes import Waiting
from serve_app.plan import Plan, Scheduling
from serve_app.replica_credits import MAX_CREDITS_PER_REPLICA
from serve_app.scheduler import Scheduler

REPEATABLE = settings(derandomize=True, database=None, deadline=None, max_examples=50)
CRITICAL, NORMAL = Priority.CRITICAL, Priority.NORMAL
MAX_STARVE_S = 0.3
# Full HD frames run as tiles of other canvases here.
TILES = Scheduling(max_chunk_s=0.06, max_starve_s=MAX_STARVE_S)
# And here whole, in a single pool, longer than everything else.
WHOLE = Scheduling(max_chunk_s=0.1, max_starve_s=MAX_STARVE_S, defer_above_px=1_000_000)

sizes = st.sampled_from([VGA, VGA, PORTRAIT, HD, UHD])
# The mean time between two frames: twice and half of what one replica can do with them, and all at once.
gaps_s = st.sampled_from([0.02, 0.012, 0.006, 0.0])
num_replicas = st.sampled_from([1, 1, 2, 3])
# What a call takes: nothing, less than a run, and several runs, so that more batches are on their way.
arounds_s = st.sampled_from([0.0, 0.01, 0.05])
plans = st.sampled_from([sample_plan(scheduling=TILES), ladder_plan(scheduling=TILES), sample_plan(scheduling=WHOLE)])


def random_load(seed: int, num_frames: int, gap_s: float, slos_s: tuple[float, ...]) -> list[Frame]:
    """Frames of random sizes, priorities and deadlines, in bursts: long lists, which hypothesis itself seldom draws."""
    rng = random.Random(seed)
    now_s, frames = 0.0, []
    for number in range(num_frames):
        now_s += rng.choice([0.0, 0.5, 1.0, 2.5]) * gap_s
        priority = rng.choice([NORMAL, NORMAL, CRITICAL])
        frames.append(
            sample_frame(
                f"{priority.value[0]}{number}", arrived_s=now_s, deadline_s=now_s + rng.choice(slos_s),
                priority=priority, size_hw=rng.choice([VGA, VGA, VGA, PORTRAIT, HD, UHD]),
            )
        )  # fmt: skip
    return frames


def loads(*slos_s: float) -> st.SearchStrategy[list[Frame]]:
    """Loads with these deadlines."""
    return st.builds(
        random_load, st.integers(0, 1_000_000), st.integers(5, 120), gaps_s, st.just(slos_s or (0.1, 0.3, 1.0, 5.0))
    )


def world_of(plan: Plan, num_replicas: int, around_s: float = 0.0) -> World:
    """Fake devices of both pools."""
    names = {"near": replicas("near", num_replicas), "far": replicas("far", 1)}
    scheduler = Scheduler(plan, sample_latency())
    return World(scheduler, names, max_starve_s=plan.scheduling.max_starve_s, around_s=around_s)


def first_run(world: World, frame: Frame) -> Run | None:
    """The batch that first held a piece of a frame."""
    return next((run for run in world.runs if frame.frame_id in run.frame_ids), None)


def at_device(world: World, batch: Batch) -> list[Run]:
    """All that ever ran where a batch did."""
    return [run for run in world.runs if (run.batch.pool, run.batch.replica) == (batch.pool, batch.replica)]


@given(load=loads(), plan=plans, num_replicas=num_replicas, around_s=arounds_s)
@REPEATABLE
def test_every_frame_ends_in_exactly_one_outcome(load, plan, num_replicas, around_s):
    """Whatever comes: nothing is forgotten, nothing ends twice, nothing is left."""
    world = world_of(plan, num_replicas, around_s)
    world.play(load)

    assert sorted(world.outcomes) == sorted(frame.frame_id for frame in load)
    assert (world.scheduler.num_frames, world.scheduler.held_bytes) == (0, 0)
    for frame in load:
        if world.outcomes[frame.frame_id] == "expired":
            assert world.ended_s[frame.frame_id] <= frame.deadline_s + EPS_S


@given(load=loads(), plan=plans, num_replicas=num_replicas)
@REPEATABLE
def test_a_critical_frame_waits_for_one_running_chunk_and_critical_work_at_most(load, plan, num_replicas):
    """From its arrival to its start its device never idles, and begins nothing that is not critical or promoted."""
    world = world_of(plan, num_replicas)
    world.play(load)

    for frame in load:
        run = first_run(world, frame)
        if frame.priority is not CRITICAL or run is None:
            continue
        between = [
            other
            for other in at_device(world, run.batch)
            if other is not run and other.end_s > frame.arrived_s + EPS_S and other.start_s < run.start_s - EPS_S
        ]
        began = [other for other in between if other.start_s > frame.arrived_s + EPS_S]
        running_s = [other.end_s - frame.arrived_s for other in between if other not in began]
        assert all(other.batch.urgent for other in began)
        assert len(running_s) <= 1
        busy_s = sum(running_s) + sum(other.batch.run_s for other in began)
        assert run.start_s - frame.arrived_s <= busy_s + EPS_S


@given(load=loads(), plan=plans, num_replicas=num_replicas, around_s=arounds_s)
@REPEATABLE
def test_no_noncritical_batch_is_longer_than_a_chunk_unless_a_single_piece_is(load, plan, num_replicas, around_s):
    """Warmed sizes of one canvas and class each, predicted by the model."""
    world = world_of(plan, num_replicas, around_s)
    world.play(load)
    latency = sample_latency()
    warmed = {(bucket.name, canvas): bucket for bucket in plan.buckets for canvas in bucket.canvases}

    for run in world.runs:
        batch, size = run.batch, len(run.batch.pieces)
        bucket = warmed[batch.bucket, batch.canvas]
        assert size in bucket.batches
        assert (batch.pool, batch.model) == (bucket.pool, bucket.model)
        assert batch.run_s == latency.predict_s(batch.model, batch.canvas, size)
        assert size == 1 or batch.run_s <= plan.max_chunk_s + EPS_S
        assert len({piece.frame.priority for piece in batch.pieces}) == 1


@given(load=loads(), plan=plans, num_replicas=num_replicas)
@REPEATABLE
def test_no_device_idles_while_work_waits_for_its_pool(load, plan, num_replicas):
    """After each decision."""
    world = world_of(plan, num_replicas)

    def look(now_s):
        for (pool, name), device in world.devices.items():
            idle_with_work = device.running is None and world.scheduler.loads()[pool].num_waiting
            assert not idle_with_work, f"{name} idles at {now_s}"

    world.on_decided = look
    world.play(load)


@given(load=loads(), plan=plans, num_replicas=num_replicas, around_s=arounds_s)
@REPEATABLE
def test_replicas_hold_what_their_credits_allow(load, plan, num_replicas, around_s):
    """So many others as its credits, and a critical one that runs and one that is staged; a pool keeps one credit."""
    world = world_of(plan, num_replicas, around_s)
    most = dict.fromkeys(("near", "far"), 0)

    def look(_):
        for pool in most:
            names = [name for its, name in world.devices if its == pool]
            most[pool] = max(most[pool], world.scheduler._pools[pool].credits.per_replica)
            held = {name: world.held(pool, name) for name in names}
            others = {name: sum(not run.batch.urgent for run in held[name]) for name in names}
            assert max(others.values()) <= most[pool] <= MAX_CREDITS_PER_REPLICA
            assert sum(others.values()) <= most[pool] * len(names) - (len(names) > 1)
            assert max(len(held[name]) - others[name] for name in names) <= 2

    world.on_decided = look
    world.play(load)


@given(load=loads(), plan=plans, num_replicas=num_replicas, around_s=arounds_s)
@REPEATABLE
def test_deferred_pieces_are_staged_late(load, plan, num_replicas, around_s):
    """Behind a running batch a deferred one is sent no sooner than the call around it takes, unless it was promoted.

    Exactly so where the scheduler knows what runs. It does not where a critical batch is still on its way to overtake
    a staged one when the device takes that one: so critical frames are left out where calls take time.
    """
    load = [frame for frame in load if not around_s or frame.priority is not CRITICAL]
    world = world_of(plan, num_replicas, around_s)

    def look(now_s):
        for run in world.runs:
            if run.sent_s < now_s or run.batch.urgent or not is_deferred(plan, run.batch):
                continue
            here = world.held(run.batch.pool, run.batch.replica)
            before = [other for other in here if other.batch.batch_id < run.batch.batch_id]
            runs_s = sum(other.batch.run_s for other in before if other.start_s is None)
            running_s = max((other.end_s - now_s for other in before if other.end_s is not None), default=0.0)
            assert running_s + runs_s <= around_s + EPS_S

    world.on_decided = look
    world.play(load)


def is_deferred(plan: Plan, batch: Batch) -> bool:
    """Whether a batch came from a deferred lane, by its most urgent piece."""
    frame, route, _ = batch.pieces[0]
    if frame.priority is CRITICAL:
        return False
    is_large = frame.size_hw[0] * frame.size_hw[1] > plan.scheduling.defer_above_px and route.rung == 0
    return bool(route.windows) or route.alone_s > plan.max_chunk_s or is_large


def place_of(entry: Waiting) -> tuple[str, LaneClass]:
    """Pool and class of a frame that is here."""
    return entry.route.pool, entry.route.lane.lane_class


@given(load=loads(), num_replicas=num_replicas)
@REPEATABLE
def test_within_a_class_work_is_sent_as_it_is_due(load, num_replicas):
    """What stays behind in a class is due no sooner than the first frame of any of its batches that were sent."""
    world = world_of(sample_plan(scheduling=TILES), num_replicas)
    scheduler = world.scheduler
    due_s: dict[str, tuple[str, LaneClass, float]] = {}

    def look(now_s):
        waiting = [entry for entry in scheduler._room.entries.values() if entry.num_waiting]
        due_s.update((e.frame.frame_id, (*place_of(e), e.due_s)) for e in scheduler._room.entries.values())
        for run in (run for run in world.runs if run.sent_s == now_s):
            pool, lane_class, first_due_s = due_s[run.batch.pieces[0].frame.frame_id]
            left = [e.due_s for e in waiting if place_of(e) == (pool, lane_class)]
            assert first_due_s <= min(left, default=math.inf)

    world.on_decided = look
    world.play(load)


@given(
    gap_s=st.sampled_from([0.004, 0.006, 0.007, 0.009]),
    size_hw=st.sampled_from([VGA, PORTRAIT]),
    others=st.lists(st.tuples(st.floats(0, 1.5), sizes), min_size=1, max_size=12),
    num_replicas=st.sampled_from([1, 2]),
    plan=plans,
)
@example(gap_s=0.004, size_hw=VGA, others=[(0.0, VGA)] * 12, num_replicas=1, plan=sample_plan(scheduling=TILES))
@settings(derandomize=True, database=None, deadline=None, max_examples=25)
def test_ageing_lets_no_class_starve(gap_s, size_hw, others, num_replicas, plan):
    """Critical frames fill the pool for two seconds: while others wait, one of their chunks is begun often enough.

    At least every `max_starve_s` plus one chunk and what is staged; and no more often than that, or the critical frames
    would be what waits.
    """
    world = world_of(plan, num_replicas)
    load = [
        sample_frame(
            f"c{number}", arrived_s=number * gap_s, deadline_s=number * gap_s + 60, priority=CRITICAL, size_hw=size_hw,
            camera="firm-1",
        )
        for number in range(int(2.0 * num_replicas / gap_s))
    ]  # fmt: skip
    load += [
        sample_frame(f"n{number}", arrived_s=at_s, deadline_s=at_s + 60, size_hw=size_hw)
        for number, (at_s, size_hw) in enumerate(others)
    ]
    waits: list[tuple[float, bool]] = []
    world.on_decided = lambda now_s: waits.append(
        (now_s, any(world.scheduler._pools["near"].num_waiting[its] for its in (LaneClass.NORMAL, LaneClass.DEFERRED)))
    )
    world.play(load)

    sent = [run.sent_s for run in world.runs if run.batch.pool == "near" and not run.is_critical]
    longest_s = max(run.batch.run_s for run in world.runs)
    # One that was staged while nobody hurried is begun in its turn, and then it is the others' chunk.
    begun = sorted(sent + [run.start_s for run in world.runs if run.sent_s in sent and not run.is_critical])
    since_s = None
    for now_s, others_wait in waits:
        if not others_wait:
            since_s = None
            continue
        last_s = max((at_s for at_s in begun if at_s <= now_s), default=-math.inf)
        since_s = max(now_s if since_s is None else since_s, last_s)
        assert since_s is None or now_s - since_s <= MAX_STARVE_S + longest_s + EPS_S
    promoted = [run for run in world.runs if run.batch.urgent and not run.is_critical and run.batch.pool == "near"]
    # Ahead of it may be what runs, a critical one that is staged, and a staged one of its own kind that has starved.
    assert all(run.start_s - run.sent_s <= 3 * longest_s + EPS_S for run in promoted)
    for run in promoted:
        before = [sent_s for sent_s in sent if sent_s < run.sent_s]
        assert not before or run.sent_s - before[-1] >= MAX_STARVE_S - EPS_S
    assert len({run.sent_s for run in promoted}) == len(promoted)


def test_a_staged_batch_is_not_overtaken_for_ever():
    """Critical frames that just fill the device pass a staged batch, but no longer than they may pass what waits."""
    world = world_of(sample_plan(scheduling=TILES), 1)
    load = [
        sample_frame(f"c{number}", arrived_s=number * 0.0099, deadline_s=90, priority=CRITICAL) for number in range(300)
    ]
    load.append(sample_frame("n", arrived_s=0.001, deadline_s=80))
    world.play(load)
    (run,) = (run for run in world.runs if not run.is_critical)

    assert run.start_s <= 0.001 + MAX_STARVE_S + 3 * 0.028


@given(load=loads(600.0), share=st.sampled_from([0.1, 0.5, 0.9]), num_replicas=num_replicas)
@REPEATABLE
def test_cancelling_any_subset_leaves_the_others_answered(load, share, num_replicas):
    """With time enough all that nobody cancels is finished; what is cancelled too late is finished as well."""
    rng = random.Random(len(load))
    cancelled_s = {
        frame.frame_id: frame.arrived_s + rng.choice([0, 0.01, 0.1]) for frame in load if rng.random() < share
    }
    world = world_of(sample_plan(scheduling=TILES), num_replicas)
    world.play(load, cancelled_s)

    by_outcome = {
        how: {name for name, its in world.outcomes.items() if its == how} for how in ("finished", "cancelled")
    }
    assert by_outcome["cancelled"] <= set(cancelled_s)
    assert by_outcome["finished"] == {frame.frame_id for frame in load} - by_outcome["cancelled"]
    assert len(world.outcomes) == len(load)


@given(load=loads(600.0), num_replicas=num_replicas)
@REPEATABLE
def test_each_tile_runs_once_and_the_frame_ends_with_the_last(load, num_replicas):
    """No piece is sent twice or left out; a frame is finished when its last piece is."""
    world = world_of(sample_plan(scheduling=TILES), num_replicas)
    world.play(load)

    for frame in load:
        pieces = [
            (piece.number, piece.route.num_pieces, run.end_s)
            for run in world.runs
            for piece in run.batch.pieces
            if piece.frame is frame
        ]
        assert sorted(number for number, _, _ in pieces) == list(range(pieces[0][1]))
        assert world.ended_s[frame.frame_id] == max(end_s for _, _, end_s in pieces)
