"""Frames of any size to boxes in their own pixels: what replica and command line do around an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.base import Engine, EngineOutput
from engines.detections import Detections
from engines.letterbox import FILL, Image, Placement, place, placement, to_source
from engines.spec import CanvasShape


@dataclass(frozen=True, slots=True)
class PlacedBatch:
    """Frames on their canvas, ready for an engine.

    Attributes:
        batch_nhwc: uint8 `(N, height, width, 3)`; may be a view of the one frame in it.
        placements: where each frame lies; None for a slot that carries no frame.
    """

    batch_nhwc: npt.NDArray[np.uint8]
    placements: tuple[Placement | None, ...]


def place_batch(images_hwc: Sequence[Image | None], canvas: CanvasShape) -> PlacedBatch:
    """Place frames on a canvas.

    Args:
        images_hwc: uint8 `(height, width, 3)` BGR each, only read; None keeps a slot grey, so that a batch whose frame
            turned out to be unreadable keeps its warmed shape.
        canvas: the canvas of the whole batch.
    """
    placements = tuple(None if image is None else placement(_size_hw(image), canvas) for image in images_hwc)
    only = images_hwc[0] if len(images_hwc) == 1 else None
    if only is not None and _size_hw(only) == canvas and only.flags.c_contiguous:
        return PlacedBatch(only[None], placements)  # nothing to place: no copy
    batch_nhwc = np.empty((len(images_hwc), canvas.height, canvas.width, 3), np.uint8)
    for slot_hwc, image_hwc, where in zip(batch_nhwc, images_hwc, placements, strict=True):
        if image_hwc is None or where is None:
            slot_hwc[:] = FILL
        else:
            place(image_hwc, where, slot_hwc)
    return PlacedBatch(batch_nhwc, placements)


def detect_placed(engine: Engine, placed: PlacedBatch) -> EngineOutput:
    """Run the engine and map the boxes of each slot to the pixels of its own frame; empty slots have none."""
    output = engine.infer(placed.batch_nhwc)
    in_source = [
        Detections.none() if where is None else to_source(found, where)
        for found, where in zip(output.detections, placed.placements, strict=True)
    ]
    return EngineOutput(in_source, output.run_s, output.decode_s)


def _size_hw(image_hwc: Image) -> tuple[int, int]:
    return image_hwc.shape[0], image_hwc.shape[1]
