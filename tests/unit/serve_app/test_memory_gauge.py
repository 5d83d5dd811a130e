"""Levels of pools and limits of replicas, from what they report of their devices."""

from __future__ import annotations

import dataclasses

import pytest
from router_world import DEVICE_FACTS, report

from serve_app.memory_gauge import CPU_USABLE_FRACTION, FORGET_S, MemoryGauge
from serve_app.memory_level import MemoryLevel, MemoryMarks
from serve_app.replica_credits import MAX_CREDITS_PER_REPLICA

NORMAL, HIGH, CRITICAL, SHED = MemoryLevel
ALL = MAX_CREDITS_PER_REPLICA
MARKS = MemoryMarks(0.8, 0.9, 0.95, calm_s=5.0)


def using(replica, percent, *, uuid=None, node="node", broken=()):
    """The report of a replica whose device is so full; with a UUID it is a GPU."""
    used = percent if uuid or percent is None else percent * CPU_USABLE_FRACTION
    device = dataclasses.replace(DEVICE_FACTS, total_bytes=100, used_bytes=used, uuid=uuid)
    return dataclasses.replace(report(replica), node=node, device=device, broken=broken)


def gauge_of(*reports, pool="near", now_s=0.0):
    """A gauge that has heard these reports of one pool."""
    gauge = MemoryGauge(MARKS)
    gauge.reported(pool, reports, now_s)
    return gauge


@pytest.mark.parametrize(
    ("percents", "level", "limits"),
    [
        pytest.param((10, 10), NORMAL, (ALL, ALL), id="room"),
        pytest.param((10, 85), NORMAL, (ALL, 1), id="one-high"),
        pytest.param((10, 92), NORMAL, (ALL, 0), id="one-critical"),
        pytest.param((99, 10), NORMAL, (0, ALL), id="one-full"),
        pytest.param((85, 92), HIGH, (ALL, 0), id="high-and-critical"),
        pytest.param((85, 85), HIGH, (ALL, ALL), id="both-high"),
        pytest.param((99, 99), SHED, (ALL, ALL), id="both-full"),
        pytest.param((99, None), NORMAL, (0, ALL), id="one-does-not-say"),
    ],
)
def test_a_pool_is_as_full_as_its_emptiest_device(percents, level, limits):
    """As long as one has room normal frames go there; the fuller ones get less of them, or none."""
    gauge = gauge_of(*(using(f"near-{number}", percent) for number, percent in enumerate(percents)))

    assert gauge.level("near") is level
    assert gauge.limits("near") == {f"near-{number}": limit for number, limit in enumerate(limits)}


def test_replicas_on_one_gpu_share_its_level():
    """Of two pools as well: the later look counts for both, and another node's GPU of the same name is another."""
    gauge = MemoryGauge(MARKS)
    gauge.reported("near", [using("near-0", 10, uuid="GPU-1")], 0.0)
    gauge.reported("far", [using("far-0", 99, uuid="GPU-1"), using("far-1", 10, uuid="GPU-1", node="other")], 0.5)

    assert (gauge.level("near"), gauge.level("far")) == (SHED, NORMAL)
    assert gauge.limits("far") == {"far-0": 0, "far-1": ALL}


def test_replicas_on_a_cpu_have_levels_of_their_own():
    """Their limits may be their own."""
    gauge = gauge_of(using("near-0", 99), using("near-1", 10))

    assert gauge.limits("near") == {"near-0": 0, "near-1": ALL}


def test_on_a_cpu_all_levels_come_before_ray_ends_workers():
    """At 95 % of what there is; a GPU has no such guard."""
    almost = dataclasses.replace(DEVICE_FACTS, total_bytes=1000, used_bytes=949)
    cpu = dataclasses.replace(report("near-0"), device=almost)
    gpu = dataclasses.replace(cpu, device=dataclasses.replace(almost, uuid="GPU-1"))

    assert (gauge_of(cpu).level("near"), gauge_of(gpu).level("near")) == (SHED, CRITICAL)


@pytest.mark.parametrize("total_bytes", [0, None])
def test_a_device_without_a_size_stays_normal(total_bytes):
    """There is nothing to divide by."""
    device = dataclasses.replace(DEVICE_FACTS, total_bytes=total_bytes, used_bytes=99)

    assert gauge_of(dataclasses.replace(report("near-0"), device=device)).level("near") is NORMAL


def test_a_pool_without_replicas_is_normal():
    """Known or not."""
    assert gauge_of().level("near") is NORMAL
    assert MemoryGauge(MARKS).level("far") is NORMAL
    assert MemoryGauge(MARKS).limits("far") == {}


def test_a_broken_replica_takes_nothing_while_others_do():
    """Whatever room its device seems to have."""
    gauge = gauge_of(using("near-0", 85), using("near-1", 10, broken=(("vga", "no memory"),)))

    assert gauge.limits("near") == {"near-0": ALL}
    assert gauge.level("near") is HIGH


def test_broken_replicas_alone_go_on():
    """They serve their other buckets, and refuse the broken one with its reason."""
    gauge = gauge_of(*(using(f"near-{number}", 10, broken=(("vga", "no memory"),)) for number in range(2)))

    assert gauge.limits("near") == {"near-0": ALL, "near-1": ALL}


def test_a_replica_that_just_broke_is_left_out_at_once():
    """Until it reports that it is well; the last one that breaks has nobody to hand over to."""
    gauge = gauge_of(using("near-0", 10), using("near-1", 10))

    assert gauge.broke("near", "near-1")
    assert gauge.limits("near") == {"near-0": ALL}
    assert not gauge.broke("near", "near-0")
    assert gauge.limits("near") == {"near-0": ALL, "near-1": ALL}
    gauge.reported("near", [using("near-0", 10, broken=(("vga", "still"),)), using("near-1", 10)], 1.0)
    assert gauge.limits("near") == {"near-1": ALL}


def test_a_device_keeps_its_level_while_its_replica_misses_a_round():
    """Hysteresis is not lost by a late answer; but a replica that has gone for good leaves nothing behind."""
    gauge = gauge_of(using("near-0", 85))
    gauge.reported("near", [], 1.0)
    assert gauge.reported("near", [using("near-0", 79)], 2.0) is HIGH

    gauge.reported("near", [], 3.0)
    gauge.reported("near", [using("near-1", 10)], 3.0 + FORGET_S)
    assert gauge.reported("near", [using("near-1", 10)], 4.0 + FORGET_S) is NORMAL
    assert gauge.reported("near", [using("near-0", 79)], 5.0 + FORGET_S) is NORMAL


def test_a_pool_that_is_not_heard_of_for_long_keeps_its_devices():
    """Another one's reports forget none that is in use."""
    gauge = gauge_of(using("near-0", 99))
    gauge.reported("far", [using("far-0", 10)], 2 * FORGET_S)

    assert gauge.level("near") is SHED


def test_the_fullest_device_is_told_in_words():
    """For the log."""
    gauge = gauge_of(using("near-0", 10, uuid="GPU-1"), using("near-1", 93, uuid="GPU-2"), using("near-2", None))

    assert gauge.fullest("near") == "replica near-1: 93% of its device's memory"
    assert gauge.fullest("far") == "no device says what it uses"
