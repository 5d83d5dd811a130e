"""Fleets and plans of simulated GPUs that the simulator's benches share; every time in them is an estimate.

Values only: knows no clock and no file.
"""

from __future__ import annotations

import dataclasses
import math

from engines.spec import CanvasShape
from serve_app.latency import LatencyModel, LatencyTable
from serve_app.plan import Bucket, Limits, Plan, Pool
from serve_app.simulation.gpu_tables import figure_named, gpu_table
from serve_app.simulation.simulation_report import offered_use
from serve_app.simulation.traces import CameraGroup, FleetSpec

GPU_TABLE = "t4-yolo26n"
BATCHES = (1, 2, 4, 8)
# (height, width) of the cameras, their canvas, and their share of the fleet.
SIZES = (
    ((240, 320), CanvasShape(256, 320), 0.3),
    ((480, 640), CanvasShape(480, 640), 0.3),
    ((540, 960), CanvasShape(544, 960), 0.2),
    ((720, 1280), CanvasShape(736, 1280), 0.15),
    ((1080, 1920), CanvasShape(1088, 1920), 0.05),
)
# No frame is refused for want of room: here the devices are looked at.
LIMITS = Limits(max_waiting_frames=10**6, max_waiting_bytes=10**13)


def mixed_fleet(num_cameras: int, rate_hz: float, seconds: float, *, seed: int = 0) -> FleetSpec:
    """Cameras of five sizes, 5 % of their frames critical (250 ms), the others 1 s; the larger sizes are rarer."""
    groups = tuple(
        CameraGroup(f"h{size[0]}", max(1, round(share * num_cameras)), size, rate_hz, 0.05) for size, _, share in SIZES
    )
    return FleetSpec(groups, seconds, seed=seed)


def plan_of(num_replicas: int) -> Plan:
    """One pool of GPUs that all serve a bucket a size."""
    buckets = tuple(Bucket(f"h{size[0]}", "yolo", "gpu", (canvas,), BATCHES) for size, canvas, _ in SIZES)
    return Plan({"yolo": "yolo.onnx"}, (Pool("gpu", num_replicas, num_gpus=1.0),), buckets, limits=LIMITS)


def table_of(plan: Plan) -> LatencyTable:
    """The GPU's table, of which every time but one is an estimate."""
    return gpu_table(plan, {"yolo": figure_named(GPU_TABLE)})


def plan_for(fleet: FleetSpec, use: float) -> Plan:
    """The plan with as many GPUs as give at most this use with full batches."""
    one = plan_of(1)
    short = dataclasses.replace(fleet, duration_s=min(5.0, fleet.duration_s)).at_load(1.0)
    needed = offered_use(one, short, LatencyModel(table_of(one)))
    return plan_of(max(1, math.ceil(needed / use)))
