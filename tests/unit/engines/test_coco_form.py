"""COCO's JSON: corner, width and height, and the ids of the data set."""

from __future__ import annotations

import json

import numpy as np
import pytest

from engines.detections import Detections

FOUND = Detections(
    np.array([[10.126, 20, 60, 50], [0, 0.5, 5, 8]], np.float32),
    np.array([0.9, 0.25], np.float32),
    np.array([2, 0], np.int64),
)


def test_results_are_what_an_evaluation_reads():
    """Four keys a box; ids of classes where no mapping is given."""
    records = FOUND.to_coco(139)
    assert records == [
        {"image_id": 139, "category_id": 2, "bbox": [10.13, 20.0, 49.87, 30.0], "score": pytest.approx(0.9, abs=1e-5)},
        {"image_id": 139, "category_id": 0, "bbox": [0.0, 0.5, 5.0, 7.5], "score": 0.25},
    ]
    assert json.loads(json.dumps(records)) == records


def test_annotations_count_their_ids_and_say_their_area():
    """What a data set's file needs beside; ids go on where the frame before ended."""
    records = FOUND.to_coco("gate-1/7", category_ids={0: 1, 2: 3}, first_annotation_id=50)
    assert [(record["id"], record["category_id"], record["iscrowd"]) for record in records] == [(50, 3, 0), (51, 1, 0)]
    assert [record["area"] for record in records] == [pytest.approx(1496.22, abs=0.01), 37.5]


def test_a_class_without_a_category_is_told():
    """Not dropped, and not written with a wrong id."""
    with pytest.raises(ValueError, match=r"class 2, allowed are those named: 0"):
        FOUND.to_coco(1, category_ids={0: 1})


def test_nothing_found_is_an_empty_list():
    """Not an error."""
    assert Detections.none().to_coco(1, category_ids={}) == []
