"""One pool: whose lane is next, what waits, and how long it will."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serve_samples import HD, VGA, sample_frame, sample_latency, sample_plan

from serve_app.admission import Admission
from serve_app.frames import Priority
from serve_app.lane_key import LaneClass
from serve_app.lanes import Waiting
from serve_app.memory_level import MemoryLevel
from serve_app.plan import DEFAULT_RULE
from serve_app.pool_queue import ASSUMED_AROUND_S, MIN_SHARE_OF_OTHERS, PoolQueue
from serve_app.pressure import Pressure
from serve_app.routes import RouteTable

ROUTES = RouteTable(sample_plan(), sample_latency())
CRITICAL, NORMAL, DEFERRED = LaneClass.CRITICAL, LaneClass.NORMAL, LaneClass.DEFERRED
MAX_STARVE_S = 1.0


def new_pool(num_replicas: int = 1) -> PoolQueue:
    """A pool with idle replicas and nothing to do."""
    pool = PoolQueue("near", Pressure(num_rungs=2, slo_s=10.0), max_chunk_s=60.0)
    pool.credits.set_ready([f"near-{number}" for number in range(num_replicas)])
    return pool


def put(
    pool: PoolQueue, name: str, due_s: float, lane_class: LaneClass = NORMAL, *, now_s=0.0, size_hw=VGA, is_new=True
) -> Waiting:
    """Let a frame wait in a lane of this class."""
    (route,) = ROUTES.routes(DEFAULT_RULE, tuple(size_hw), Priority.CRITICAL)
    route = dataclasses.replace(route, lane=route.lane._replace(lane_class=lane_class))
    entry = Waiting(sample_frame(name, size_hw=size_hw), (route,), 0)
    entry.due_s = due_s
    pool.add(entry, (0,), now_s, is_new=is_new)
    return entry


def take_next(pool: PoolQueue, now_s: float = 0.0) -> tuple[str, bool] | None:
    """Take what is to be served next: its id, and whether as critical work."""
    choice = pool.next_lane(now_s, MAX_STARVE_S)
    if choice is None:
        return None
    lane, urgent = choice
    entry, _ = lane.pop()
    pool.popped(entry)
    if lane.key.lane_class is not CRITICAL:
        pool.others_served_s = now_s
    return entry.frame.frame_id, urgent


def test_classes_go_in_order_and_due_times_within():
    """Critical before normal before deferred, over all canvases."""
    pool = new_pool()
    put(pool, "d", 1.0, DEFERRED)
    put(pool, "n3", 3.0)
    put(pool, "n2", 2.0, size_hw=HD)
    put(pool, "c9", 9.0, CRITICAL)
    put(pool, "c8", 8.0, CRITICAL, size_hw=HD)

    assert [take_next(pool) for _ in range(6)] == [
        ("c8", True), ("c9", True), ("n2", False), ("n3", False), ("d", False), None,
    ]  # fmt: skip


def test_a_deferred_frame_that_must_begin_passes_the_normal_ones():
    """At its due time, not before; critical frames still pass it."""
    pool = new_pool()
    put(pool, "d", 5.0, DEFERRED, now_s=4.5)
    for name in ("n1", "n2"):
        put(pool, name, 1.0, now_s=4.5)
    put(pool, "c", 99.0, CRITICAL, now_s=4.9)

    assert [take_next(pool, 4.9), take_next(pool, 4.99)] == [("c", True), ("n1", False)]
    assert [take_next(pool, 5.0), take_next(pool, 5.0)] == [("d", False), ("n2", False)]


def test_starving_work_counts_as_critical_once():
    """After `max_starve_s` one chunk of the others goes before critical work; then critical work goes on."""
    pool = new_pool()
    for name in ("n1", "n2"):
        put(pool, name, 1.0, now_s=3.0)
    for name in ("c1", "c2", "c3"):
        put(pool, name, 1.0, CRITICAL, now_s=3.0)

    assert [take_next(pool, now_s) for now_s in (3.99, 4.0, 4.01, 4.99, 5.0)] == [
        ("c1", True), ("n1", True), ("c2", True), ("c3", True), ("n2", False),
    ]  # fmt: skip


def test_starvation_begins_when_something_begins_to_wait():
    """Not when the pool last served others: it may have had none for an hour."""
    pool = new_pool()
    for number in range(3):
        put(pool, f"c{number}", 1.0, CRITICAL)
    put(pool, "n", 1.0, now_s=3600.0)

    assert [take_next(pool, now_s) for now_s in (3600.0, 3600.9, 3601.0)] == [("c0", True), ("c1", True), ("n", True)]


def test_what_comes_again_keeps_the_clock_of_starvation():
    """A frame that takes another route, or lost its replica, has waited since it came."""
    pool = new_pool()
    put(pool, "c", 1.0, CRITICAL)
    pool.take_out(put(pool, "n", 1.0, now_s=10.0))
    put(pool, "n", 1.0, now_s=10.9, is_new=False)

    assert take_next(pool, 11.0) == ("n", True)


def test_memory_pauses_deferred_frames_however_late_they_are():
    """Neither due nor starving; they go on when memory is free again."""
    pool = new_pool()
    put(pool, "d", 0.0, DEFERRED)
    put(pool, "n", 50.0)
    pool.pressure.memory = MemoryLevel.CRITICAL
    assert [take_next(pool, 60.0), take_next(pool, 60.0)] == [("n", False), None]
    put(pool, "c", 50.0, CRITICAL)
    assert take_next(pool, 70.0) == ("c", True)
    pool.pressure.memory = MemoryLevel.HIGH

    assert take_next(pool, 80.0) == ("d", False)


def test_pieces_are_counted_by_class():
    """Coming, popped, and taken out."""
    pool = new_pool()
    entries = [
        put(pool, name, 1.0, lane_class) for name, lane_class in (("c", CRITICAL), ("n", NORMAL), ("d", DEFERRED))
    ]
    put(pool, "n2", 2.0)
    assert (pool.num_waiting, pool.num_pieces) == ([1, 2, 1], 4)

    assert pool.take_out(entries[1]) == 1
    assert pool.take_out(entries[1]) == 0
    assert take_next(pool) == ("c", True)
    assert (pool.num_waiting, pool.num_pieces) == ([0, 1, 1], 2)
    assert (entries[0].num_waiting, entries[0].num_running) == (0, 1)
    assert (entries[1].num_waiting, entries[1].num_running) == (0, 0)


def test_a_critical_frame_waits_for_what_runs_and_for_critical_work():
    """Shared by the replicas; normal work that waits in the lanes does not count."""
    pool = new_pool(2)
    piece_s = ROUTES.routes(DEFAULT_RULE, tuple(VGA), Priority.CRITICAL)[0].piece_s
    for name, lane_class in (("c1", CRITICAL), ("c2", CRITICAL), ("n", NORMAL), ("d", DEFERRED)):
        put(pool, name, 1.0, lane_class)
    assert pool.wait_for_critical_s(0.0) == pytest.approx(2 * piece_s / 2)
    place = pool.credits.place_for_critical(0.0, 0.0)
    pool.credits.sent(1, place, 0.5, urgent=False)

    assert pool.wait_for_critical_s(0.25) == pytest.approx((0.25 + 2 * piece_s) / 2)


def test_a_critical_frame_does_not_wait_for_what_it_overtakes():
    """A staged batch that is not critical goes after it: only what runs is ahead."""
    pool = new_pool(1)
    for number in (1, 2):
        pool.credits.sent(number, pool.credits.place_for_other(0.0, 0.0), 0.1, urgent=False)

    assert pool.wait_for_critical_s(0.0) == pytest.approx(0.1)


def test_another_frame_waits_for_what_is_due_before_it():
    """Critical work, and others due no later."""
    pool = new_pool(1)
    piece_s = ROUTES.routes(DEFAULT_RULE, tuple(VGA), Priority.CRITICAL)[0].piece_s
    put(pool, "c", 9.0, CRITICAL)
    for due_s in (1.0, 2.0, 3.0):
        put(pool, str(due_s), due_s)

    assert [pool.wait_for_other_s(due_s, 0.0) for due_s in (0.5, 1.5, 2.5, 3.5)] == pytest.approx(
        [piece_s, 2 * piece_s, 3 * piece_s, 4 * piece_s]
    )


def test_the_share_of_critical_work_slows_the_others():
    """Half of the last seconds went to critical frames: the others are predicted to take twice as long."""
    pool = new_pool(1)
    put(pool, "n", 1.0)
    calm_s = pool.wait_for_other_s(2.0, 100.0)
    pool.critical_came(2.5, 100.0)
    busy_s = pool.wait_for_other_s(2.0, 100.0)
    pool.critical_came(1e6, 100.0)
    full_s = pool.wait_for_other_s(2.0, 100.0)

    pool.feel_pressure(1000.0)

    assert (busy_s, full_s) == pytest.approx((2 * calm_s, calm_s / MIN_SHARE_OF_OTHERS))
    assert pool.wait_for_other_s(2.0, 1000.0) == pytest.approx(calm_s)


def test_the_call_around_a_batch_is_learned_slowly():
    """A twentieth of the way each time, and a stall counts as ten times the usual at most."""
    around_s = {}
    for took_s in (2 * ASSUMED_AROUND_S, 3600.0):
        pool = new_pool()
        pool.took(0.05, took_s)
        around_s[took_s] = pool.around_s / ASSUMED_AROUND_S

    assert list(around_s.values()) == pytest.approx([1.05, 1.45])


@pytest.mark.parametrize(
    ("busy_s", "around_s", "per_replica"),
    [(1.0, 0.01, 2), (0.01, 0.0099, 2), (0.01, 0.02, 3), (0.01, 0.0301, 5), (0.01, 0.3, 6), (0.0, 0.0, 2)],
    ids=["long runs", "as long as the call", "call twice a run", "thrice", "at most six", "no time at all"],
)
def test_as_many_batches_are_on_their_way_as_keep_a_device_busy(busy_s, around_s, per_replica):
    """One that runs, and as many runs as a call takes, rounded up: two at least, six at most."""
    pool = new_pool()
    pool.around_s = around_s
    pool.took(busy_s, around_s)

    assert pool.credits.per_replica == per_replica


def test_a_lane_is_held_until_its_time_or_until_it_matters_no_more():
    """A critical frame, or the last frame of a full batch, ends it; other frames do not."""
    ways = {"time": [], "normal": [(NORMAL, VGA)], "other lane": [(NORMAL, HD)] * 4, "critical": [(CRITICAL, HD)]}
    ways |= {"full": [(NORMAL, VGA)] * 3}
    held = {}
    for way, frames in ways.items():
        pool = new_pool()
        pool.hold(put(pool, "first", 9.0).lane, 5.0)
        for number, (lane_class, size_hw) in enumerate(frames):
            put(pool, str(number), 9.0, lane_class, size_hw=size_hw)
        held[way] = pool.hold_until_s

    assert held == {"time": 5.0, "normal": 5.0, "other lane": 5.0, "critical": math.inf, "full": math.inf}
    assert pool.held_lane is None


def test_the_wait_behind_all_is_at_least_the_wait_behind_what_is_due_before():
    """It is the cheap bound that admission asks first."""
    pool = new_pool(2)
    pool.credits.sent(1, pool.credits.place_for_other(0.0, 0.0), 0.1, urgent=False)
    for due_s, lane_class in ((1.0, NORMAL), (2.0, DEFERRED), (3.0, CRITICAL), (4.0, NORMAL)):
        put(pool, str(due_s), due_s, lane_class)
    waits_s = [pool.wait_for_other_s(due_s, 0.0) for due_s in (0.0, 1.5, 2.5, 9.0)]

    assert waits_s == sorted(set(waits_s))
    assert pool.wait_at_most_s(0.0) == pytest.approx(waits_s[-1])


def test_the_ladder_feels_the_wait_of_a_normal_frame_without_the_deferred():
    """Deferred work can wait; normal work of more than a third of the deadline is pressure."""
    piece_s = ROUTES.routes(DEFAULT_RULE, tuple(VGA), Priority.CRITICAL)[0].piece_s
    rungs = {}
    for lane_class in (NORMAL, DEFERRED):
        pool = new_pool()
        for number in range(int(3.6 / piece_s)):
            put(pool, str(number), 9.0, lane_class)
        pool.feel_pressure(0.5)
        rungs[lane_class] = pool.pressure.rung

    assert rungs == {NORMAL: 1, DEFERRED: 0}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "put", "out", "next"]),
            st.sampled_from(LaneClass),
            st.integers(0, 20),
            st.sampled_from([VGA, HD]),
        ),
        max_size=60,
    )
)
@settings(derandomize=True, database=None, deadline=None)
def test_the_backlog_is_the_work_that_waits(steps):
    """Whatever comes and goes: its seconds are counted while it waits, none are left when nothing does."""
    pool = new_pool()
    here: dict[str, Waiting] = {}
    for number, (step, lane_class, value, size_hw) in enumerate(steps):
        if step == "put":
            here[str(number)] = put(pool, str(number), float(value), lane_class, size_hw=size_hw)
        elif step == "out" and here:
            pool.take_out(here.pop(sorted(here)[value % len(here)]))
        elif step == "next" and here:
            name, _ = take_next(pool, 0.0)
            del here[name]
        by_class = {its: [e for e in here.values() if e.route.lane.lane_class is its] for its in LaneClass}
        seconds = {its: sum(e.route.piece_s for e in entries) for its, entries in by_class.items()}
        assert pool.num_waiting == [len(by_class[its]) for its in LaneClass]
        assert (pool.backlog.critical_s, pool.backlog.normal_s, pool.backlog.deferred_s) == pytest.approx(
            tuple(seconds.values()), abs=1e-9
        )
    for entry in here.values():
        pool.take_out(entry)
    assert (pool.backlog.total_s, pool.num_pieces) == (pytest.approx(0.0, abs=1e-9), 0)


def test_admission_only_asks():
    """Judging a frame changes nothing in the pool."""
    pool = new_pool()
    put(pool, "n", 1.0)
    before = (list(pool.num_waiting), pool.backlog.total_s, pool.pressure.rung, pool.credits.num_batches)
    frame = sample_frame("x", deadline_s=5.0)
    Admission(sample_plan(), {"near": pool}).judge(frame, ROUTES.routes(DEFAULT_RULE, tuple(VGA), Priority.NORMAL))

    assert (list(pool.num_waiting), pool.backlog.total_s, pool.pressure.rung, pool.credits.num_batches) == before
