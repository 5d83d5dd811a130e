"""How many frames a second of the fleet's mix the bare engine can do: what `overload.py` calls a load of 1.

Usage: python bench/capacity.py [--seconds S] [--model M] [--threads N]

Prints frames a second. Every frame alone, at the smallest canvas that holds its size, with nothing around the engine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from overload_trace import SIZES_HW, mix_cycle

from engines.detector import detect_placed, place_batch
from engines.onnx_run import OnnxEngine
from engines.spec import WarmShape, fitting_canvas
from framelane_inspection.scenes import draw_scene
from serve_app.config import DEFAULT_MODEL, model_path


def main() -> None:
    """Print frames a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="measure at least so long, in whole cycles")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a path or bundled:NAME")
    parser.add_argument("--threads", type=int, default=0, help="of one inference; 0: one a core")
    options = parser.parse_args()
    print(bare_capacity_hz(options.model, options.seconds, options.threads))


def measured_capacity_hz(model: str, seconds: float, num_threads: int) -> float:
    """`bare_capacity_hz` in a process of its own, whose memory and threads are gone when it returns."""
    command = [sys.executable, __file__, "--model", model, "--seconds", str(seconds), "--threads", str(num_threads)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def bare_capacity_hz(model: str, seconds: float, num_threads: int) -> float:
    """Frames a second of the engine in a loop over the fleet's mix: place, infer, boxes in source px."""
    engine = OnnxEngine(model_path(model), num_threads=num_threads)
    canvases = {size_hw: fitting_canvas(size_hw, engine.model.stride_px) for size_hw in SIZES_HW}
    images = {size_hw: draw_scene(size_hw, seed).image_hwc for seed, size_hw in enumerate(SIZES_HW)}
    engine.warm([WarmShape(canvas, 1) for canvas in canvases.values()])
    cycle = mix_cycle()
    num_frames = 0
    began_s = time.monotonic()
    while time.monotonic() - began_s < seconds:
        for size_hw in cycle:
            detect_placed(engine, place_batch([images[size_hw]], canvases[size_hw]))
        num_frames += len(cycle)
    return num_frames / (time.monotonic() - began_s)


if __name__ == "__main__":
    main()
