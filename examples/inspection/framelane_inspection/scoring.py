"""How much of what is in scenes was found: recall by size and class, and precision. Knows no engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engines.detections import Detections
from framelane_inspection.scenes import CLASS_NAMES, PART, Scene

# A defect is found if a box of its class overlaps it at least so much.
MIN_IOU = 0.5
# Longest side of the defect's box in px of the scene.
SIZE_BINS_PX = ((6, 9), (9, 12), (12, 17))
# The titles of what `figures` returns.
FIGURES = (
    *(f"{low}–{high - 1} px" for low, high in SIZE_BINS_PX),
    *CLASS_NAMES[1:],
    "all defects",
    "parts",
    "precision",
)


def figures(scenes: Sequence[Scene], found: Sequence[Detections]) -> list[str]:
    """Recall by size, by class, over all defects, of parts; precision: printed shares, in the order of `FIGURES`."""
    asked: Counter[object] = Counter()
    hit: Counter[object] = Counter()
    num_right = num_boxes = 0
    for scene, detections in zip(scenes, found, strict=True):
        matched = match(scene, detections)
        num_right += int(matched.sum())
        num_boxes += len(detections)
        for box, class_id, is_found in zip(scene.boxes_xyxy, scene.class_ids, matched, strict=True):
            longest_px = max(box[2] - box[0], box[3] - box[1])
            keys: list[object] = [("class", int(class_id))]
            if class_id != PART:
                keys += [
                    "defect",
                    *(("size", bin_px) for bin_px in SIZE_BINS_PX if bin_px[0] <= longest_px < bin_px[1]),
                ]
            asked.update(keys)
            hit.update(keys if is_found else [])
    wanted: list[object] = [("size", bin_px) for bin_px in SIZE_BINS_PX]
    wanted += [*(("class", class_id) for class_id in range(1, len(CLASS_NAMES))), "defect", ("class", PART)]
    shares = [f"{hit[key] / asked[key]:.1%}" if asked[key] else "–" for key in wanted]
    return [*shares, f"{num_right / max(1, num_boxes):.1%}"]


def match(scene: Scene, found: Detections) -> npt.NDArray[np.bool_]:
    """Which objects of a scene were found, shape `(N,)`; the best box chooses first, and finds one object at most."""
    matched = np.zeros(len(scene.class_ids), np.bool_)
    overlaps = iou(found.boxes_xyxy, scene.boxes_xyxy)
    for row, class_id in zip(overlaps, found.class_ids, strict=True):
        candidates = np.where((scene.class_ids == class_id) & ~matched, row, 0.0)
        if len(candidates) and candidates.max() >= MIN_IOU:
            matched[candidates.argmax()] = True
    return matched


def iou(boxes_a_xyxy: npt.NDArray[np.float32], boxes_b_xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Intersection over union of every pair, shape `(A, B)`."""
    corners_min = np.maximum(boxes_a_xyxy[:, None, :2], boxes_b_xyxy[None, :, :2])
    corners_max = np.minimum(boxes_a_xyxy[:, None, 2:], boxes_b_xyxy[None, :, 2:])
    shared = (corners_max - corners_min).clip(0).prod(2)
    areas_a, areas_b = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (boxes_a_xyxy, boxes_b_xyxy))
    return np.asarray(shared / (areas_a[:, None] + areas_b[None] - shared), np.float32)
