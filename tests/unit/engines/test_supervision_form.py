"""There and back through the real supervision package, and what it makes of our boxes."""

from __future__ import annotations

import json
import pickle
import sys

import cv2
import numpy as np
import pytest
import supervision as sv
from hypothesis import given
from hypothesis import strategies as st

from engines.boxes_view import Boxes
from engines.detections import Detections
from engines.supervision_form import SupervisionExtraMissingError

SIDES = st.floats(-50, 4000, width=32)
ROW = st.tuples(SIDES, SIDES, SIDES, SIDES, st.floats(0, 1, width=32), st.integers(0, 79))


def detections_of(rows):
    """Detections from rows (x, y, x, y, score, class)."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    corners = np.hstack([np.minimum(table[:, :2], table[:, 2:4]), np.maximum(table[:, :2], table[:, 2:4])])
    return Detections(corners.astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


FOUND = detections_of([(10, 20, 60, 50, 0.9, 1), (100, 80, 140, 160, 0.6, 0), (0, 0, 5, 8, 0.3, 1)])
NAMES = ("scratch", "hole", "scratch")


@given(st.lists(ROW, max_size=6))
def test_boxes_come_back_as_they_went(rows):
    """Bit for bit and of the same types, nothing found included."""
    found = detections_of(rows)
    back = Detections.from_supervision(found.to_supervision())
    for name in ("boxes_xyxy", "scores", "class_ids"):
        sent, received = getattr(found, name), getattr(back, name)
        assert (received.dtype, received.shape, received.tolist()) == (sent.dtype, sent.shape, sent.tolist())


@given(st.lists(ROW, max_size=6))
def test_the_forms_of_boxes_are_supervisions_own(rows):
    """Its converters of corners to centres, and to COCO's corner and size, give what we give."""
    found = detections_of(rows)
    centred = Boxes(found, (10, 10)).xywh
    assert np.allclose(sv.xcycwh_to_xyxy(centred), found.boxes_xyxy, atol=1e-3)
    bbox = np.array([record["bbox"] for record in found.to_coco(1)], np.float64).reshape(-1, 4)
    assert np.allclose(bbox, sv.xyxy_to_xywh(found.boxes_xyxy.astype(np.float64)), atol=0.011)


def test_filters_of_supervision_come_back():
    """What it keeps, in its order; names stay with their boxes."""
    there = FOUND.to_supervision(NAMES)
    assert there.data["class_name"].tolist() == list(NAMES)
    kept = there[there.class_id == 1]
    assert kept.data["class_name"].tolist() == ["scratch", "scratch"]
    back = Detections.from_supervision(kept)
    mask = FOUND.class_ids == 1
    assert back.boxes_xyxy.tolist() == FOUND[mask].boxes_xyxy.tolist()
    assert back.scores.tolist() == FOUND[mask].scores.tolist()


def test_what_supervision_changes_stays_its_own():
    """The arrays are copies: a result that was recorded does not change."""
    there = FOUND.to_supervision(NAMES)
    there.xyxy += 100
    there.confidence *= 0
    assert FOUND.boxes_xyxy[0].tolist() == [10, 20, 60, 50]
    assert FOUND.scores[0] == np.float32(0.9)


def test_nothing_found_merges_with_something_found():
    """Names of an empty frame are strings too, so frames concatenate."""
    both = sv.Detections.merge([Detections.none().to_supervision(()), FOUND.to_supervision(NAMES)])
    assert both.data["class_name"].tolist() == list(NAMES)


def test_supervision_draws_our_boxes_with_their_names():
    """Its annotators find what they look for."""
    there = FOUND.to_supervision(NAMES)
    image_hwc = np.zeros((200, 300, 3), np.uint8)
    drawn = sv.LabelAnnotator().annotate(sv.BoxAnnotator().annotate(image_hwc.copy(), there), there)
    assert drawn.any()


def test_a_data_set_of_our_annotations_is_read_by_supervision(tmp_path):
    """COCO's file with our records: its boxes, classes and names are those that were found."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((200, 300, 3), np.uint8))
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 200, "width": 300}],
        "categories": [{"id": 1, "name": "hole"}, {"id": 2, "name": "scratch"}],
        "annotations": FOUND.to_coco(1, category_ids={0: 1, 1: 2}, first_annotation_id=1),
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    ((_, _, read),) = sv.DetectionDataset.from_coco(str(tmp_path), str(tmp_path / "coco.json"))
    assert read.xyxy.tolist() == FOUND.boxes_xyxy.tolist()
    assert read.class_id.tolist() == [1, 0, 1]


@pytest.mark.parametrize("missing", ["confidence", "class_id"])
def test_detections_without_scores_or_classes_are_refused(missing):
    """No invented certainty."""
    there = FOUND.to_supervision()
    setattr(there, missing, None)
    with pytest.raises(ValueError, match=f"no {missing}.*set detections.{missing}"):
        Detections.from_supervision(there)


def test_without_the_extra_the_cure_is_told(monkeypatch):
    """And the error crosses processes like every other."""
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(SupervisionExtraMissingError, match=r"pip install 'framelane\[supervision\]'") as caught:
        FOUND.to_supervision()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 (our own)
