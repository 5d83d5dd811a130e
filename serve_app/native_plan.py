"""A plan for given frame sizes: a canvas of each size, so that every frame is inferred at its own.

The planner of a fleet weighs rates, memory and deadlines; this is what a few cameras on one CPU need.
"""

from __future__ import annotations

from collections.abc import Iterable

from engines.spec import CanvasShape, fitting_canvas
from serve_app.plan import Bucket, Plan, Pool

MODEL_NAME = "model"
POOL_NAME = "cpu"
# On a CPU a batch takes as long as its frames one by one; two only save a call.
BATCHES_UP_TO_PX = ((1280 * 736, (1, 2)),)
LARGE_BATCHES = (1,)


def native_plan(model: str, sizes_hw: Iterable[tuple[int, int]], stride_px: int) -> Plan:
    """A bucket with one canvas for each different size, on one CPU pool.

    Args:
        model: path of the model, or `bundled:NAME`.
        sizes_hw: (height, width) px of the cameras' frames.
        stride_px: the model's stride.
    """
    canvases = sorted({fitting_canvas(size_hw, stride_px) for size_hw in sizes_hw}, key=lambda c: (c.num_px, c))
    buckets = tuple(
        Bucket(f"b{canvas}", MODEL_NAME, POOL_NAME, (canvas,), _batches(canvas)) for canvas in canvases
    )  # fmt: skip
    return Plan(models={MODEL_NAME: model}, pools=(Pool(POOL_NAME),), buckets=buckets)


def _batches(canvas: CanvasShape) -> tuple[int, ...]:
    return next((batches for most_px, batches in BATCHES_UP_TO_PX if canvas.num_px <= most_px), LARGE_BATCHES)
