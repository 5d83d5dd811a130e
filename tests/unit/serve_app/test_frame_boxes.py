"""What a caller does with the boxes of a result, and what supervision and json make of them."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import supervision as sv

from engines.detections import Detections
from engines.errors import FrameArrayError
from serve_app.errors import FrameExpiredError
from serve_app.frame_log import frame_record
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome

BOXES = np.array([[10, 20, 60, 50], [100, 80, 140, 160], [0, 0, 5, 8]], np.float32)
FOUND = Detections(BOXES, np.array([0.9, 0.6, 0.3], np.float32), np.array([2, 1, 2], np.int64))
NAMES = ("scratch", "hole", "scratch")
EXPIRED = FrameExpiredError("frame a: too late")


def result(found=FOUND, names=NAMES, **changes):
    """A frame of 200×300 px with three boxes; `changes` replace its fields."""
    return FrameResult("a", "gate-1", (200, 300), "normal", **({"outcome": Outcome.FINISHED} | changes),
                       detections=found, class_names=names)  # fmt: skip


def test_a_result_has_the_names_of_ultralytics():
    """Length, boxes, names and shape; a class that was not found has no name here."""
    got = result()
    assert (len(got), got.orig_shape, got.names) == (3, (200, 300), {2: "scratch", 1: "hole"})
    assert [(got.names[int(box.cls[0])], float(box.conf[0])) for box in got.boxes] == [
        ("scratch", pytest.approx(0.9)), ("hole", pytest.approx(0.6)), ("scratch", pytest.approx(0.3)),
    ]  # fmt: skip
    assert got.boxes.xyxyn[0].tolist() == [pytest.approx(x) for x in (10 / 300, 20 / 200, 60 / 300, 50 / 200)]
    assert (got.masks, got.obb, got.keypoints, got.probs) == (None,) * 4


def test_supervision_reads_a_result_as_one_of_ultralytics():
    """By its names alone, and with the same outcome as our own conversion."""
    theirs, ours = sv.Detections.from_ultralytics(result()), result().to_supervision()
    assert theirs.xyxy.tolist() == ours.xyxy.tolist() == BOXES.tolist()
    assert theirs.confidence.tolist() == ours.confidence.tolist()
    assert theirs.class_id.tolist() == ours.class_id.tolist()
    assert theirs.data["class_name"].tolist() == ours.data["class_name"].tolist() == list(NAMES)


def test_boxes_are_picked_with_their_names():
    """By mask, slice and index; all else of the result stays, and it still crosses processes."""
    got = pickle.loads(pickle.dumps(result()[FOUND.scores > 0.5]))  # noqa: S301 (our own)
    assert (got.class_names, got.detections.class_ids.tolist(), got.frame_id) == (("scratch", "hole"), [2, 1], "a")
    assert result()[1:].class_names == ("hole", "scratch")
    assert [one.class_names for one in result()] == [(name,) for name in NAMES]
    with pytest.raises(IndexError):
        result()[3]


def test_a_result_without_boxes_is_still_a_result():
    """`if result:` asks whether there is one, as after `client.result(ticket)`."""
    nothing = result(Detections.none(), ())
    assert nothing
    assert (len(nothing), nothing.names, list(nothing)) == (0, {}, [])
    assert len(nothing.to_supervision()) == 0
    assert nothing.to_coco(1) == []


@pytest.mark.parametrize(
    "use",
    [FrameResult.to_supervision, lambda got: got.to_coco(1), lambda got: got.plot(np.zeros((200, 300, 3), np.uint8))],
    ids=["to_supervision", "to_coco", "plot"],
)
def test_a_frame_that_did_not_finish_raises_where_its_boxes_are_wanted(use):
    """An empty list would tell a tracker, or a data set, that nothing was there."""
    with pytest.raises(FrameExpiredError, match="too late"):
        use(result(Detections.none(), (), outcome=Outcome.EXPIRED, error=EXPIRED))


def test_a_plot_wants_the_very_frame():
    """Boxes on a smaller copy would lie somewhere else; on the frame they change it where they are."""
    frame_hwc = np.zeros((200, 300, 3), np.uint8)
    assert result().plot(frame_hwc).any()
    assert not frame_hwc.any()
    with pytest.raises(
        FrameArrayError, match=r"300×200 px \(height × width\), allowed is the frame itself, of 200×300"
    ):
        result().plot(frame_hwc.transpose(1, 0, 2))


def test_a_dict_is_the_record_with_the_boxes():
    """JSON-ready, whatever the outcome; the keys of the frame log, and a value a box in four lists."""
    content = result().to_dict()
    assert json.loads(json.dumps(content)) == content
    assert content == frame_record(result()) | {
        "boxes_xyxy": BOXES.tolist(), "scores": [0.9, 0.6, 0.3], "class_ids": [2, 1, 2], "class_names": list(NAMES),
    }  # fmt: skip
    failed = result(Detections.none(), (), outcome=Outcome.EXPIRED, error=EXPIRED).to_dict()
    assert json.loads(json.dumps(failed)) == failed
    assert (failed["outcome"], failed["error"], failed["boxes_xyxy"]) == ("expired", "frame a: too late", [])
