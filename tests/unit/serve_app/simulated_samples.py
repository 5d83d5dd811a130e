"""Small worlds for tests of the simulator: one GPU whose times are known exactly."""

from __future__ import annotations

import random

import numpy as np

from engines.spec import CanvasShape
from serve_app.frames import Priority
from serve_app.latency import Latency, LatencyKey, LatencyModel, LatencyTable, Origin
from serve_app.plan import Bucket, Limits, Plan, Pool, Scheduling
from serve_app.scheduler import Scheduler
from serve_app.simulation.simulate import Simulation
from serve_app.simulation.simulated_calls import SimulatedCalls
from serve_app.simulation.traces import Trace

VGA, HD = CanvasShape(480, 640), CanvasShape(736, 1280)
NO_CALLS = SimulatedCalls(before_s=0.0, after_s=0.0)
# What a frame takes on a canvas: the first alone, each further one of a batch.
# Two by two tiles of VGA cover it, with 64 px in common.
FOUR_VGA = CanvasShape(896, 1216)
FIRST_S = {VGA: 0.010, HD: 0.030, FOUR_VGA: 0.036}
FURTHER_S = {VGA: 0.004, HD: 0.020, FOUR_VGA: 0.036}


def sample_plan(*, replicas: int = 1, batches=(1, 2, 4), canvases=(VGA,), slo_s=(0.25, 1.0), **changes) -> Plan:
    """One model on one pool; a bucket a canvas."""
    buckets = tuple(Bucket(f"h{canvas.height}", "yolo", "gpu", (canvas,), batches) for canvas in canvases)
    changes.setdefault("limits", Limits(max_waiting_frames=10**6, max_waiting_bytes=10**13))
    return Plan(
        {"yolo": "yolo.onnx"},
        (Pool("gpu", replicas),),
        buckets,
        slo_s={Priority.CRITICAL: slo_s[0], Priority.NORMAL: slo_s[1]},
        scheduling=changes.pop("scheduling", Scheduling()),
        **changes,
    )


def exact_table(plan: Plan, *, factor: float = 1.0, spread_fraction: float = 0.0) -> LatencyTable:
    """The seconds above for all shapes of a plan."""
    entries = {}
    for bucket in plan.buckets:
        for canvas in bucket.canvases:
            for batch in bucket.batches:
                run_s = factor * (FIRST_S[canvas] + FURTHER_S[canvas] * (batch - 1))
                entries[LatencyKey("yolo", canvas, batch)] = Latency(run_s, spread_fraction * run_s, 1)
    return LatencyTable("a test", Origin.ESTIMATED, entries)


def sample_trace(at_s, *, slo_s=None, critical=(), canvas=VGA, duration_s=None) -> Trace:
    """Frames of one camera and size; `critical` are the rows that are."""
    at_s = np.asarray(at_s, np.float64)
    rows = np.zeros(len(at_s), np.int32)
    is_critical = np.isin(np.arange(len(at_s)), critical)
    slos_s = np.full(len(at_s), np.nan if slo_s is None else slo_s)
    return Trace(
        at_s, rows, rows, is_critical, slos_s, ("cam-1",), (tuple(canvas),), duration_s or float(at_s[-1]) + 0.1
    )  # fmt: skip


def poisson_trace(rate_hz: float, num_frames: int, seed: int = 0, **options) -> Trace:
    """Frames of no pattern at all."""
    return sample_trace(np.cumsum(np.random.default_rng(seed).exponential(1 / rate_hz, num_frames)), **options)


def simulated(plan, trace, *, truth=None, believed=None, calls=NO_CALLS, failures=(), seed=0):
    """One run of the real scheduler."""
    truth = truth or exact_table(plan)
    scheduler = Scheduler(plan, LatencyModel(believed or truth))
    lots = random.Random(seed)
    return Simulation(plan, scheduler, LatencyModel(truth), lots.gauss, calls=calls, failures=failures).run(trace)
