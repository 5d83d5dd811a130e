"""Where a frame lies on its canvas, what the canvas then shows, and the way back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.detections import Detections
from engines.letterbox import FILL, Placement, place, placement, to_source
from engines.spec import CanvasShape

SIZES = [
    pytest.param((480, 640), (640, 640), id="landscape-on-square"),
    pytest.param((640, 480), (640, 640), id="portrait-on-square"),
    pytest.param((720, 1280), (384, 640), id="wide-on-wide"),
    pytest.param((1280, 720), (384, 640), id="tall-on-wide"),
    pytest.param((1080, 810), (640, 384), id="tall-on-tall"),
    pytest.param((810, 1080), (640, 384), id="wide-on-tall"),
    pytest.param((33, 47), (96, 160), id="enlarged"),
    pytest.param((47, 33), (160, 96), id="enlarged-transposed"),
    pytest.param((96, 101), (96, 160), id="height-fits-odd-rest"),
    pytest.param((101, 96), (160, 96), id="width-fits-odd-rest"),
    pytest.param((96, 160), (96, 160), id="same-size"),
    pytest.param((8, 3000), (64, 64), id="a-line"),
    pytest.param((3000, 8), (64, 64), id="a-line-upright"),
]


def ultralytics_letterbox(image_hwc, canvas_hw):
    """`LetterBox(auto=False, scaleup=True, center=True)` of ultralytics 8.4, said again step by step."""
    height, width = image_hwc.shape[:2]
    ratio = min(canvas_hw[0] / height, canvas_hw[1] / width)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    rest_x, rest_y = (canvas_hw[1] - new_width) / 2, (canvas_hw[0] - new_height) / 2
    top, bottom = round(rest_y - 0.1), round(rest_y + 0.1)
    left, right = round(rest_x - 0.1), round(rest_x + 0.1)
    if (height, width) != (new_height, new_width):
        image_hwc = cv2.resize(image_hwc, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    return cv2.copyMakeBorder(image_hwc, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114))


def detections(boxes_xyxy):
    """Detections at these boxes, with scores 1, 1/2, 1/3 and so on, and classes counted from 0."""
    num_boxes = len(boxes_xyxy)
    scores = 1 / np.arange(1, num_boxes + 1, dtype=np.float32)
    return Detections(np.array(boxes_xyxy, np.float32), scores, np.arange(num_boxes))


@pytest.mark.parametrize(("source_hw", "canvas_hw"), SIZES)
def test_canvas_is_pixel_for_pixel_what_ultralytics_letterboxes(source_hw, canvas_hw):
    """A model sees here what it saw in training: same scale, centre, rounding, grey and interpolation."""
    image_hwc = np.random.default_rng(0).integers(0, 256, (*source_hw, 3), np.uint8)
    canvas = CanvasShape(*canvas_hw)
    drawn_hwc = np.zeros((*canvas, 3), np.uint8)
    place(image_hwc, placement(source_hw, canvas), drawn_hwc)
    np.testing.assert_array_equal(drawn_hwc, ultralytics_letterbox(image_hwc, canvas_hw))


@given(
    source_hw=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    canvas_hw=st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_any_frame_on_any_canvas_is_placed_as_by_ultralytics(source_hw, canvas_hw):
    """The geometry holds for every size, not only for the common ones."""
    image_hwc = np.full((*source_hw, 3), 200, np.uint8)
    drawn_hwc = np.zeros((*canvas_hw, 3), np.uint8)
    place(image_hwc, placement(source_hw, CanvasShape(*canvas_hw)), drawn_hwc)
    np.testing.assert_array_equal(drawn_hwc, ultralytics_letterbox(image_hwc, canvas_hw))


def test_a_wide_frame_is_centred_between_bars_above_and_below():
    """One factor for both directions, the smaller one."""
    assert placement((480, 640), CanvasShape(640, 320)) == Placement(
        source_hw=(480, 640), canvas=CanvasShape(640, 320), placed_hw=(240, 320), left_px=0, top_px=200
    )


def test_a_tall_frame_is_centred_between_bars_left_and_right():
    """The transpose of the wide frame."""
    assert placement((640, 480), CanvasShape(320, 640)) == Placement(
        source_hw=(640, 480), canvas=CanvasShape(320, 640), placed_hw=(320, 240), left_px=200, top_px=0
    )


def test_an_odd_rest_goes_to_the_bottom_and_to_the_right():
    """Of 3 px of padding, 1 lies before the frame and 2 behind it."""
    tall, wide = placement((64, 61), CanvasShape(64, 64)), placement((61, 64), CanvasShape(64, 64))
    assert (tall.left_px, tall.top_px, tall.placed_hw) == (1, 0, (64, 61))
    assert (wide.left_px, wide.top_px, wide.placed_hw) == (0, 1, (61, 64))


def test_a_small_frame_is_enlarged_until_it_touches_the_canvas():
    """Enlarging is allowed: a far camera's frame is seen as large as the canvas lets it be."""
    assert placement((32, 64), CanvasShape(128, 192)).placed_hw == (96, 192)


def test_a_frame_that_fits_one_side_keeps_its_pixels():
    """No resampling where the scale is 1: the frame's bytes stand on the canvas unchanged."""
    image_hwc = np.random.default_rng(1).integers(0, 256, (60, 96, 3), np.uint8)
    drawn_hwc = np.zeros((64, 96, 3), np.uint8)
    place(image_hwc, placement((60, 96), CanvasShape(64, 96)), drawn_hwc)
    np.testing.assert_array_equal(drawn_hwc[2:62], image_hwc)
    assert (drawn_hwc[:2] == FILL).all()
    assert (drawn_hwc[62:] == FILL).all()


def test_the_frame_is_only_read():
    """The caller's array is the same after placing."""
    image_hwc = np.random.default_rng(2).integers(0, 256, (50, 70, 3), np.uint8)
    before_hwc = image_hwc.copy()
    image_hwc.flags.writeable = False
    place(image_hwc, placement((50, 70), CanvasShape(64, 64)), np.zeros((64, 64, 3), np.uint8))
    np.testing.assert_array_equal(image_hwc, before_hwc)


def test_padding_fraction_is_the_share_of_grey():
    """A 2:1 frame covers half of a square canvas."""
    assert placement((320, 640), CanvasShape(640, 640)).padding_fraction == pytest.approx(0.5)
    assert placement((640, 320), CanvasShape(640, 640)).padding_fraction == pytest.approx(0.5)
    assert placement((64, 96), CanvasShape(64, 96)).padding_fraction == 0


def test_boxes_come_back_in_pixels_of_the_frame():
    """Offset and factor are undone, each in its own direction; order, scores and classes stay."""
    where = placement((480, 640), CanvasShape(640, 320))  # halved, 200 px down
    found = to_source(detections([[10, 210, 20, 240], [0, 200, 320, 440]]), where)
    np.testing.assert_array_equal(found.boxes_xyxy, [[20, 20, 40, 80], [0, 0, 640, 480]])
    np.testing.assert_array_equal(found.scores, np.array([1, 0.5], np.float32))
    np.testing.assert_array_equal(found.class_ids, [0, 1])
    assert (found.boxes_xyxy.dtype, found.scores.dtype, found.class_ids.dtype) == (np.float32, np.float32, np.int64)


def test_boxes_are_clipped_to_the_frame():
    """A box that reaches into the padding or past the canvas ends at the frame's edge."""
    where = placement((100, 200), CanvasShape(200, 200))  # 50 px down
    found = to_source(detections([[-5, 40, 250, 160], [190, 140, 230, 210]]), where)
    np.testing.assert_array_equal(found.boxes_xyxy, [[0, 0, 200, 100], [190, 90, 200, 100]])


@pytest.mark.parametrize("transposed", [False, True], ids=["bars-above-and-below", "bars-left-and-right"])
def test_boxes_wholly_in_the_padding_are_dropped(transposed):
    """What was found on grey is no finding; the one beside it stays with its own score and class."""
    source_hw, boxes = (100, 200), [[10, 0, 60, 50], [10, 60, 60, 90], [10, 150, 60, 200]]
    if transposed:
        source_hw, boxes = (200, 100), [[y0, x0, y1, x1] for x0, y0, x1, y1 in boxes]
    found = to_source(detections(boxes), placement(source_hw, CanvasShape(200, 200)))
    np.testing.assert_array_equal(found.boxes_xyxy, [[10, 10, 60, 40]] if not transposed else [[10, 10, 40, 60]])
    np.testing.assert_array_equal(found.scores, np.array([0.5], np.float32))
    np.testing.assert_array_equal(found.class_ids, [1])


def test_the_engines_boxes_are_only_read():
    """Mapping returns new arrays: an engine's answer may be mapped for two frames."""
    found = detections([[10, 60, 60, 90]])
    to_source(found, placement((100, 200), CanvasShape(200, 200)))
    np.testing.assert_array_equal(found.boxes_xyxy, [[10, 60, 60, 90]])


def test_no_boxes_stay_no_boxes():
    """The empty answer keeps its shapes."""
    found = to_source(Detections.none(), placement((100, 200), CanvasShape(200, 200)))
    assert (len(found), found.boxes_xyxy.shape) == (0, (0, 4))


@given(
    source_hw=st.tuples(st.integers(8, 4000), st.integers(8, 4000)),
    canvas_hw=st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda cells: (cells[0] * 32, cells[1] * 32)),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_box_drawn_on_the_canvas_comes_back_where_it_was(source_hw, canvas_hw, corners):
    """Round trip within half a px of the frame, from where the resampling really puts a point (each side rounded)."""
    height, width = source_hw
    (x_min, x_max), (y_min, y_max) = sorted(corners[::2]), sorted(corners[1::2])
    box_xyxy = np.array([x_min * width, y_min * height, x_max * width, y_max * height])
    where = placement(source_hw, CanvasShape(*canvas_hw))
    factors = np.array([where.placed_hw[1] / width, where.placed_hw[0] / height] * 2)
    on_canvas = box_xyxy * factors + np.array([where.left_px, where.top_px] * 2)
    found = to_source(detections([on_canvas]), where)
    if (box_xyxy[2:] - box_xyxy[:2]).min() > 1:
        np.testing.assert_allclose(found.boxes_xyxy, [box_xyxy], atol=0.5)
