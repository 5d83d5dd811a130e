"""The ladder's steps: watermarks, dwell, hysteresis, and what memory forces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.memory_level import MemoryLevel
from serve_app.pressure import (
    DOWN_DWELL_S,
    HIGH_WAIT_FRACTION,
    LOW_WAIT_FRACTION,
    UP_DWELL_S,
    Pressure,
)

SLO_S = 10.0
HIGH_S, LOW_S = HIGH_WAIT_FRACTION * SLO_S, LOW_WAIT_FRACTION * SLO_S
MIDDLE_S = (HIGH_S + LOW_S) / 2


def pressure_at(rung: int, *, num_rungs: int = 3) -> Pressure:
    """A pressure whose queue has forced so many steps, the last at 0 s."""
    pressure = Pressure(num_rungs=num_rungs, slo_s=SLO_S)
    for step in range(rung):
        pressure.waits(HIGH_S + 1, (step - rung + 1) * DOWN_DWELL_S)
    assert pressure.rung == rung
    return pressure


def test_a_long_queue_goes_one_step_down_a_dwell():
    """However long the queue and however often it is told; never below the last rung."""
    pressure = Pressure(num_rungs=2, slo_s=SLO_S)
    rungs = []
    for tick in range(6):
        pressure.waits(100 * SLO_S, tick * DOWN_DWELL_S / 2)
        rungs.append(pressure.rung)

    assert rungs == [1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(("wait_s", "rung"), [(HIGH_S, 1), (HIGH_S + 0.001, 2), (MIDDLE_S, 1), (LOW_S, 1)])
def test_between_the_watermarks_nothing_changes(wait_s, rung):
    """Only above the high one it goes down, and only below the low one up: it does not flap."""
    pressure = pressure_at(1)
    for now_s in (5.0, 50.0):
        pressure.waits(wait_s, now_s)
        if now_s == 5.0:
            first = pressure.rung

    assert first == rung
    assert pressure.rung >= rung


def test_calm_leads_back_one_step_a_dwell():
    """Below the low watermark for a whole dwell, then one step for each further dwell, down to no step at all."""
    pressure = pressure_at(2)
    told_s = [1.0, 0.9 + UP_DWELL_S, 1 + UP_DWELL_S, 0.9 + 2 * UP_DWELL_S, 1 + 2 * UP_DWELL_S, 99.0]
    rungs = []
    for now_s in told_s:
        pressure.waits(0.0, now_s)
        rungs.append(pressure.rung)

    assert rungs == [2, 2, 1, 1, 0, 0]


@pytest.mark.parametrize(("silence_s", "rung"), [(UP_DWELL_S, 2), (2.5 * UP_DWELL_S, 1), (1e6, 0)])
def test_after_a_silence_it_goes_up_by_all_the_dwells_that_passed(silence_s, rung):
    """Nobody asked while nothing came: the first frame after an hour is not degraded for what was before."""
    pressure = pressure_at(3)
    pressure.waits(0.0, 1.0)
    pressure.waits(0.0, 1.0 + silence_s)

    assert pressure.rung == rung


@pytest.mark.parametrize("wait_s", [LOW_S, MIDDLE_S, HIGH_S])
def test_a_queue_that_grows_meanwhile_begins_the_calm_anew(wait_s):
    """Calm is without a break: at the low watermark it is over."""
    pressure = pressure_at(1)
    pressure.waits(0.0, 1.0)
    pressure.waits(wait_s, 1.0 + UP_DWELL_S / 2)
    pressure.waits(0.0, 1.0 + UP_DWELL_S)
    pressure.waits(0.0, 1.0 + 1.9 * UP_DWELL_S)
    still = pressure.rung
    pressure.waits(0.0, 1.0 + 2 * UP_DWELL_S)

    assert (still, pressure.rung) == (1, 0)


@pytest.mark.parametrize(
    ("level", "rung", "pauses_deferred"),
    [
        (MemoryLevel.NORMAL, 0, False),
        (MemoryLevel.HIGH, 1, False),
        (MemoryLevel.CRITICAL, 3, True),
        (MemoryLevel.SHED, 3, True),
    ],
)
def test_memory_sets_a_floor(level, rung, pauses_deferred):
    """At once, without a dwell, and it goes as it came."""
    pressure = pressure_at(0)
    pressure.memory = level

    assert (pressure.rung, pressure.pauses_deferred) == (rung, pauses_deferred)
    pressure.memory = MemoryLevel.NORMAL
    assert (pressure.rung, pressure.pauses_deferred) == (0, False)


def test_the_higher_of_queue_and_memory_counts():
    """Memory that is high asks for one rung; a queue that asks for two is not lowered by it."""
    pressure = pressure_at(2)
    pressure.memory = MemoryLevel.HIGH

    assert pressure.rung == 2


@pytest.mark.parametrize("level", list(MemoryLevel))
def test_without_a_ladder_there_is_no_rung_to_go_to(level):
    """Neither queue nor memory can ask for what the plan has not."""
    pressure = Pressure(num_rungs=0, slo_s=SLO_S)
    pressure.memory = level
    pressure.waits(100 * SLO_S, 1.0)

    assert pressure.rung == 0


@given(
    told=st.lists(st.tuples(st.floats(0, 3), st.sampled_from([0.0, LOW_S, MIDDLE_S, HIGH_S, 2 * HIGH_S])), max_size=60)
)
@settings(derandomize=True, database=None, deadline=None)
def test_steps_are_a_dwell_apart(told):
    """For any history: the rung stays on the ladder; one step down a dwell, only when high; up only after calm."""
    pressure = Pressure(num_rungs=3, slo_s=SLO_S)
    now_s, stepped_s, not_calm_s = 0.0, -100.0, 0.0
    for gap_s, wait_s in told:
        now_s += gap_s
        before = pressure.rung
        pressure.waits(wait_s, now_s)
        if wait_s >= LOW_S:
            not_calm_s = now_s
        step = pressure.rung - before
        assert 0 <= pressure.rung <= 3
        if step > 0:
            assert (step, wait_s > HIGH_S, now_s - stepped_s >= DOWN_DWELL_S) == (1, True, True)
        elif step < 0:
            assert wait_s < LOW_S
            assert now_s - max(stepped_s, not_calm_s) >= -step * UP_DWELL_S
        if step:
            stepped_s = now_s
