"""How many replicas a pool should have: fast up, slow down, never to and fro."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.autoscaling import (
    QUICK_AVERAGE_S,
    STEADY_AVERAGE_S,
    Autoscaling,
    Demand,
    DemandMeter,
    PoolNeed,
    PoolScaler,
)

RULES = Autoscaling(max_wait_s=0.5, utilisation=0.8, up_after_s=1.0, down_after_s=20.0)
TICK_S = 0.5
CALM = Demand(0.0, 0.0)


def need(target: int, demand: float = 0.0, *, ready=None, least=1, most=8, served=None, waiting_s=0.0, deferred_s=0.0):
    """A pool whose averages agree, all of whose replicas are ready unless `ready` says otherwise."""
    even = Demand(demand, demand)
    given_s = even if served is None else Demand(served, served)
    return PoolNeed(target if ready is None else ready, target, least, most, even, given_s, waiting_s, deferred_s)


class Pool:
    """A pool that does what its scaler says at once, and what became of it, tick by tick."""

    def __init__(self, rules=RULES, *, target=1, **bounds):
        self.scaler = PoolScaler(rules)
        self.target, self.bounds = target, bounds
        self.now_s = 0.0
        self.changes: list[tuple[float, int]] = []

    def runs(self, seconds: float, demand: float = 0.0, **needs) -> int:
        """So long with this load; its size then."""
        for _ in range(round(seconds / TICK_S)):
            wanted = self.scaler.decide(need(self.target, demand, **self.bounds, **needs), self.now_s).num_replicas
            if wanted != self.target:
                self.changes.append((self.now_s, wanted))
                self.target = wanted
            self.now_s += TICK_S
        return self.target


def fluid_changes(load, seconds, rules=RULES, *, most=8, noise=0.0, seed=0):
    """When and to what a pool changes whose work of `load(t)` device seconds a second is metered as in service."""
    lots, meter, scaler = random.Random(seed), DemandMeter(), PoolScaler(rules)
    target, total_s, changes = 1, 0.0, []
    for tick in range(round(seconds / TICK_S)):
        now_s = tick * TICK_S
        total_s += max(0.0, load(now_s) + lots.gauss(0, noise)) * TICK_S
        demand = meter.read(total_s, now_s)
        wanted = scaler.decide(PoolNeed(target, target, 1, most, demand, demand, 0.0, 0.0), now_s).num_replicas
        if wanted != target:
            changes.append((now_s, target, wanted))
            target = wanted
    return changes


def test_a_load_that_lasts_is_answered_after_up_after_s_by_several_replicas_at_once():
    """2.8 device seconds a second keep four replicas busy for seven tenths of their time."""
    pool = Pool()

    pool.runs(10, 2.8)

    assert pool.changes == [(1.0, 4)]


def test_a_load_that_does_not_last_is_not():
    """What asks for more for less than `up_after_s` changes nothing."""
    pool = Pool()
    for _ in range(20):
        pool.runs(1.0, 2.8)
        pool.runs(1.0, 0.5)

    assert pool.changes == []


def test_a_pool_shrinks_to_the_most_that_was_wanted_in_the_whole_calm():
    """Not to what is wanted at its end."""
    pool = Pool()
    pool.runs(5, 2.8)
    pool.runs(10, 0.5)
    pool.runs(1, 1.3)
    grown_s = pool.now_s - 1

    pool.runs(40, 0.5)

    assert [size for _, size in pool.changes] == [4, 2, 1]
    calm_s, last_s = pool.changes[1][0], pool.changes[2][0]
    assert (calm_s, last_s) == (5.0 + RULES.down_after_s, grown_s + 0.5 + RULES.down_after_s)


def test_one_moment_of_need_within_the_calm_keeps_the_size():
    """Fewer must have been wanted during the whole of it."""
    pool = Pool()
    pool.runs(5, 2.8)
    for _ in range(5):
        pool.runs(RULES.down_after_s - 1, 0.5)
        pool.runs(TICK_S, 2.8)

    assert pool.target == 4
    assert len(pool.changes) == 1


def test_what_waits_too_long_wants_replicas_though_less_comes_than_is_thought():
    """1.4 device seconds that stay waiting would take three replicas to be done within half a second."""
    pool = Pool()
    pool.runs(5, 0.5)

    pool.runs(10, 0.5, waiting_s=1.4)

    assert pool.changes == [(6.5, 3)] or pool.target == 3


def test_a_burst_that_is_worked_off_wants_none():
    """What waits counts by its least of three seconds."""
    pool = Pool()
    pool.runs(5, 0.5)
    for _ in range(20):
        pool.runs(2.0, 0.5, waiting_s=3.0)
        pool.runs(1.0, 0.5, waiting_s=0.1)

    assert pool.changes == []


def test_while_replicas_start_what_waits_wants_no_further_ones():
    """It is theirs, and they have three seconds to work it off."""
    pool = Pool(target=4)

    pool.runs(30, 2.8, ready=1, waiting_s=5.0)
    pool.runs(2.5, 2.8, waiting_s=5.0)
    pool.runs(30, 2.8)

    assert pool.changes == []


def test_an_empty_pool_gets_its_first_replica_as_soon_as_anything_waits():
    """Without `up_after_s`: its frames have a cold start before them."""
    scaler = PoolScaler(RULES)

    assert scaler.decide(need(0, least=0), 0.0).num_replicas == 0
    assert scaler.decide(need(0, least=0, deferred_s=0.01), 0.5).num_replicas == 1


def test_an_idle_pool_that_may_be_empty_becomes_so_after_the_calm_and_another_keeps_its_least():
    """Nothing came, nothing waits, nothing is served."""
    for least in (0, 1, 2):
        pool = Pool(target=3, least=least)

        pool.runs(5, 1.7)
        pool.runs(RULES.down_after_s + 5)

        assert pool.target == least


def test_a_pool_that_serves_others_ladders_is_not_taken_away_from_them():
    """Nothing asks for it first, and yet two and a half replicas are busy."""
    pool = Pool(target=4)

    pool.runs(60, 0.1, served=2.0)

    assert pool.target == 3


def test_a_new_scaler_watches_before_it_shrinks():
    """Serve's controller has died: what was before is not known."""
    pool = Pool(target=6)

    pool.runs(RULES.down_after_s, 0.5)
    assert pool.changes == []
    pool.runs(1, 0.5)
    assert pool.changes == [(RULES.down_after_s, 1)]


def test_bounds_that_changed_hold_at_once():
    """Another plan was deployed."""
    scaler = PoolScaler(RULES)

    assert scaler.decide(need(6, 5.0, most=4), 0.0).num_replicas == 4
    assert scaler.decide(need(1, 0.0, least=2), 0.5).num_replicas == 2


def test_a_step_from_once_to_four_times_is_answered_within_six_seconds_and_taken_back_after_the_calm():
    """The averages take three seconds for most of it; nothing is wanted twice."""
    changes = fluid_changes(lambda now_s: 2.8 if 30 <= now_s < 90 else 0.7, 200)

    ups = [change for change in changes if change[2] > change[1]]
    assert ups[-1][2] == 4
    assert 30 < ups[-1][0] <= 36
    downs = [change for change in changes if change[2] < change[1]]
    assert downs[-1][2] == 1
    assert 90 + RULES.down_after_s <= downs[0][0]
    assert downs[-1][0] <= 90 + STEADY_AVERAGE_S + RULES.down_after_s + 1


@pytest.mark.parametrize("busy", [0.5, 0.9, 1.0, 1.5, 1.9, 2.0, 2.95, 3.0, 4.05])
@pytest.mark.parametrize("seed", range(3))
def test_a_steady_load_settles_wherever_it_lies(busy, seed):
    """Around whole numbers as well, with a tenth of noise: in twenty minutes at most once up by chance, and back."""
    load = busy * RULES.utilisation
    changes = fluid_changes(lambda _: load, 1200, noise=0.1 * load, seed=seed)

    assert len([change for change in changes if change[0] > 30]) <= 2


@settings(max_examples=60, deadline=None)
@given(
    period_s=st.floats(2, 400),
    mean=st.floats(0.2, 4),
    swing=st.floats(0, 1),
    down_after_s=st.sampled_from([5.0, 20.0, 60.0]),
    noise=st.sampled_from([0.0, 0.1]),
)
def test_a_sine_of_any_period_turns_a_pool_at_most_twice_in_its_calm(period_s, mean, swing, down_after_s, noise):
    """And a pool that grew keeps its size for the calm: no flapping."""
    rules = Autoscaling(down_after_s=down_after_s)
    seconds = 600

    changes = fluid_changes(
        lambda now_s: mean * (1 + swing * math.sin(2 * math.pi * now_s / period_s)), seconds, rules, noise=noise
    )

    is_up = [after > before for _, before, after in changes]
    turns = sum(one != other for one, other in itertools.pairwise(is_up))
    assert turns <= 2 * seconds / down_after_s
    for (at_s, before, after), (next_s, _, then) in itertools.pairwise(changes):
        if after > before and then < after:
            assert next_s - at_s >= down_after_s - TICK_S - rules.up_after_s
    if period_s <= down_after_s:
        # The averages know the first wave after a while; then its crest is never out of the window.
        settled = [change for change in changes if change[0] > 2 * STEADY_AVERAGE_S + 2 * down_after_s + period_s]
        assert all(after > before for _, before, after in settled)


POINTS = st.tuples(
    st.floats(0, 20), st.floats(0, 20), st.floats(0, 20), st.floats(0, 30), st.integers(0, 12), st.floats(0.05, 15)
)


@settings(max_examples=200, deadline=None)
@given(points=st.lists(POINTS, min_size=1, max_size=60), least=st.integers(0, 4), spare=st.integers(1, 6))
def test_whatever_comes_the_bounds_hold_and_nothing_shrinks_within_the_calm(points, least, spare):
    """Any load, any number of ready replicas, any time between two decisions."""
    scaler, most = PoolScaler(RULES), least + spare
    target, now_s = max(1, least), 0.0
    sizes: list[tuple[float, int]] = []
    for quick, steady, served, waiting_s, num_ready, later_s in points:
        pool = PoolNeed(
            num_ready, target, least, most, Demand(quick, steady), Demand(served, served), waiting_s, waiting_s / 2
        )
        wanted = scaler.decide(pool, now_s)
        assert least <= wanted.num_replicas <= most
        assert wanted.reason
        if wanted.num_replicas < target:
            assert now_s >= RULES.down_after_s
            grown = [at_s for at_s, size in sizes if size > wanted.num_replicas and now_s - at_s < RULES.down_after_s]
            assert not grown, "it grew beyond this within the calm"
        if wanted.num_replicas > target:
            sizes.append((now_s, wanted.num_replicas))
        target = wanted.num_replicas
        now_s += later_s


def test_the_meter_forgets_what_is_longer_ago_than_an_average():
    """It begins at zero, and a step shows in full after three and after fifteen seconds."""
    meter = DemandMeter()
    total_s, read = 0.0, {}
    for tick in range(81):
        now_s = tick * TICK_S
        total_s += (2.0 if now_s <= 20 else 0.5) * TICK_S if tick else 0.0
        read[now_s] = meter.read(total_s, now_s)

    assert read[0.0] == CALM
    assert read[QUICK_AVERAGE_S].quick == pytest.approx(2.0)
    assert read[QUICK_AVERAGE_S].steady == pytest.approx(2.0 * QUICK_AVERAGE_S / STEADY_AVERAGE_S)
    assert read[20.0] == pytest.approx((2.0, 2.0))
    assert read[20.0 + QUICK_AVERAGE_S].quick == pytest.approx(0.5)
    assert read[20.0 + STEADY_AVERAGE_S] == pytest.approx((0.5, 0.5))


def test_the_meter_takes_readings_at_any_time():
    """Twice at one moment, and after a long silence: then over all of it."""
    meter = DemandMeter()

    assert meter.read(5.0, 100.0) == CALM
    assert meter.read(5.0, 100.0) == CALM
    assert meter.read(65.0, 160.0) == pytest.approx((1.0, 1.0))
