"""Recall of the full bundled model on small defects in 4K scenes: whole, shrunk, and in windows that are merged.

Usage: python examples/inspection/recall_4k.py [--scenes N]

Scored as in recall.py, on seeds of its own. The time is that of the fastest scene (what else runs on the machine only
adds to it), from the frame in memory to its boxes, on all cores; windows run one after the other.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from engines.base import Engine
from engines.boxes import DetectionLimits
from engines.detections import Detections
from engines.detector import detect_placed, place_batch
from engines.letterbox import Image
from engines.onnx_run import OnnxEngine
from engines.spec import CanvasShape, WarmShape
from engines.tiles import Window, crop, merge_tiles, tile_windows
from framelane_inspection.scenes import draw_scene
from framelane_inspection.scoring import FIGURES, figures
from serve_app.config import model_path

UHD_HW = (2160, 3840)
MODEL = "bundled:inspection-full"
FIRST_SEED = 5_000_000
# A 4K frame holds about 800 objects: the default of 300 boxes would cut the recall of the whole frame, not of a window.
LIMITS = DetectionLimits(max_boxes=3000)
WHOLE = (Window(0, 0, *UHD_HW),)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to detect on a 4K frame: windows of it, each on the same canvas."""

    name: str
    canvas: CanvasShape
    windows: tuple[Window, ...] = WHOLE

    def detect(self, engine: Engine, image_hwc: Image) -> Detections:
        """The boxes of a frame in its own px."""
        placed = (place_batch([crop(image_hwc, window)], self.canvas) for window in self.windows)
        found = [detect_placed(engine, batch).detections[0] for batch in placed]
        return merge_tiles(found, self.windows, UHD_HW, LIMITS)


def tiled(canvas: CanvasShape, overlap_px: int) -> Way:
    """Windows as large as the canvas."""
    return Way(f"tile, overlap {overlap_px}", canvas, tile_windows(UHD_HW, canvas, overlap_px))


WAYS = (
    Way("native", CanvasShape(2176, 3840)),
    Way("shrink", CanvasShape(1088, 1920)),
    tiled(CanvasShape(1088, 1920), 64),
    tiled(CanvasShape(1152, 1984), 128),
    tiled(CanvasShape(736, 1280), 64),
    tiled(CanvasShape(768, 1344), 64),
)


def main() -> None:
    """Print recall by way and size of defect, the precision over all classes, and the time per frame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=4)
    options = parser.parse_args()
    scenes = [draw_scene(UHD_HW, FIRST_SEED + index) for index in range(options.scenes)]
    table = Table("way", "canvas", "windows", "Mpx", *FIGURES, "s a frame", header_style="bold")
    for way in WAYS:
        engine = OnnxEngine(model_path(MODEL), limits=LIMITS)
        engine.warm([WarmShape(way.canvas, 1)])
        found, times_s = [], []
        for scene in scenes:
            started_s = time.perf_counter()
            found.append(way.detect(engine, scene.image_hwc))
            times_s.append(time.perf_counter() - started_s)
        engine.close()
        num_windows = len(way.windows)
        megapixels = f"{num_windows * way.canvas.num_px / 1e6:.1f}"
        shares = figures(scenes, found)
        table.add_row(way.name, str(way.canvas), str(num_windows), megapixels, *shares, f"{min(times_s):.2f}")
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
