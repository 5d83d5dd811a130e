"""Fleets of cameras for tests of the planner."""

from __future__ import annotations

import random

from engines.spec import CanvasShape
from serve_app.frames import Priority
from serve_app.latency import Latency, LatencyKey, LatencyModel, LatencyTable, Origin
from serve_app.plan import Pool
from serve_app.planning.engine_memory import EngineMemory
from serve_app.planning.proposal import PlannedModel
from serve_app.planning.traffic import SizeRate, Traffic

Standards = tuple[tuple[tuple[int, int], int, float], ...]

# (height, width), how many cameras crop it, frames a second of each. What industrial cameras and their housings give:
# a few standard sizes, each trimmed a little to leave out a rail, a frame counter or a hood.
STANDARDS = (
    ((240, 320), 3, 15.0),
    ((480, 640), 8, 10.0),
    ((720, 1280), 8, 6.0),
    ((1280, 720), 3, 6.0),
    ((1080, 1920), 10, 5.0),
    ((1920, 1080), 4, 5.0),
    ((2160, 3840), 4, 1.0),
)
# No more is trimmed off each side.
MAX_TRIM_FRACTION = 0.02


# The same line without the upright 720p cameras, whose place others of the common sizes take.
FEWER_STANDARDS = tuple(
    (size, count + (3 if size == (480, 640) else 0), hz) for size, count, hz in STANDARDS if size != (1280, 720)
)

MODEL = PlannedModel("full", "bundled:inspection-full", stride_px=32, memory=EngineMemory(12_000_000))
POOL = Pool("cpu")
# Of a device on which a batch costs a fixed time and its pixels: batching pays, less and less.
CALL_S, SECONDS_A_PX = 2e-3, 2e-9


def batching_latency() -> LatencyModel:
    """A device that gains from batches."""
    canvases = [CanvasShape(32, 32), CanvasShape(8192, 8192)]
    entries = {
        LatencyKey("full", canvas, batch): Latency(CALL_S + SECONDS_A_PX * canvas.num_px * batch, 1e-4, 9)
        for canvas in canvases
        for batch in (1, 2, 4, 8)
    }
    return LatencyModel(LatencyTable("a test", Origin.ESTIMATED, entries))


def clustered_fleet(seed: int = 40, standards: Standards = STANDARDS) -> Traffic:
    """Forty cameras, each with a size of its own: standard sizes, trimmed by up to 2 %."""
    rng = random.Random(seed)
    fleet: list[SizeRate] = []
    taken: set[tuple[int, int]] = set()
    for (height, width), count, rate_hz in standards:
        for index in range(count):
            size_hw = (height, width)
            while size_hw in taken:
                trims = (rng.random() * MAX_TRIM_FRACTION for _ in range(2))
                size_hw = (round(height * (1 - next(trims))), round(width * (1 - next(trims))))
            taken.add(size_hw)
            priority = Priority.CRITICAL if index == 1 and height < 1000 else Priority.NORMAL
            fleet.append(SizeRate(size_hw, rate_hz, priority, camera=f"cam-{len(fleet):02d}"))
    return tuple(fleet)


def scattered_fleet(seed: int = 41) -> Traffic:
    """Forty cameras whose sizes have nothing to do with each other, from 320×240 to 3840×2160, both orientations."""
    rng = random.Random(seed)
    fleet = []
    for index in range(40):
        long_side, aspect = rng.randint(320, 3840), rng.choice([3 / 4, 9 / 16, 4 / 5, 1.0])
        size_hw = (max(240, round(long_side * aspect)), long_side)
        size_hw = size_hw if rng.random() < 0.7 else size_hw[::-1]
        fleet.append(SizeRate(size_hw, rng.choice([1.0, 2.0, 5.0, 10.0]), camera=f"cam-{index:02d}"))
    return tuple(fleet)
