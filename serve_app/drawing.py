"""Captions and contact sheets for people to look at; `engines/drawing.py` draws the boxes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from engines.drawing import draw_detections, draw_label
from engines.letterbox import Image

__all__ = ["SHEET_GAP_PX", "WIDEST_FRACTION", "contact_sheet", "draw_caption", "draw_detections"]

SHEET_GAP_PX = 8
# Leaves room beside a full-HD picture for one of 1280 px at the same scale.
WIDEST_FRACTION = 0.595


def draw_caption(drawn_hwc: Image, text: str) -> None:
    """Write one line into the lower left corner, in place."""
    unit = max(1.0, min(drawn_hwc.shape[:2]) / 720)
    draw_label(drawn_hwc, (0, drawn_hwc.shape[0]), text, (40, 40, 40), unit, text_bgr=(255, 255, 255))


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
