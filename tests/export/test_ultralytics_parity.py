"""Our engine finds on real pictures what ultralytics' own `predict` finds at the same canvas."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.detector import detect_placed, place_batch
from engines.onnx_run import OnnxEngine
from engines.spec import CanvasShape, WarmShape, fitting_canvas

SHARED = Path(__file__).parents[3] / "shared"
MODEL, MEDIA = SHARED / "models" / "person-v8s.onnx", SHARED / "media"

pytestmark = [
    pytest.mark.export,
    pytest.mark.skipif(find_spec("ultralytics") is None, reason="needs the export extra: make test-export"),
    pytest.mark.skipif(not (MODEL.is_file() and MEDIA.is_dir()), reason=f"no model and pictures in {SHARED}"),
]

VIDEO_FRAMES = (0, 150, 400)
PICTURES = ["bus.jpg", "zidane.jpg", *(f"vtest.avi frame {i}" for i in VIDEO_FRAMES)]
CANVASES = [None, CanvasShape(640, 640), CanvasShape(384, 640), CanvasShape(640, 384)]


@pytest.fixture(scope="module")
def pictures():
    """uint8 `(height, width, 3)` BGR by name."""
    read = {name: cv2.imread(str(MEDIA / name)) for name in PICTURES[:2]}
    video = cv2.VideoCapture(str(MEDIA / "vtest.avi"))
    for i in VIDEO_FRAMES:
        video.set(cv2.CAP_PROP_POS_FRAMES, i)
        read[f"vtest.avi frame {i}"] = video.read()[1]
    video.release()
    return read


@pytest.fixture(scope="module")
def engine():
    """The model in our runner."""
    engine = OnnxEngine(MODEL)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference():
    """The same file in ultralytics, with a predictor that notes the shape which its network really gets."""
    from ultralytics import YOLO
    from ultralytics.models.yolo.detect import DetectionPredictor

    class NotingPredictor(DetectionPredictor):
        """Keeps the shape of the last preprocessed batch."""

        def preprocess(self, im):
            """As ultralytics does it."""
            batch_nchw = super().preprocess(im)
            self.seen_shape = tuple(batch_nchw.shape)
            return batch_nchw

    detector = YOLO(str(MODEL), task="detect")

    def predict(image_hwc, canvas):
        detector.predictor = None  # it would keep the canvas of the first call
        (result,) = detector.predict(
            image_hwc, imgsz=tuple(canvas), rect=False, device="cpu", verbose=False, predictor=NotingPredictor
        )
        assert detector.predictor.seen_shape == (1, 3, *canvas)
        return result.boxes

    return predict


def pairwise_iou(ours_xyxy, theirs_xyxy):
    """IoU of every box with every box, shape `(ours, theirs)`."""
    low = np.maximum(ours_xyxy[:, None, :2], theirs_xyxy[None, :, :2])
    high = np.minimum(ours_xyxy[:, None, 2:], theirs_xyxy[None, :, 2:])
    intersection = (high - low).clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (ours_xyxy, theirs_xyxy)]
    return intersection / (areas[0][:, None] + areas[1][None] - intersection)


@pytest.mark.parametrize("canvas", CANVASES, ids=lambda canvas: "fitting" if canvas is None else str(canvas))
@pytest.mark.parametrize("name", PICTURES)
def test_every_box_is_found_as_by_ultralytics(pictures, engine, reference, name, canvas):
    """Same count and classes, IoU at least 0.98 and scores within 0.01, box by box."""
    image_hwc = pictures[name]
    canvas = canvas or fitting_canvas(image_hwc.shape[:2], 32)
    engine.warm([WarmShape(canvas, 1)])
    (ours,) = detect_placed(engine, place_batch([image_hwc], canvas)).detections
    theirs = reference(image_hwc, canvas)
    assert len(ours) == len(theirs)
    if not len(ours):
        return
    iou = pairwise_iou(ours.boxes_xyxy, theirs.xyxy.numpy())
    partner = iou.argmax(1)
    assert sorted(partner) == list(range(len(ours)))
    assert iou.max(1).min() >= 0.98
    np.testing.assert_array_equal(ours.class_ids, theirs.cls.numpy().astype(int)[partner])
    np.testing.assert_allclose(ours.scores, theirs.conf.numpy()[partner], atol=0.01)


def test_the_pictures_show_something(pictures, engine):
    """Parity on empty answers would prove nothing: both the photographs and the video hold people."""
    found = {}
    for name, image_hwc in pictures.items():
        canvas = CanvasShape(640, 640)
        engine.warm([WarmShape(canvas, 1)])
        found[name] = len(detect_placed(engine, place_batch([image_hwc], canvas)).detections[0])
    assert min(found[name] for name in PICTURES[:2]) >= 1
    assert sum(found.values()) >= 10
