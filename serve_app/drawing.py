"""Drawing boxes and labels on a frame, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

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
SHEET_GAP_PX = 8
# Leaves room beside a full-HD picture for one of 1280 px at the same scale.
WIDEST_FRACTION = 0.595
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
        _label(drawn, (x0, y0), f"{name} {score:.2f}", colour, unit)
    return drawn


def draw_caption(drawn_hwc: Image, text: str) -> None:
    """Write one line into the lower left corner, in place."""
    unit = max(1.0, min(drawn_hwc.shape[:2]) / 720)
    _label(drawn_hwc, (0, drawn_hwc.shape[0]), text, (40, 40, 40), unit, text_bgr=(255, 255, 255))


def contact_sheet(pictures_hwc: Sequence[Image], width_px: int) -> Image:
    """All pictures on one sheet at one scale, so that their sizes compare: rows from the left, tallest first.

    Args:
        pictures_hwc: uint8 `(height, width, 3)` BGR each, any sizes; only read.
        width_px: of the sheet; the widest picture takes `WIDEST_FRACTION` of it.
    """
    ordered = sorted(pictures_hwc, key=lambda picture: -picture.shape[0])
    scale = width_px * WIDEST_FRACTION / max(picture.shape[1] for picture in ordered)
    shrunk = [cv2.resize(p, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for p in ordered]
    rows: list[list[Image]] = [[]]
    for picture in shrunk:
        if sum(p.shape[1] + SHEET_GAP_PX for p in [*rows[-1], picture]) > width_px + SHEET_GAP_PX:
            rows.append([])
        rows[-1].append(np.asarray(picture, np.uint8))
    height_px = sum(row[0].shape[0] for row in rows) + SHEET_GAP_PX * (len(rows) - 1)
    sheet = np.full((height_px, width_px, 3), 255, np.uint8)
    top = 0
    for row in rows:
        left = 0
        for picture in row:
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            left += picture.shape[1] + SHEET_GAP_PX
        top += row[0].shape[0] + SHEET_GAP_PX
    return sheet


def _label(
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
