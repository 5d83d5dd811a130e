"""Latency tables of GPUs by name, for planning and simulating without one: a published figure, the rest estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engines.spec import CanvasShape
from serve_app.errors import InvalidPlanError
from serve_app.latency import Latency, LatencyKey, LatencyTable, Origin
from serve_app.plan import Plan

PUBLISHED_CANVAS = CanvasShape(640, 640)
# The share of a batch-1 640×640 run that does not grow with its pixels: launches, small layers, the head. A line
# through the published YOLOv4 figures of one GPU (V100; 320: 123 fps, 416: 96, 512: 83, 608: 62) leaves 31 % at 608.
FIXED_FRACTION = 0.3
# Nobody publishes the scatter; what TensorRT's own tool shows on an idle GPU is of this size.
SPREAD_FRACTION = 0.05


@dataclass(frozen=True, slots=True)
class PublishedFigure:
    """One published time: a model on a GPU, 640×640, batch 1, FP16 with TensorRT.

    Attributes:
        gpu, model: as people call them.
        run_s: seconds.
        source: who says so.
    """

    gpu: str
    model: str
    run_s: float
    source: str


FIGURES: Mapping[str, PublishedFigure] = {
    "t4-yolo26n": PublishedFigure("NVIDIA T4", "YOLO26n", 0.0017, "Ultralytics"),
    "t4-yolo26s": PublishedFigure("NVIDIA T4", "YOLO26s", 0.0026, "Ultralytics"),
}


def figure_named(name: str) -> PublishedFigure:
    """The figure of this name; raises `InvalidPlanError` for any other."""
    if name not in FIGURES:
        raise InvalidPlanError(f"latency table: got {name!r}, allowed are a file or one of: {', '.join(FIGURES)}")
    return FIGURES[name]


def estimated_s(figure: PublishedFigure, canvas: CanvasShape, batch: int) -> float:
    """Seconds of a batch: the fixed share once, the rest in proportion to all its pixels.

    Exact for the published shape; an estimate for every other. It leaves out that larger launches fill a GPU better,
    so it errs on the side of too little gain from batching.
    """
    pixels = batch * canvas.num_px / PUBLISHED_CANVAS.num_px
    return figure.run_s * (FIXED_FRACTION + (1 - FIXED_FRACTION) * pixels)


def gpu_table(plan: Plan, figures: Mapping[str, PublishedFigure]) -> LatencyTable:
    """A table for every shape of a plan, whose models are taken to be these: model name in the plan to figure.

    Raises:
        InvalidPlanError: a model of the plan has no figure, or one is given that the plan does not have.
    """
    for name in figures:
        if name not in plan.models:
            raise InvalidPlanError(f"latency: model: got {name!r}, allowed are the plan's: {', '.join(plan.models)}")
    missing = [name for name in plan.models if name not in figures]
    if missing:
        raise InvalidPlanError(f"latency: got no table for model {', '.join(missing)}; give one: MODEL=TABLE")
    entries = {}
    for bucket in plan.buckets:
        for canvas in bucket.canvases:
            for batch in bucket.batches:
                run_s = estimated_s(figures[bucket.model], canvas, batch)
                entries[LatencyKey(bucket.model, canvas, batch)] = Latency(run_s, SPREAD_FRACTION * run_s, 0)
    return LatencyTable(_label(figures), Origin.ESTIMATED, entries)


def _label(figures: Mapping[str, PublishedFigure]) -> str:
    used = {f"{f.model} {f.run_s * 1000:g} ms": f for f in figures.values()}
    gpus = sorted({figure.gpu for figure in used.values()})
    sources = sorted({figure.source for figure in used.values()})
    return (
        f"{', '.join(gpus)}, TensorRT FP16 ({', '.join(used)} at 640x640 published by {', '.join(sources)}; "
        "every other size and batch ESTIMATED from it)"
    )
