"""Where a name is ultralytics' own, its value is too: our results beside the real `Results` of the same boxes."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from engines.boxes_view import Boxes
from engines.detections import Detections
from serve_app.prediction import Prediction
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome

pytestmark = [
    pytest.mark.export,
    pytest.mark.skipif(find_spec("ultralytics") is None, reason="needs the export extra: make test-export"),
]

SIZE_HW = (480, 852)
NAMES = {0: "part", 1: "hole", 2: "scratch"}
# What a detection of ultralytics has too, and for which no name of ours means something else.
SHARED_OF_BOXES = ("cls", "conf", "data", "id", "is_track", "orig_shape", "xywh", "xywhn", "xyxy", "xyxyn")
SHARED_OF_RESULTS = ("keypoints", "masks", "obb", "orig_shape", "probs")


@pytest.fixture(scope="module")
def found():
    """Forty boxes, best first."""
    random = np.random.default_rng(5)
    corners = random.uniform(0, 400, (40, 2))
    rows = np.hstack([corners, corners + random.uniform(1, 80, (40, 2))]).astype(np.float32)
    scores = np.sort(random.uniform(0.25, 1, 40).astype(np.float32))[::-1]
    return Detections(rows, scores.copy(), random.integers(0, 3, 40))


@pytest.fixture(scope="module")
def theirs(found):
    """The same as ultralytics' `Results`, on NumPy's arrays."""
    from ultralytics.engine.results import Results

    table = np.column_stack([found.boxes_xyxy, found.scores, found.class_ids]).astype(np.float32)
    return Results(np.zeros((*SIZE_HW, 3), np.uint8), "a.jpg", NAMES, boxes=table)


@pytest.fixture(params=["a service's", "a detector's"])
def ours(request, found):
    """The same as a result of the service, and as a prediction of this process."""
    names = tuple(NAMES[class_id] for class_id in found.class_ids.tolist())
    if request.param == "a service's":
        return FrameResult("f", "gate", SIZE_HW, "normal", Outcome.FINISHED, found, names)
    image_hwc = np.zeros((*SIZE_HW, 3), np.uint8)
    return Prediction("a.jpg", image_hwc, SIZE_HW, found, names, model_names=tuple(NAMES.values()))


@pytest.mark.parametrize("name", SHARED_OF_BOXES)
def test_a_name_of_boxes_means_the_same(theirs, found, name):
    """Values and shapes; class ids are integers here and floats there."""
    got, expected = getattr(Boxes(found, SIZE_HW), name), getattr(theirs.boxes, name)
    if isinstance(expected, np.ndarray):
        assert got.shape == expected.shape
        assert np.allclose(got, expected, rtol=1e-6, atol=1e-4)
    else:
        assert got == expected


def test_a_result_means_the_same(theirs, ours):
    """Length, names of the classes found, shape, and None for what a detector does not give."""
    assert len(ours) == len(theirs)
    assert {class_id: ours.names[class_id] for class_id in ours.boxes.cls.tolist()} == theirs.names
    for name in SHARED_OF_RESULTS:
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("selection", [0, -1, slice(3, 9), [7, 2]], ids=str)
def test_picking_means_the_same(theirs, ours, selection):
    """An index, a slice and indices; of one, a result of one box."""
    picked = theirs[selection].boxes
    assert np.allclose(ours[selection].boxes.xyxy, picked.xyxy)
    assert ours[selection].boxes.cls.tolist() == picked.cls.tolist()
    mask = theirs.boxes.conf > 0.6
    assert np.allclose(ours[mask].boxes.xyxy, theirs[mask].boxes.xyxy)


def test_the_usual_loop_over_boxes_runs_on_both(theirs, ours):
    """As it stands in ultralytics' guides."""

    def read(result):
        return [
            (result.names[int(box.cls.item())], round(float(box.conf.item()), 4), box.xyxy[0].round(1).tolist())
            for box in result.boxes
        ]

    assert read(ours) == read(theirs)


def test_a_prediction_has_their_path_image_and_stages(theirs, found):
    """`path`, `orig_img`, and the keys of `speed`."""
    image_hwc = np.zeros((*SIZE_HW, 3), np.uint8)
    got = Prediction("a.jpg", image_hwc, SIZE_HW, found, ("part",) * len(found))
    assert (got.path, got.orig_img.shape) == (theirs.path, theirs.orig_img.shape)
    assert got.speed.keys() == theirs.speed.keys()
