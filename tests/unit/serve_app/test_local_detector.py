"""The one-line call: what it takes, what it answers, what it refuses, with the bundled model itself."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.detector import detect_placed, place_batch
from engines.errors import EngineError, FrameArrayError, ImageFileError, ModelFileError
from engines.onnx_run import OnnxEngine
from engines.spec import CanvasShape, WarmShape
from framelane_inspection.scenes import CLASS_NAMES, draw_scene
from framelane_inspection.scoring import iou
from serve_app.config import model_path
from serve_app.errors import InvalidPlanError
from serve_app.local_detector import Detector, predict

MODEL = "bundled:inspection-light"
SIZES_HW = {"a": (192, 320), "b": (320, 192), "c": (100, 130)}
SCENES = {name: draw_scene(size_hw, seed=11).image_hwc for name, size_hw in SIZES_HW.items()}


@pytest.fixture(scope="module")
def detector():
    """One for all tests."""
    with Detector(MODEL) as detector:
        yield detector


@pytest.fixture
def folder(tmp_path):
    """Three images of different sizes, and a file that is none."""
    for name, image_hwc in SCENES.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), image_hwc)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def rows(prediction):
    """Its boxes as lists."""
    found = prediction.detections
    return np.column_stack([found.boxes_xyxy, found.scores, found.class_ids]).tolist()


def test_an_image_is_answered_as_its_engine_does(detector, folder):
    """On the canvas of its own size; a path, its text and the array are the same image."""
    (got,) = detector(folder / "a.png")
    engine = OnnxEngine(model_path(MODEL))
    engine.warm([WarmShape(CanvasShape(192, 320), 1)])
    found = detect_placed(engine, place_batch([SCENES["a"]], CanvasShape(192, 320))).detections[0]
    assert (got.canvas, got.size_hw, got.path) == (CanvasShape(192, 320), (192, 320), str(folder / "a.png"))
    assert len(got) > 0
    assert rows(got) == np.column_stack([found.boxes_xyxy, found.scores, found.class_ids]).tolist()
    assert rows(detector(str(folder / "a.png"))[0]) == rows(detector(SCENES["a"])[0]) == rows(got)
    assert got.names == detector.names == dict(enumerate(CLASS_NAMES))
    assert got.class_names == tuple(CLASS_NAMES[int(class_id)] for class_id in got.boxes.cls)


def test_a_folder_and_a_list_are_answered_in_order(detector, folder):
    """Files by name, what is no image passed over; lists may mix paths, arrays and folders."""
    assert [Path(got.path).name for got in detector(folder)] == ["a.png", "b.png", "c.png"]
    mixed = detector([SCENES["b"], folder / "a.png", folder, SCENES["c"]])
    assert [got.size_hw for got in mixed] == [SIZES_HW[name] for name in ("b", "a", "a", "b", "c", "c")]
    assert (mixed[0].path, mixed[-1].path) == ("image 0", "image 5")
    assert [got.size_hw for got in detector(image for image in SCENES.values())] == list(SIZES_HW.values())
    assert detector([]) == []


def test_one_bad_image_harms_no_neighbour(detector, folder):
    """Of several each has its own error, which is raised where its boxes are wanted."""
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:200])
    good, bad, _ = detector(folder)
    assert len(good) > 0
    assert "truncated" in str(bad.error)
    assert (bad.image_hwc, len(bad)) == (None, 0)
    for use in (bad.plot, bad.to_supervision, bad.unless_failed):
        with pytest.raises(ImageFileError, match="truncated"):
            use()
    assert bad.to_dict() == {"image": str(folder / "b.png"), "error": str(bad.error)}


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("missing.jpg", ImageFileError, "no such file"),
        (np.zeros((100, 100), np.uint8), FrameArrayError, "COLOR_GRAY2BGR"),
        (np.zeros((2, 100, 100, 3), np.uint8), FrameArrayError, "one by one"),
        (7, FrameArrayError, "got int"),
        (None, FrameArrayError, "got NoneType"),
        (b"bytes", FrameArrayError, "got bytes"),
    ],
    ids=["missing", "grey", "batch", "number", "None", "bytes"],
)
def test_a_single_source_that_is_no_image_raises(detector, source, error, words):
    """In words; `cv2.imread` gives None for a missing file, so None must be told too."""
    with pytest.raises(error, match=words):
        detector(source)


def test_an_empty_folder_and_a_video_are_told(detector, tmp_path):
    """Neither is an image; a video is not read whole to find that out."""
    (tmp_path / "line.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(ImageFileError, match=r"is a video by its name.*framelane stream"):
        detector(tmp_path / "line.mp4")
    with pytest.raises(ImageFileError, match=r"got no image in it, allowed are files ending in \.bmp"):
        detector(tmp_path)


def test_limits_are_those_of_the_call():
    """`conf` and `max_det` as in ultralytics, in the one-line call too."""
    image_hwc = SCENES["a"]
    assert len(predict(image_hwc, MODEL, conf=0.0, max_det=5)[0]) == 5
    assert min(predict(image_hwc, MODEL, conf=0.6)[0].boxes.conf) > 0.6
    with pytest.raises(ValueError, match="allowed is 0 to 1"):
        predict(image_hwc, MODEL, conf=25)


@pytest.mark.parametrize(
    ("model", "error"),
    [("nowhere.onnx", ModelFileError), ("bundled:nope", InvalidPlanError), ("best.pt", EngineError)],
)
def test_a_model_that_is_none_is_told(tmp_path, monkeypatch, model, error):
    """When the detector is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.pt").write_bytes(b"PK\3\4 no ONNX")
    with pytest.raises(error):
        Detector(model)


def test_a_canvas_can_be_given(detector):
    """Boxes are still in px of the image."""
    with Detector(MODEL, canvas=CanvasShape(320, 320)) as square:
        (got,) = square(SCENES["a"])
    assert (got.canvas, got.size_hw) == (CanvasShape(320, 320), (192, 320))
    native = detector(SCENES["a"])[0].boxes.xyxy
    assert (iou(native, got.boxes.xyxy).max(1) > 0.5).all()


def test_threads_take_turns(detector):
    """Several at once get what one alone gets."""
    expected = {name: rows(detector(image_hwc)[0]) for name, image_hwc in SCENES.items()}
    names = [*SCENES] * 4
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda name: rows(detector(SCENES[name])[0]), names))
    assert got == [expected[name] for name in names]


def test_a_prediction_shows_and_tells_itself(detector, folder):
    """Drawn on its own image, in ultralytics' names, as JSON."""
    (got,) = detector(folder / "a.png")
    assert got.plot().shape == (192, 320, 3)
    assert (got.plot() != SCENES["a"]).any()
    assert (got.orig_img == SCENES["a"]).all()
    assert got.orig_shape == (192, 320)
    assert set(got.speed) == {"preprocess", "inference", "postprocess"}
    assert sum(got.speed.values()) <= got.times.total_s * 1000
    content = got.to_dict()
    assert json.loads(json.dumps(content)) == content
    assert len(content["boxes_xyxy"]) == len(content["scores"]) == len(content["class_names"]) == len(got)
    best = got[0]
    assert (len(best), best.class_names, best.path, best.times) == (1, got.class_names[:1], got.path, got.times)
