"""Drawing boxes and labels on a frame, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2

from engines.detections import Detections
from engines.letterbox import Image

# BGR, chosen to be told apart on metal, skin and asphalt, also by colour-blind eyes (Okabe and Ito's palette).
PALETTE_BGR = (
    (0, 159, 230),
    (233, 180, 86),
    (115, 158, 0),
    (66, 228, 240),
    (178, 114, 0),
    (0, 94, 213),
    (167, 121, 204),
)
# Below this longest side a label would hide what it names.
MIN_LABELLED_PX = 24
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_detections(image_hwc: Image, found: Detections, class_names: Sequence[str]) -> Image:
    """A copy of a frame with its boxes; small boxes get a frame around them and no label.

    Args:
        image_hwc: uint8 `(height, width, 3)` BGR; only read.
        found: boxes in its px.
        class_names: the name of each box's class.
    """
    drawn: Image = image_hwc.copy()
    unit = max(1.0, min(image_hwc.shape[:2]) / 720)
    thickness = round(unit)
    for box, score, class_id, name in zip(found.boxes_xyxy, found.scores, found.class_ids, class_names, strict=True):
        colour = PALETTE_BGR[int(class_id) % len(PALETTE_BGR)]
        x0, y0, x1, y1 = (round(float(value)) for value in box)
        if max(x1 - x0, y1 - y0) < MIN_LABELLED_PX * unit:
            gap = round(2 * unit)
            cv2.rectangle(drawn, (x0 - gap, y0 - gap), (x1 + gap, y1 + gap), colour, thickness)
            continue
        cv2.rectangle(drawn, (x0, y0), (x1, y1), colour, thickness)
        draw_label(drawn, (x0, y0), f"{name} {score:.2f}", colour, unit)
    return drawn


def draw_label(
    drawn_hwc: Image,
    corner_xy: tuple[int, int],
    text: str,
    colour: tuple[int, int, int],
    unit: float,
    *,
    text_bgr: tuple[int, int, int] = (0, 0, 0),
) -> None:
    """Text on a filled plate whose lower left corner stands at `corner_xy`, moved inside the picture."""
    size, thickness = 0.42 * unit, max(1, round(unit))
    (width, height), baseline = cv2.getTextSize(text, _FONT, size, thickness)
    pad = round(3 * unit)
    x = min(max(0, corner_xy[0]), max(0, drawn_hwc.shape[1] - width - 2 * pad))
    y = max(corner_xy[1], height + baseline + 2 * pad)
    cv2.rectangle(drawn_hwc, (x, y - height - baseline - 2 * pad), (x + width + 2 * pad, y), colour, -1)
    cv2.putText(drawn_hwc, text, (x + pad, y - baseline - pad), _FONT, size, text_bgr, thickness, cv2.LINE_AA)
