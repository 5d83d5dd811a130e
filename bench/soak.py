"""Does memory stay flat? Two hours of simulated time with the production scheduler, then minutes of the real service.

Usage: python bench/soak.py [--simulated-seconds S] [--seconds S] [--skip-simulated] [--skip-real] [--samples FILE]

Simulated: the fleet of `overload.py` at 0.9 of the capacity; what the scheduler's and the simulator's own code has
allocated (tracemalloc), without the columns that the simulator keeps of every frame. Latencies are assumed. Real: four
cameras and the light bundled model, after 60,000 tiny frames in which caches and arenas of the processes grow to their
size; the anonymous memory of router, replicas and this client, and the object store.

Prints mean and slope in MiB an hour, with its standard error, after a warm-up: a quarter of the simulated time, half of
the real one, in which heaps reach their largest size in steps of some MiB. A slope is flat if it is
below 2 % of the mean an hour, or within twice its error. Exit status 1: something grows, over 400 s or more.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import linecache
import os
import random
import sys
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import ray
from cpu_use import role_of, snapshot
from overload_plan import overload_plan
from overload_trace import trace as overload_trace
from plain_serve import session_name
from prediction import trace_of
from ray._private.internal_api import memory_summary
from slope import WARM_UP_FRACTION, Slope, slope_of

from framelane_inspection.scenes import draw_scene
from serve_app.client import Client
from serve_app.config import DEFAULT_MODEL
from serve_app.decisions import Decisions
from serve_app.latency import Latency, LatencyKey, LatencyModel, LatencyTable, Origin
from serve_app.local_service import local_service
from serve_app.native_plan import native_plan
from serve_app.plan import Plan
from serve_app.scheduler import Scheduler
from serve_app.simulation.simulate import Simulation
from serve_app.simulation.simulation_report import offered_use

LOAD = 0.9
FOLDER = Path(__file__).parent.parent
MIB, HOUR_S = 2**20, 3600.0
# Of the mean, an hour: doubled in two days at the soonest, which nobody would miss.
FLAT_FRACTION_AN_HOUR = 0.02
REAL_WARM_UP_FRACTION = 0.5
NUM_SIMULATED_SAMPLES = 48
# Caches and arenas of a process that has just started grow for minutes: a shorter run convicts nobody.
LEAST_S = 400.0
# A CPU's core, roughly: seconds a pixel by model, and what a batch takes beside.
SECONDS_A_PX = {"full": 1.0e-7, "light": 3.0e-8}
SECONDS_A_BATCH = 0.002
SPREAD_FRACTION = 0.1
SIZES_HW = ((240, 320), (360, 640), (480, 640), (540, 405))
STRIDE_PX = 32
NUM_IN_FLIGHT = 6
CRITICAL_EVERY = 7
SAMPLE_S = 2.0
# Ray's processes and the allocator settle within so many calls, whatever their frames' size: an hour of a slow camera.
TINY_HW = (64, 64)
NUM_SETTLING = 60_000
NUM_SETTLING_IN_FLIGHT = 24
STORE = "object store"
# Asking for it makes every process write down all its references: seldom, or it is that which is measured.
SAMPLES_A_LOOK_AT_STORE = 15

Samples = Sequence[tuple[float, float]]


class WatchedScheduler(Scheduler):
    """The scheduler, and somebody who looks at it every so often on its own clock."""

    def __init__(self, plan: Plan, latency: LatencyModel, every_s: float, look: Callable[[float], None]) -> None:
        """Take how often `look(now_s)` is to be called."""
        super().__init__(plan, latency)
        self._every_s = every_s
        self._look = look
        self._due_s = 0.0

    def decide(self, now_s: float) -> Decisions:
        """See `Scheduler.decide`."""
        if now_s >= self._due_s:
            self._look(now_s)
            self._due_s = now_s + self._every_s
        return super().decide(now_s)


def main() -> int:
    """Print the slopes; 1 if any is not flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated-seconds", type=float, default=2 * HOUR_S)
    parser.add_argument("--seconds", type=float, default=1200.0, help="of the real service, half of them warm-up")
    parser.add_argument("--skip-simulated", action="store_true")
    parser.add_argument("--skip-real", action="store_true")
    parser.add_argument("--samples", type=Path, help="a file for the samples of the real service, as JSON")
    options = parser.parse_args()
    are_flat = []
    if not options.skip_simulated:
        are_flat.append(told("scheduler, simulated", simulated(options.simulated_seconds)))
    if not options.skip_real:
        held = real(options.seconds)
        are_flat += [told(name, samples, REAL_WARM_UP_FRACTION) for name, samples in held.items()]
        if options.samples:
            options.samples.write_text(json.dumps(held))
    return 0 if all(are_flat) else 1


def told(name: str, samples: Samples, warm_up_fraction: float = WARM_UP_FRACTION) -> bool:
    """Print one slope; whether it is flat."""
    slope = slope_of(samples, warm_up_fraction)
    is_short = samples[-1][0] - samples[0][0] < LEAST_S
    is_flat = slope.is_flat(FLAT_FRACTION_AN_HOUR * slope.mean / HOUR_S)
    verdict = "flat" if is_flat else "too short to tell" if is_short else "GROWS"
    print(f"{name:22}{_figures(slope)}  {verdict}", flush=True)
    return is_flat or is_short


def _figures(slope: Slope) -> str:
    an_hour, error = (HOUR_S * value / MIB for value in (slope.per_s, slope.error_per_s))
    return f"{slope.mean / MIB:9.2f} MiB {an_hour:+9.3f} ± {error:.3f} MiB/h  ({slope.num_samples} samples)"


def simulated(seconds: float) -> Samples:
    """What the code of the service has allocated, in bytes by simulated second."""
    plan = overload_plan(None, ladder=True)
    table = assumed_table(plan)
    hertz = 10.0
    use = offered_use(plan, trace_of(overload_trace(1.0, hertz, 60.0, 1), 60.0), LatencyModel(table))
    frames = trace_of(overload_trace(LOAD, hertz / use, seconds, 1), seconds)
    samples: list[tuple[float, float]] = []
    scheduler = WatchedScheduler(
        plan, LatencyModel(table), seconds / NUM_SIMULATED_SAMPLES,
        lambda now_s: samples.append((now_s, allocated_bytes())),
    )  # fmt: skip
    lots = random.Random(1)  # noqa: S311 (a simulation, no secrets)
    simulation = Simulation(plan, scheduler, LatencyModel(table), lots.gauss)
    began_s = time.monotonic()
    tracemalloc.start()
    run = simulation.run(frames)
    tracemalloc.stop()
    print(
        f"{len(frames):,} frames in {seconds / HOUR_S:.2f} simulated hours at {LOAD:g} of the capacity, "
        f"{run.in_time.mean():.1%} in time, played in {time.monotonic() - began_s:.0f} s", flush=True,
    )  # fmt: skip
    return samples


def assumed_table(plan: Plan) -> LatencyTable:
    """Seconds in proportion to pixels."""
    entries = {}
    for bucket in plan.buckets:
        for canvas, batch in bucket.warm_shapes():
            run_s = SECONDS_A_BATCH + SECONDS_A_PX[bucket.model] * canvas.num_px * batch
            entries[LatencyKey(bucket.model, canvas, batch)] = Latency(run_s, SPREAD_FRACTION * run_s, 8)
    return LatencyTable("a CPU, assumed", Origin.ESTIMATED, entries)


def allocated_bytes() -> float:
    """What the service's modules hold now, the simulator's events and frames included, its columns not."""
    total_bytes = 0
    for statistic in tracemalloc.take_snapshot().statistics("lineno"):
        frame = statistic.traceback[0]
        is_ours = Path(frame.filename).is_relative_to(FOLDER / "serve_app")
        is_column = frame.filename.endswith("simulation_run.py") or "tolist()" in linecache.getline(
            frame.filename, frame.lineno
        )
        if is_ours and not is_column:
            total_bytes += statistic.size
    return float(total_bytes)


def real(seconds: float) -> Mapping[str, Samples]:
    """Bytes by second: of the router, each replica, this client, and in the object store."""
    plan = native_plan(DEFAULT_MODEL, (*SIZES_HW, TINY_HW), STRIDE_PX)
    samples: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    with local_service(plan) as client:
        num_frames = asyncio.run(_soaked(client, seconds, samples))
    print(f"{num_frames:,} frames in {seconds:.0f} s, {NUM_IN_FLIGHT} in flight", flush=True)
    return samples


async def _soaked(client: Client, seconds: float, samples: defaultdict[str, list[tuple[float, float]]]) -> int:
    await _settled(client)
    images = [draw_scene(size_hw, seed).image_hwc for seed, size_hw in enumerate(SIZES_HW)]
    end_s = time.monotonic() + seconds
    num_frames = 0

    async def worker() -> None:
        nonlocal num_frames
        while time.monotonic() < end_s:
            number = num_frames = num_frames + 1
            image = np.roll(images[number % len(images)], number, axis=1)
            priority = "normal" if number % CRITICAL_EVERY else "critical"
            camera = f"camera-{number % len(images)}"
            await client.submit_async(image, camera=camera, priority=priority, slo_s=5.0)

    async def watch() -> None:
        session, address = session_name(), ray.get_runtime_context().gcs_address
        for number in itertools.count():
            await asyncio.sleep(SAMPLE_S)
            now_s = time.monotonic()
            if now_s > end_s:
                break
            held = await asyncio.to_thread(_held, session)
            if number % SAMPLES_A_LOOK_AT_STORE == 0:
                held[STORE] = await asyncio.to_thread(_store_bytes, address)
            for name, num_bytes in held.items():
                samples[name].append((now_s, num_bytes))

    await asyncio.gather(watch(), *(worker() for _ in range(NUM_IN_FLIGHT)))
    return num_frames


async def _settled(client: Client) -> None:
    """Send the frames after which memory is looked at."""
    image_hwc, numbers = np.zeros((*TINY_HW, 3), np.uint8), iter(range(NUM_SETTLING))

    async def worker() -> None:
        for number in numbers:
            await client.submit_async(image_hwc, camera=f"camera-{number % len(SIZES_HW)}", slo_s=60.0)

    await asyncio.gather(*(worker() for _ in range(NUM_SETTLING_IN_FLIGHT)))


def _held(session: str) -> dict[str, float]:
    """Bytes that each process of the service holds now."""
    gc.collect()
    held = {"client": _anonymous_bytes(os.getpid())}
    for pid, process in snapshot(os.getpid(), session).items():
        role = role_of(process.command)
        if role in ("engine", "router"):
            held[f"{role} {pid}"] = _anonymous_bytes(pid)
    return held


def _anonymous_bytes(pid: int) -> float:
    """Resident memory that is the process's own: neither files nor the shared object store."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024.0 * int(line.split()[1])
    raise RuntimeError(f"process {pid}: /proc tells no RssAnon; a Linux of 4.5 or newer is needed")


def _store_bytes(address: str) -> float:
    """What lies in the object store, to the MiB."""
    # "Plasma memory usage 0 MiB, 2 objects, 0.0% full, …"
    summary: str = memory_summary(address, stats_only=True)  # type: ignore[no-untyped-call]
    lines = summary.splitlines()
    line = next(line for line in lines if "Plasma memory usage" in line)
    return MIB * float(line.partition("usage ")[2].split()[0])


if __name__ == "__main__":
    sys.exit(main())
