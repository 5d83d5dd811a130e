"""Boxes under ultralytics' names; tests/export compares them with ultralytics' own."""

from __future__ import annotations

import numpy as np
import pytest

from engines.boxes_view import Boxes
from engines.detections import Detections

SIZE_HW = (100, 400)  # no square, so that swapped sides are seen


def boxes(orig_shape=SIZE_HW):
    """Two boxes on a wide frame."""
    rows, scores = np.array([[40, 10, 80, 60], [0, 0, 400, 100]], np.float32), np.array([0.75, 0.5], np.float32)
    return Boxes(Detections(rows, scores, np.array([3, 0])), orig_shape)


def test_every_form_of_the_same_boxes():
    """Corners, centres, and both as fractions of width and height."""
    view = boxes()
    assert view.xyxy.tolist() == [[40, 10, 80, 60], [0, 0, 400, 100]]
    assert view.xywh.tolist() == [[60, 35, 40, 50], [200, 50, 400, 100]]
    assert view.xyxyn.tolist() == [[pytest.approx(x) for x in (0.1, 0.1, 0.2, 0.6)], [0, 0, 1, 1]]
    assert view.xywhn.tolist() == [[pytest.approx(x) for x in (0.15, 0.35, 0.1, 0.5)], [0.5, 0.5, 1, 1]]
    assert view.data.tolist() == [[40, 10, 80, 60, 0.75, 3], [0, 0, 400, 100, 0.5, 0]]
    assert (view.conf.tolist(), view.cls.tolist(), view.id, view.is_track) == ([0.75, 0.5], [3, 0], None, False)
    assert {array.dtype for array in (view.xyxy, view.xywh, view.xyxyn, view.xywhn, view.data)} == {np.dtype("f4")}


def test_a_tall_frame_divides_by_its_own_sides():
    """The transpose of the test above."""
    assert boxes((400, 100)).xyxyn[0].tolist() == [pytest.approx(x) for x in (0.4, 0.025, 0.8, 0.15)]


def test_boxes_are_a_sequence_of_boxes():
    """Each of length one, as code written for ultralytics expects; `cpu` and `numpy` change nothing."""
    view = boxes()
    assert [(len(one), int(one.cls[0]), one.xyxy[0].tolist()) for one in view] == [
        (1, 3, [40, 10, 80, 60]),
        (1, 0, [0, 0, 400, 100]),
    ]
    assert view[view.conf > 0.6].cls.tolist() == [3]
    assert view.cpu().numpy() is view


def test_a_frame_with_nothing_on_it_has_every_form_too():
    """Arrays of no rows, never an error."""
    view = Boxes(Detections.none(), SIZE_HW)
    assert [array.shape for array in (view.xyxy, view.xywh, view.xyxyn, view.xywhn)] == [(0, 4)] * 4
    assert (view.data.shape, len(view), list(view)) == ((0, 6), 0, [])
