"""Boxes where they are, in the colour of their class; frames left as they were."""

from __future__ import annotations

import numpy as np

from engines.detections import Detections
from engines.drawing import PALETTE_BGR, draw_detections


def found(*boxes):
    """Boxes of class 0, 1, 2 and so on."""
    count = len(boxes)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.full(count, 0.9, np.float32), np.arange(count))


def test_boxes_are_drawn_on_a_copy_in_the_colour_of_their_class():
    """The frame itself is not touched; beyond its box and label nothing changes."""
    image_hwc = np.zeros((200, 300, 3), np.uint8)
    drawn = draw_detections(image_hwc, found([50, 60, 150, 160], [200, 100, 280, 180]), ["part", "hole"])
    assert not image_hwc.any()
    assert tuple(drawn[160, 100]) == PALETTE_BGR[0]
    assert tuple(drawn[180, 240]) == PALETTE_BGR[1]
    assert not drawn[100:150, 60:140].any()


def test_small_boxes_get_a_frame_around_them_and_no_label():
    """What is small stays visible."""
    drawn = draw_detections(np.zeros((200, 300, 3), np.uint8), found([100, 100, 108, 106]), ["scratch"])
    assert not drawn[100:106, 100:108].any()
    rows, columns = np.flatnonzero(drawn.any((1, 2))), np.flatnonzero(drawn.any((0, 2)))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (98, 108, 98, 110)


def test_boxes_at_the_edges_and_on_tiny_frames_draw_without_error():
    """Labels move inside; nothing is drawn beyond the array."""
    for height, width in ((8, 8), (40, 400), (400, 40)):
        image_hwc = np.zeros((height, width, 3), np.uint8)
        drawn = draw_detections(image_hwc, found([0, 0, width, height], [-9, -9, 3, 3]), ["whole", "outside"])
        assert drawn.shape == image_hwc.shape
