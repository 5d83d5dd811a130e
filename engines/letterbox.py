"""Placing a frame on a canvas without distortion, and mapping boxes back.

The geometry is ultralytics' own (`LetterBox`, centred, grey 114): the frame is scaled by one factor until it touches
the canvas, so a model sees here exactly what it saw in training and validation. A frame that has the canvas's height
or width and fits is not resampled at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from engines.detections import Detections
from engines.spec import CanvasShape

FILL = 114  # the grey that ultralytics pads with in training

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a frame lies on its canvas.

    Attributes:
        source_hw: the frame's own (height, width) in px.
        canvas: the canvas it is placed on.
        placed_hw: its (height, width) in px after scaling.
        left_px, top_px: where its top left corner lies on the canvas.
    """

    source_hw: tuple[int, int]
    canvas: CanvasShape
    placed_hw: tuple[int, int]
    left_px: int
    top_px: int

    @property
    def padding_fraction(self) -> float:
        """Share of the canvas that shows no frame, in 0..1."""
        return 1 - self.placed_hw[0] * self.placed_hw[1] / self.canvas.num_px


def placement(source_hw: tuple[int, int], canvas: CanvasShape) -> Placement:
    """Centre a frame of `source_hw` px on `canvas`, scaled to touch it, never cropped."""
    height, width = source_hw
    scale = min(canvas.height / height, canvas.width / width)
    placed_hw = (max(1, round(height * scale)), max(1, round(width * scale)))
    # An odd rest goes to the bottom and the right, as in ultralytics.
    top_px, left_px = (canvas.height - placed_hw[0]) // 2, (canvas.width - placed_hw[1]) // 2
    return Placement(source_hw, canvas, placed_hw, left_px, top_px)


def place(image_hwc: Image, where: Placement, out_hwc: Image) -> None:
    """Draw a frame into its canvas.

    Args:
        image_hwc: uint8 `(height, width, 3)` of `where.source_hw`; only read.
        where: from `placement`.
        out_hwc: uint8 `(canvas height, canvas width, 3)`; wholly overwritten, owned by the caller.
    """
    (height, width), left, top = where.placed_hw, where.left_px, where.top_px
    out_hwc[:top], out_hwc[top + height :] = FILL, FILL
    out_hwc[top : top + height, :left], out_hwc[top : top + height, left + width :] = FILL, FILL
    window = out_hwc[top : top + height, left : left + width]
    if where.placed_hw == where.source_hw:
        window[:] = image_hwc
    else:
        window[:] = cv2.resize(image_hwc, (width, height), interpolation=cv2.INTER_LINEAR)


def to_source(found: Detections, where: Placement) -> Detections:
    """Map boxes from canvas px to source px, clip them to the frame, and drop those that lay in the padding only."""
    (height, width), (placed_height, placed_width) = where.source_hw, where.placed_hw
    boxes_xyxy = found.boxes_xyxy - np.array([where.left_px, where.top_px] * 2, np.float32)
    # Each side was rounded to whole px on its own, so each has its own factor.
    boxes_xyxy /= np.array([placed_width / width, placed_height / height] * 2, np.float32)
    boxes_xyxy = boxes_xyxy.clip(0, np.array([width, height] * 2, np.float32))
    inside = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(1)
    return Detections(boxes_xyxy[inside], found.scores[inside], found.class_ids[inside])
