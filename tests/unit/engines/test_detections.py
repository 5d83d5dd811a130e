"""Boxes picked by mask, slice and index; shown, and refused where nothing sensible was asked."""

from __future__ import annotations

import numpy as np
import pytest

from engines.detections import Detections
from engines.errors import FrameArrayError

ROWS = [[10, 20, 60, 50], [0, 0, 5, 8], [100, 80, 140, 160]]


def three():
    """Three boxes of classes 4, 5 and 6, best first."""
    scores = np.array([0.9, 0.8, 0.3], np.float32)
    return Detections(np.array(ROWS, np.float32), scores, np.array([4, 5, 6], np.int64))


@pytest.mark.parametrize(
    ("selection", "classes"),
    [
        (np.array([True, False, True]), [4, 6]),
        ([True, False, True], [4, 6]),
        (slice(1, None), [5, 6]),
        (slice(None, None, -1), [6, 5, 4]),
        ([2, 0], [6, 4]),
        (np.array([1, 1]), [5, 5]),
        (1, [5]),
        (-1, [6]),
        (np.int64(0), [4]),
        ([], []),
        (np.zeros(3, bool), []),
    ],
    ids=["mask", "list of bools", "slice", "reversed", "indices", "twice", "one", "last", "numpy's", "none", "no one"],
)
def test_boxes_are_picked_with_their_scores_and_classes(selection, classes):
    """Rows, scores and classes stay together, keep their types, and are always arrays of boxes."""
    picked = three()[selection]
    assert picked.class_ids.tolist() == classes
    assert picked.boxes_xyxy.tolist() == [[float(side) for side in ROWS[class_id - 4]] for class_id in classes]
    assert picked.scores.tolist() == [pytest.approx({4: 0.9, 5: 0.8, 6: 0.3}[class_id]) for class_id in classes]
    assert (picked.boxes_xyxy.dtype, picked.scores.dtype, picked.class_ids.dtype) == (np.float32, np.float32, np.int64)


@pytest.mark.parametrize(
    "selection",
    [3, -4, [0, 7], [True, False], np.ones(4, bool), np.ones((3, 4), bool), [[0, 1], [1, 2]], True, None, 0.5, "score"],
    ids=["beyond", "before", "one beyond", "short mask", "long mask", "mask of coordinates", "two axes", "bool", "None",
         "fraction", "text"],
)  # fmt: skip
def test_what_picks_no_boxes_is_an_index_error(selection):
    """A mask of another frame must not pick boxes silently."""
    with pytest.raises(IndexError):
        three()[selection]


def test_iterating_ends():
    """By index, as sequences do, until the last."""
    assert [one.class_ids.tolist() for one in three()] == [[4], [5], [6]]


def test_a_plot_is_a_new_picture_of_the_same_size():
    """Without names classes are told by number; the frame, also a read-only view of one, is left as it was."""
    image_hwc = np.zeros((200, 300, 3), np.uint8)[:, ::-1]
    image_hwc.flags.writeable = False
    for class_names in (None, ["a", "b", "c"]):
        drawn = three().plot(image_hwc, class_names)
        assert drawn.shape == image_hwc.shape
        assert drawn.any()
        assert drawn.flags.writeable
    assert not image_hwc.any()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((200, 300), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((200, 300, 3), np.float32), "astype"),
        ("photo.jpg", "cv2.imread"),
    ],
    ids=["grey", "floats", "a path"],
)
def test_a_plot_on_no_frame_is_refused(image, words):
    """In the words that any frame is refused with."""
    with pytest.raises(FrameArrayError, match=words):
        three().plot(image)
