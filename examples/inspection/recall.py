"""Recall of the bundled models on small defects in full-HD scenes: native size against a 640 square.

Usage: python examples/inspection/recall.py [--scenes N]

A defect is found if a box of its class overlaps it by IoU 0.5 or more, at the default score of 0.25. The scenes' seeds
were used neither for training nor for validation.
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from engines.detector import detect_placed, place_batch
from engines.onnx_run import OnnxEngine
from engines.spec import CanvasShape, WarmShape
from framelane_inspection.scenes import draw_scene
from framelane_inspection.scoring import FIGURES, figures
from serve_app.config import model_path

FULL_HD_HW = (1080, 1920)
CANVASES = (CanvasShape(1088, 1920), CanvasShape(640, 640))
MODELS = ("bundled:inspection-full", "bundled:inspection-light")
FIRST_SEED = 4_000_000


def main() -> None:
    """Print recall by model, canvas and size of defect, and the precision over all classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=12)
    options = parser.parse_args()
    scenes = [draw_scene(FULL_HD_HW, FIRST_SEED + index) for index in range(options.scenes)]
    table = Table("model", "canvas", *FIGURES, header_style="bold")
    for model in MODELS:
        engine = OnnxEngine(model_path(model))
        engine.warm([WarmShape(canvas, 1) for canvas in CANVASES])
        for canvas in CANVASES:
            placed = [place_batch([scene.image_hwc], canvas) for scene in scenes]
            found = [detect_placed(engine, batch).detections[0] for batch in placed]
            table.add_row(model.partition(":")[2], str(canvas), *figures(scenes, found))
        engine.close()
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
