"""Profiling: each warmed shape of each bucket, timed on a clock that only the fake engine moves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from serve_samples import HD, PORTRAIT, UHD, VGA, sample_plan

from engines.cpu_device import CpuDevice
from engines.fake import FakeEngine
from engines.spec import CanvasShape, WarmShape
from serve_app import profile
from serve_app.latency import Latency, LatencyKey, Origin
from serve_app.plan import Bucket
from serve_app.pool_engines import PoolEngines
from serve_app.profile import num_shapes, profile_plan

# A step that the fake clock's floats hold exactly.
TICK_S = 2**-10


class Clock:
    """Stands for the module `time`: it moves when an engine sleeps, and only then."""

    def __init__(self):
        self.now_s = 0.0

    def perf_counter(self):
        """The time that was slept."""
        return self.now_s

    def sleep(self, seconds):
        """Pass the time."""
        self.now_s += seconds


class TimedEngine(FakeEngine):
    """Takes the seconds that a test says, run by run; warming takes an hour, which no measurement may contain.

    Attributes:
        batches: what it was given, in order.
        events: `warm`, `infer` and `close`, in order.
    """

    def __init__(self, clock, run_s):
        super().__init__({}, clock.sleep)
        self._clock = clock
        self._run_s = run_s
        self.batches = []
        self.events = []

    def warm(self, shapes):
        """See `Engine.warm`."""
        self.events.append("warm")
        self._clock.sleep(3600.0)
        super().warm(shapes)

    def infer(self, batch_nhwc):
        """See `Engine.infer`."""
        self.events.append("infer")
        self.batches.append(batch_nhwc)
        self._clock.sleep(next(self._run_s))
        return super().infer(batch_nhwc)

    def close(self):
        """See `Engine.close`."""
        self.events.append("close")
        super().close()


class NamedDevice:
    """A device of this name."""

    def __init__(self, name):
        self._name = name

    def facts(self):
        """See `Device.facts`."""
        return dataclasses.replace(CpuDevice().facts(), name=self._name)

    def close(self):
        """Nothing is held."""


class Bench:
    """The engines that profiling made, by bucket, and what it told of its progress."""

    def __init__(self, monkeypatch, run_s=()):
        self.clock = Clock()
        monkeypatch.setattr(profile, "time", self.clock)
        self._run_s = iter(run_s)
        self.engines = {}
        self.told = []

    def _make(self, plan, pool):
        # The pool before has let go of its memory.
        assert all(engine.events[-1] == "close" for engine in self.engines.values())
        made = {bucket.name: TimedEngine(self.clock, self._run_s) for bucket in plan.buckets_of(pool)}
        self.engines.update(made)
        return PoolEngines(made, NamedDevice(f"the device of {pool}"), lambda: None)

    def profile(self, plan, repeats):
        """The table of a plan."""
        return profile_plan(plan, self._make, repeats=repeats, on_shape=lambda *told: self.told.append(told))


def one_bucket_plan(*batches, canvases=(VGA,)):
    """A plan of one pool and one bucket."""
    pools = sample_plan().pools[:1]
    return sample_plan(pools=pools, buckets=(Bucket("vga", "full", "near", canvases, batches),))


def test_each_warmed_shape_of_each_bucket_is_measured_once(monkeypatch):
    """Bucket by bucket, in the plan's order; the table names machine and origin."""
    bench = Bench(monkeypatch, [TICK_S] * 100)
    plan = sample_plan()

    table = bench.profile(plan, repeats=1)

    assert (table.machine, table.origin) == ("the device of far + the device of near", Origin.MEASURED)
    expected = [(VGA, 1), (VGA, 2), (VGA, 4), (PORTRAIT, 1), (PORTRAIT, 2), (PORTRAIT, 4), (HD, 1), (HD, 2), (UHD, 1)]
    assert list(table.entries) == [LatencyKey("full", *shape) for shape in expected]
    assert num_shapes(plan) == len(expected)
    assert [engine.infer_calls for engine in bench.engines.values()] == [
        list(bucket.warm_shapes()) for bucket in plan.buckets
    ]


def test_progress_is_told_shape_by_shape(monkeypatch):
    """With the bucket, the shape and what was measured, in the order of measuring."""
    bench = Bench(monkeypatch, [TICK_S, 3 * TICK_S])
    plan = one_bucket_plan(1, 2)

    table = bench.profile(plan, repeats=1)

    (bucket,) = plan.buckets
    assert bench.told == [
        (bucket, WarmShape(VGA, 1), table.entries[LatencyKey("full", VGA, 1)]),
        (bucket, WarmShape(VGA, 2), table.entries[LatencyKey("full", VGA, 2)]),
    ]
    assert [latency.run_s for _, _, latency in bench.told] == [TICK_S, 3 * TICK_S]


@pytest.mark.parametrize(
    ("ticks", "median", "spread"),
    [([7], 7, 0), ([1, 3], 2, 1), ([2, 100, 4], 4, 98 / 3), ([5, 5, 5, 5], 5, 0), ([1, 2, 4, 9], 3, 2.5)],
    ids=["one run", "two", "an outlier", "all the same", "even"],
)
def test_the_median_counts_and_the_mean_distance_from_it(monkeypatch, ticks, median, spread):
    """One run that something disturbed moves the spread, not the time."""
    bench = Bench(monkeypatch, [tick * TICK_S for tick in ticks])

    (latency,) = bench.profile(one_bucket_plan(1), repeats=len(ticks)).entries.values()

    assert latency == Latency(median * TICK_S, pytest.approx(spread * TICK_S), len(ticks))


def test_warming_is_not_measured_and_every_engine_is_closed(monkeypatch):
    """Each engine is warmed once before its first run, and gone before the next one is warmed."""
    bench = Bench(monkeypatch, [TICK_S] * 100)

    table = bench.profile(sample_plan(), repeats=2)

    assert {latency.run_s for latency in table.entries.values()} == {TICK_S}
    for name, num_infers in (("vga", 12), ("hd", 4), ("uhd", 2)):
        assert bench.engines[name].events == ["warm", *["infer"] * num_infers, "close"]


def test_batches_are_what_an_engine_may_get(monkeypatch):
    """Contiguous bytes of the exact shape, height first, and noise: no run is cheaper for an empty picture."""
    bench = Bench(monkeypatch, [TICK_S] * 10)
    canvas = CanvasShape(64, 96)

    bench.profile(one_bucket_plan(1, 2, canvases=(canvas,)), repeats=2)

    batches = bench.engines["vga"].batches
    assert [batch.shape for batch in batches] == [(1, 64, 96, 3)] * 2 + [(2, 64, 96, 3)] * 2
    for batch in batches:
        assert (batch.dtype, batch.flags.c_contiguous) == (np.uint8, True)
        assert (batch.min(), batch.max()) == (0, 255)


def test_an_engine_that_fails_ends_the_profile(monkeypatch):
    """A table with holes would be taken for a whole one."""
    bench = Bench(monkeypatch, [TICK_S])

    with pytest.raises(StopIteration):
        bench.profile(one_bucket_plan(1, 2), repeats=1)

    assert len(bench.told) == 1
