"""Throughput of the whole path, client to client, against the same engine called in a bare loop.

Usage: python bench/throughput.py [--seconds S] [--rounds N]

Bare loop and service take turns on the same frames, so that a machine whose speed drifts hurts both alike; the ratio
is that of the medians over the rounds. The service runs with the default plan of `framelane stream`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence

from engines.detector import detect_placed, place_batch
from engines.letterbox import Image
from engines.onnx_run import OnnxEngine
from engines.spec import WarmShape, fitting_canvas
from framelane_inspection.scenes import draw_scene
from serve_app.client import Client
from serve_app.config import DEFAULT_MODEL, model_path
from serve_app.local_service import local_service
from serve_app.native_plan import native_plan

SIZES_HW = ((480, 640), (720, 1280), (1080, 1920))
NUM_FRAMES_A_SIZE = 4
STRIDE_PX = 32
# Enough that the replica never waits for the client.
NUM_IN_FLIGHT = 8


def main() -> None:
    """Print frames a second of both, round by round, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    scenes = [[draw_scene(size_hw, seed).image_hwc for seed in range(NUM_FRAMES_A_SIZE)] for size_hw in SIZES_HW]
    frames = [frame for group in zip(*scenes, strict=True) for frame in group]  # sizes interleaved
    engine = OnnxEngine(model_path(DEFAULT_MODEL))
    engine.warm([WarmShape(fitting_canvas(size_hw, STRIDE_PX), 1) for size_hw in SIZES_HW])
    plan = native_plan(DEFAULT_MODEL, SIZES_HW, STRIDE_PX)
    bare_hz, served_hz = [], []
    print(f"frames of {', '.join(f'{w}×{h}' for h, w in SIZES_HW)}, interleaved; {DEFAULT_MODEL} on ONNX Runtime")
    with local_service(plan) as client:
        one_cycle_hz = run_bare(engine, frames, 1)
        num_cycles = max(1, round(options.seconds * one_cycle_hz / len(frames)))
        run_served(client, frames, 1)
        for index in range(options.rounds):
            bare_hz.append(run_bare(engine, frames, num_cycles))
            served_hz.append(run_served(client, frames, num_cycles))
            figures = f"bare {bare_hz[-1]:.2f} frames/s, served {served_hz[-1]:.2f} frames/s"
            print(f"round {index + 1}: {figures}, ratio {served_hz[-1] / bare_hz[-1]:.3f}", flush=True)
    bare, served = statistics.median(bare_hz), statistics.median(served_hz)
    print(f"median: bare {bare:.2f} frames/s, served {served:.2f} frames/s, ratio {served / bare:.3f}")


def run_bare(engine: OnnxEngine, frames: Sequence[Image], num_cycles: int) -> float:
    """Frames a second of the engine in a loop: place, infer, boxes in source px."""
    began_s = time.monotonic()
    for frame in itertools.chain.from_iterable(itertools.repeat(frames, num_cycles)):
        detect_placed(engine, place_batch([frame], fitting_canvas(frame.shape[:2], STRIDE_PX)))
    return num_cycles * len(frames) / (time.monotonic() - began_s)


def run_served(client: Client, frames: Sequence[Image], num_cycles: int) -> float:
    """Frames a second of the service, from sending to answer, with `NUM_IN_FLIGHT` frames on their way."""
    return asyncio.run(_run_served(client, frames, num_cycles))


async def _run_served(client: Client, frames: Sequence[Image], num_cycles: int) -> float:
    to_send = enumerate(itertools.chain.from_iterable(itertools.repeat(frames, num_cycles)))
    began_s = time.monotonic()

    async def worker() -> None:
        for index, frame in to_send:
            await client.detect_async(frame, camera=f"camera-{index % len(frames)}", slo_s=60)

    await asyncio.gather(*(worker() for _ in range(NUM_IN_FLIGHT)))
    return num_cycles * len(frames) / (time.monotonic() - began_s)


if __name__ == "__main__":
    main()
