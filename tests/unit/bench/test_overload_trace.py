"""The traffic of the overload benchmark."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from overload_trace import CRITICAL, FLEET, NORMAL, SIZES_HW, mix_cycle, trace

CAPACITY_HZ = 30.0
CAMERAS = {camera: kind for kind in FLEET for camera in kind.cameras}
LOADS = pytest.mark.parametrize("load", [0.5, 0.9, 1.5, 2.5])


def by_camera(sends):
    """The sends of each camera, in order."""
    return {camera: [send for send in sends if send.camera == camera] for camera in CAMERAS}


@LOADS
def test_the_fleet_offers_the_load_times_the_capacity(load):
    """However it is scaled; each camera's phase moves it by less than a frame."""
    sends = trace(load, CAPACITY_HZ, 40, seed=1)

    assert len(sends) == pytest.approx(load * CAPACITY_HZ * 40, abs=len(CAMERAS))


@LOADS
def test_every_camera_keeps_its_share(load):
    """All rates are scaled by one factor."""
    counts = Counter(send.camera for send in trace(load, CAPACITY_HZ, 400, seed=1))
    fleet_hz = sum(kind.rate_hz for kind in CAMERAS.values())

    assert {camera: count / (load * CAPACITY_HZ * 400) for camera, count in counts.items()} == {
        camera: pytest.approx(kind.rate_hz / fleet_hz, abs=1 / (load * CAPACITY_HZ * 400))
        for camera, kind in CAMERAS.items()
    }


def test_each_camera_sends_evenly_from_a_phase_of_its_own():
    """Equal gaps, no two cameras in step, the first frame within the first gap, none at or after the end."""
    sends = by_camera(trace(1.0, CAPACITY_HZ, 40, seed=1))

    phases = []
    for camera, own in sends.items():
        gap_s = 35.5 / CAPACITY_HZ / CAMERAS[camera].rate_hz
        assert [later.at_s - one.at_s for one, later in pairwise(own)] == pytest.approx([gap_s] * (len(own) - 1))
        assert 0 <= own[0].at_s < gap_s
        assert own[-1].at_s < 40 <= own[-1].at_s + gap_s
        phases.append(own[0].at_s / gap_s)
    assert len({round(phase, 6) for phase in phases}) == len(CAMERAS)


def test_frames_are_ordered_by_time():
    """A player needs no sorting."""
    times_s = [send.at_s for send in trace(2.5, CAPACITY_HZ, 40, seed=1)]

    assert times_s == sorted(times_s)


def test_a_seed_gives_one_trace_and_another_seed_another():
    """The baseline gets the same frames, and figures of several seeds can be compared."""
    assert trace(0.9, CAPACITY_HZ, 10, seed=1) == trace(0.9, CAPACITY_HZ, 10, seed=1)
    assert trace(0.9, CAPACITY_HZ, 10, seed=1) != trace(0.9, CAPACITY_HZ, 10, seed=2)


def test_about_15_percent_are_critical_but_none_of_the_large_camera():
    """Drawn by the seed; over thousands of frames the share is what it should be."""
    sends = trace(2.5, CAPACITY_HZ, 400, seed=1)
    critical = {send.camera for send in sends if send.priority == CRITICAL}
    others = [send for send in sends if send.camera != "large-1"]

    assert critical == set(CAMERAS) - {"large-1"}
    assert sum(send.priority == CRITICAL for send in others) / len(others) == pytest.approx(0.15, abs=0.01)


def test_which_frames_are_critical_does_not_depend_on_the_load():
    """A camera's n-th frame is the same one at every load."""
    slow, fast = (by_camera(trace(load, CAPACITY_HZ, 40, seed=1)) for load in (0.5, 2.5))

    for camera, own in slow.items():
        assert [send.priority for send in own] == [send.priority for send in fast[camera][: len(own)]]


def test_deadlines_follow_from_priority_and_camera():
    """Critical 250 ms, normal 1 s, the large camera 5 s."""
    sends = trace(1.0, CAPACITY_HZ, 40, seed=1)

    assert {(send.priority, send.camera == "large-1", send.slo_s) for send in sends} == {
        (CRITICAL, False, 0.25),
        (NORMAL, False, 1.0),
        (NORMAL, True, 5.0),
    }


def test_sizes_are_height_and_width():
    """The tall camera is taller than wide."""
    assert SIZES_HW == ((240, 320), (360, 640), (540, 960), (540, 405), (1080, 1920))


def test_no_time_has_no_frames():
    """The empty trace is a trace."""
    assert trace(1.0, CAPACITY_HZ, 0, seed=1) == []


def test_a_cycle_of_the_mix_has_every_size_in_proportion_and_interleaved():
    """20 : 9 : 4 : 2 : 0.5 frames a second, for two seconds."""
    cycle = mix_cycle()

    assert Counter(cycle) == dict(zip(SIZES_HW, (40, 18, 8, 4, 1), strict=True))
    assert cycle[35] == (1080, 1920)
    assert all(set(cycle[start : start + 9]) >= {(240, 320), (360, 640)} for start in range(0, 63, 9))
