"""The level of one device: up at once, down step by step, never to and fro."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.memory_level import MARGIN_FRACTION, DeviceMemory, MemoryLevel, MemoryMarks

NORMAL, HIGH, CRITICAL, SHED = MemoryLevel
MARKS = MemoryMarks(0.8, 0.9, 0.95, calm_s=5.0)
# What lies below, on and above each mark and its margin; None: the device does not say.
USED = (None, 0.1, 0.77, 0.79, 0.8, 0.85, 0.87, 0.89, 0.9, 0.92, 0.94, 0.95, 1.0, 1.2)
LOOKS = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.5, 5.0, 60.0]), st.sampled_from(USED)), max_size=60)


def levels(*looks: tuple[float, float | None], marks: MemoryMarks = MARKS) -> list[MemoryLevel]:
    """The level after each look (at, used)."""
    device = DeviceMemory(marks)
    return [device.looked(used, at_s) for at_s, used in looks]


@pytest.mark.parametrize(
    ("used", "level"),
    [(0.0, NORMAL), (0.799, NORMAL), (0.8, HIGH), (0.899, HIGH), (0.9, CRITICAL), (0.95, SHED), (1.5, SHED)],
)
def test_a_mark_that_is_reached_counts_at_once(used, level):
    """From any level below it, without a dwell: the next allocation may fail."""
    assert levels((0.0, used)) == [level]
    assert levels((0.0, 0.1), (0.0, used)) == [NORMAL, level]


def test_levels_come_back_one_after_the_other():
    """Each needs its own calm, however little is used."""
    told = levels(*((float(second), 0.99 if second == 0 else 0.1) for second in range(18)))

    assert told == [*[SHED] * 6, *[CRITICAL] * 5, *[HIGH] * 5, *[NORMAL] * 2]


@pytest.mark.parametrize(("used", "comes_back"), [(0.879, True), (0.88, False), (0.899, False)])
def test_only_what_lies_a_margin_below_the_mark_is_calm(used, comes_back):
    """A device that swings around its mark holds one level."""
    assert pytest.approx(0.02) == MARGIN_FRACTION
    told = levels((0.0, 0.9), *((float(second), used) for second in range(1, 20)))

    assert told[-1] is (HIGH if comes_back else CRITICAL)


def test_a_peak_begins_the_calm_anew():
    """Calm is without a break."""
    told = levels((0.0, 0.9), (1.0, 0.85), (5.0, 0.89), (5.9, 0.85), (10.8, 0.85), (10.9, 0.85))

    assert told == [CRITICAL] * 5 + [HIGH]


def test_a_device_that_does_not_say_is_normal_and_becomes_so():
    """Nothing is known against it; and a level does not stay for ever because a driver fell silent."""
    assert levels((0.0, None), (9.0, None)) == [NORMAL, NORMAL]
    assert levels((0.0, 0.85), (1.0, None), (6.0, None)) == [HIGH, HIGH, NORMAL]


@given(looks=LOOKS)
@settings(derandomize=True, database=None, deadline=None)
def test_a_level_is_up_at_once_and_down_after_calm_only(looks):
    """For any history: never below what is used now; down by one, and only after `calm_s` below the mark's margin."""
    device = DeviceMemory(MARKS)
    now_s, history = 0.0, []
    for gap_s, used in looks:
        now_s += gap_s
        before = device.level
        level = device.looked(used, now_s)
        history.append((now_s, used))
        wanted = MARKS.level_of(-1.0 if used is None else used)
        assert level >= wanted
        if level > before:
            assert level == wanted
        if level < before:
            assert level == before - 1
            bound = MARKS.begin_of(before) - MARGIN_FRACTION
            restless = [at_s for at_s, each in history if each is not None and each >= bound]
            assert now_s - max(restless, default=0.0) >= MARKS.calm_s


@given(looks=LOOKS)
@settings(derandomize=True, database=None, deadline=None)
def test_from_anywhere_calm_leads_back(looks):
    """Liveness: three levels, so three times `calm_s`, looked at once a second."""
    device = DeviceMemory(MARKS)
    now_s = 0.0
    for gap_s, used in looks:
        now_s += gap_s
        device.looked(used, now_s)
    for _ in range(3 * int(MARKS.calm_s) + 2):
        now_s += 1.0
        device.looked(0.1, now_s)

    assert device.level is NORMAL


@given(
    centre=st.sampled_from([0.8, 0.9, 0.95]),
    swings=st.lists(st.floats(-0.0199, 0.0199), min_size=1, max_size=100),
    gap_s=st.sampled_from([0.5, 1.0, 10.0]),
)
@settings(derandomize=True, database=None, deadline=None)
def test_what_swings_by_less_than_the_margin_does_not_flap(centre, swings, gap_s):
    """Around any mark: the level changes once at most, and that is up."""
    told = levels(*((number * gap_s, centre + swing) for number, swing in enumerate(swings)))

    assert sum(before is not after for before, after in itertools.pairwise(told)) <= 1
    assert told == sorted(told)


@given(looks=LOOKS, less=st.lists(st.floats(0, 0.5), min_size=60, max_size=60))
@settings(derandomize=True, database=None, deadline=None)
def test_who_uses_less_is_never_at_a_higher_level(looks, less):
    """Monotone: of two devices that were looked at together."""
    fuller, emptier = DeviceMemory(MARKS), DeviceMemory(MARKS)
    now_s = 0.0
    for (gap_s, used), share in zip(looks, less, strict=False):
        now_s += gap_s
        fuller.looked(used, now_s)
        emptier.looked(None if used is None else used - share, now_s)
        assert emptier.level <= fuller.level
