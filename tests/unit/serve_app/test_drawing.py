"""Sheets for people: they hold every picture, at one scale."""

from __future__ import annotations

import numpy as np

from serve_app.drawing import SHEET_GAP_PX, WIDEST_FRACTION, contact_sheet


def test_a_sheet_shows_all_pictures_at_one_scale():
    """Two fit beside each other, the third begins a row; areas keep their ratio."""
    sizes_hw = {10: (432, 768), 20: (288, 512), 30: (192, 256)}
    pictures = [np.full((*size_hw, 3), value, np.uint8) for value, size_hw in sizes_hw.items()]
    sheet = contact_sheet(pictures, 1600)
    scale = 1600 * WIDEST_FRACTION / 768
    for value, (height, width) in sizes_hw.items():
        area = (sheet == value).all(2).sum()
        assert area == round(height * scale) * round(width * scale)
    assert sheet.shape == (round(432 * scale) + SHEET_GAP_PX + round(192 * scale), 1600, 3)
