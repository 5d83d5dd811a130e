"""Measures how long every warmed shape of a plan keeps its device, on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np

from engines.base import Engine
from engines.spec import WarmShape
from serve_app.latency import Latency, LatencyKey, LatencyTable, Origin
from serve_app.plan import Bucket, Plan
from serve_app.plan_machine import joined
from serve_app.pool_engines import MakeEngines

# (bucket, shape, what was measured): for a progress bar.
OnShape = Callable[[Bucket, WarmShape, Latency], None]


def num_shapes(plan: Plan) -> int:
    """How many shapes `profile_plan` measures."""
    return sum(len(bucket.warm_shapes()) for bucket in plan.buckets)


def profile_plan(plan: Plan, make_engines: MakeEngines, *, repeats: int, on_shape: OnShape) -> LatencyTable:
    """Time each warmed shape of each bucket, one after the other, on noise.

    Args:
        plan: whose shapes.
        make_engines: makes the engines of a pool.
        repeats: timed runs a shape, 1 or more, after the warm-up.
        on_shape: called after each shape.

    Returns:
        The median of each shape's runs, network and boxes together, and their mean distance from it.
    """
    entries, devices = {}, []
    for pool in plan.pools:
        with closing(make_engines(plan, pool.name)) as engines:
            devices.append(engines.device.facts().name)
            for bucket in plan.buckets_of(pool.name):
                engine = engines.by_bucket[bucket.name]
                engine.warm(bucket.warm_shapes())
                for shape in bucket.warm_shapes():
                    latency = _timed(engine, shape, repeats)
                    entries[LatencyKey(bucket.model, shape.canvas, shape.batch)] = latency
                    on_shape(bucket, shape, latency)
                engine.close()
    return LatencyTable(joined(devices), Origin.MEASURED, entries)


def _timed(engine: Engine, shape: WarmShape, repeats: int) -> Latency:
    # Noise: a network takes as long for it as for a picture, and no box costs time.
    rng = np.random.default_rng(0)
    batch_nhwc = rng.integers(0, 256, (shape.batch, shape.canvas.height, shape.canvas.width, 3), np.uint8)
    runs_s = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        engine.infer(batch_nhwc)
        runs_s.append(time.perf_counter() - began_s)
    median_s = statistics.median(runs_s)
    return Latency(median_s, statistics.fmean(abs(run_s - median_s) for run_s in runs_s), repeats)
