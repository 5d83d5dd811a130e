"""From a detector's output tensor to boxes: both heads of the field, with class-aware NMS where one is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engines.detections import Detections
from engines.spec import HeadKind

# More candidates than this on one frame are noise; the best are kept (ultralytics' `max_nms`).
MAX_CANDIDATES = 30_000

Output = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DetectionLimits:
    """Which boxes are answered; the defaults are those of ultralytics' `predict`.

    Attributes:
        min_score: boxes at or below it are dropped.
        max_iou: of two boxes of one class that overlap more than this, the better one stays.
        max_boxes: at most so many boxes a frame, the best ones.
    """

    min_score: float = 0.25
    max_iou: float = 0.7
    max_boxes: int = 300

    def __post_init__(self) -> None:
        for name in ("min_score", "max_iou"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: got {value}, allowed is 0 to 1")
        if self.max_boxes < 1:
            raise ValueError(f"max_boxes: got {self.max_boxes}, allowed is 1 or more")


def decode(output: Output, head: HeadKind, limits: DetectionLimits) -> list[Detections]:
    """Read the boxes of each frame of a batch, in canvas px, best score first.

    Args:
        output: `(N, 4 + num_classes, anchors)` or `(N, max_boxes, 6)`, see `HeadKind`; only read.
        head: which of the two it is.
        limits: what is dropped.

    Returns:
        N detections, which own their arrays.
    """
    read = _decode_raw if head is HeadKind.RAW else _decode_end_to_end
    return [read(frame, limits) for frame in output]


def _decode_raw(frame: Output, limits: DetectionLimits) -> Detections:
    """One frame `(4 + num_classes, anchors)`: the best class of each anchor, then NMS among equals."""
    class_scores = frame[4:]
    chosen = np.flatnonzero(class_scores.max(0) > limits.min_score)
    if not len(chosen):
        return Detections.none()
    candidates = frame[:, chosen].astype(np.float32, copy=False)
    class_ids = candidates[4:].argmax(0)
    scores = candidates[4:].max(0)
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    candidates, class_ids, scores = candidates[:, order], class_ids[order], scores[order]
    centres, sizes = candidates[:2].T, candidates[2:4].T
    corners = centres - sizes / 2
    # OpenCV takes the boxes as (x_min, y_min, width, height) in float64. It keeps the classes apart by moving each past
    # the largest coordinate of all, which fails left of or above 0: so all boxes are moved there first.
    boxes_xywh: Any = np.hstack([corners - corners.min(), sizes]).astype(np.float64)
    kept = np.asarray(
        cv2.dnn.NMSBoxesBatched(boxes_xywh, scores, class_ids.astype(np.int32), limits.min_score, limits.max_iou),
        np.int64,
    ).reshape(-1)
    kept = np.sort(kept)[: limits.max_boxes]  # candidates stand best first, so their order is the answer's order
    boxes_xyxy = np.hstack([corners[kept], corners[kept] + sizes[kept]])
    return Detections(boxes_xyxy, scores[kept], class_ids[kept].astype(np.int64))


def _decode_end_to_end(frame: Output, limits: DetectionLimits) -> Detections:
    """One frame `(max_boxes, 6)`: the network chose already; drop what scores too low."""
    rows = frame[frame[:, 4] > limits.min_score].astype(np.float32, copy=False)
    rows = rows[np.argsort(-rows[:, 4], kind="stable")][: limits.max_boxes]
    return Detections(rows[:, :4].copy(), rows[:, 4].copy(), rows[:, 5].astype(np.int64))
