"""Drawn scenes: the same seed the same bytes, boxes that are exact, defects of the sizes that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from framelane_inspection.scenes import CLASS_NAMES, PART, SMALL_DEFECTS_PX, draw_scene


def test_a_seed_gives_the_same_scene_and_another_seed_another():
    """Measurements can be repeated."""
    first, again, other = draw_scene((240, 320), 5), draw_scene((240, 320), 5), draw_scene((240, 320), 6)
    np.testing.assert_array_equal(first.image_hwc, again.image_hwc)
    np.testing.assert_array_equal(first.boxes_xyxy, again.boxes_xyxy)
    assert (first.image_hwc != other.image_hwc).any()


@pytest.mark.parametrize("size_hw", [(240, 320), (320, 240), (720, 1280)])
def test_every_box_lies_in_the_frame(size_hw):
    """At any resolution and its transpose; every class appears in a large enough one."""
    scene = draw_scene(size_hw, 3)
    height, width = size_hw
    assert scene.image_hwc.shape == (height, width, 3)
    assert scene.image_hwc.dtype == np.uint8
    assert (scene.boxes_xyxy >= 0).all()
    assert (scene.boxes_xyxy <= [width, height, width, height]).all()
    assert (scene.boxes_xyxy[:, 2:] > scene.boxes_xyxy[:, :2]).all()
    assert scene.class_ids.max() < len(CLASS_NAMES)
    if size_hw == (720, 1280):
        assert set(scene.class_ids) == set(range(len(CLASS_NAMES)))


def test_small_defects_have_the_size_that_was_asked_for():
    """The longest side of nearly all boxes is 6 to 16 px, give or take; a larger frame does not make them larger."""
    for size_hw in ((480, 640), (1080, 1920)):
        scene = draw_scene(size_hw, 9)
        boxes = scene.boxes_xyxy[scene.class_ids != PART]
        longest_px = (boxes[:, 2:] - boxes[:, :2]).max(1)
        low, high = SMALL_DEFECTS_PX
        assert ((longest_px >= low - 2) & (longest_px <= high + 1)).mean() > 0.97


def test_a_box_is_exact_where_the_object_is_plain_to_see():
    """Metal is brighter than the belt: inside the parts' boxes it is much brighter than outside all of them."""
    scene = draw_scene((480, 640), 4)
    inside = np.zeros((480, 640), bool)
    for x0, y0, x1, y1 in scene.boxes_xyxy[scene.class_ids == PART].astype(int):
        inside[y0:y1, x0:x1] = True
    brightness = scene.image_hwc.mean(2)
    assert brightness[inside].mean() > 1.5 * brightness[~inside].mean()
