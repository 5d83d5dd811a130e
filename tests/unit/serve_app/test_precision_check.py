"""Whether an FP16 graph is compared with the full one before its engine is built, on which frames, and how often."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from engines.engine_spec import ComputeCapability, EngineSpec, Precision, ShapeProfile
from engines.errors import PrecisionError
from engines.prepared_graph import prepared_onnx
from engines.spec import CanvasShape
from framelane_inspection.scenes import draw_scene
from serve_app import precision_check
from serve_app.check_frames import NamedFrame
from serve_app.config import model_path
from serve_app.errors import FramelaneError
from serve_app.precision_check import PrecisionCheck

_spec = importlib.util.spec_from_file_location(
    "tiny_detectors_of_engines", Path(__file__).parents[1] / "engines" / "conftest.py"
)
_tiny_detectors = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tiny_detectors)
grid_model = _tiny_detectors.grid_model

LIGHT, FULL = model_path("bundled:inspection-light"), model_path("bundled:inspection-full")


def spec_of(path, precision=Precision.FP16, side_px=320):
    """An engine that is to be built, for squares of this side."""
    return EngineSpec(
        path, ShapeProfile.around([CanvasShape(side_px, side_px)], [1]), precision, ComputeCapability(8, 9)
    )


@pytest.fixture
def compared(monkeypatch):
    """How often graphs were really compared: the number of frames of each comparison."""
    calls = []
    real = precision_check.check_precision

    def check(full, reduced, frames_hwc):
        calls.append(len(frames_hwc))
        return real(full, reduced, frames_hwc)

    monkeypatch.setattr(precision_check, "check_precision", check)
    return calls


@pytest.fixture
def pictures(tmp_path):
    """A folder with two small scenes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, seed in (("a.png", 8), ("b.png", 9)):
        cv2.imwrite(str(folder / name), draw_scene((320, 320), seed).image_hwc)
    return folder


@pytest.fixture
def grey_picture(tmp_path):
    """A folder with one picture that shows nothing."""
    folder = tmp_path / "grey"
    folder.mkdir()
    cv2.imwrite(str(folder / "grey.png"), np.full((64, 64, 3), 114, np.uint8))
    return folder


@pytest.fixture
def native_half(tmp_path, grid_model):
    """A detector that was exported in FP16: there is no FP32 graph of it."""
    model = grid_model()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for initializer in model.graph.initializer:
        if initializer.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(initializer).astype(np.float16)
            initializer.CopyFrom(numpy_helper.from_array(array, initializer.name))
    path = tmp_path / "half.onnx"
    onnx.save_model(model, str(path))
    return path


def test_each_fp16_graph_is_compared_once(compared, pictures, caplog):
    """However many buckets have it; another model is another graph. What finds the same is no news."""
    check = PrecisionCheck(pictures)
    light, full = (prepared_onnx(path, Precision.FP16) for path in (LIGHT, FULL))
    check.check(spec_of(LIGHT), light)
    check.check(spec_of(LIGHT, side_px=640), light)
    check.check(spec_of(FULL), full)
    assert compared == [2, 2]
    assert caplog.records == []


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.AS_IS], ids=lambda precision: precision.value)
def test_other_precisions_are_never_compared(compared, tmp_path, precision):
    """Not even the frames are read: these do not exist."""
    PrecisionCheck(tmp_path / "none").check(spec_of(LIGHT, precision), prepared_onnx(LIGHT, precision))
    assert compared == []


def test_a_model_that_comes_in_fp16_is_let_through(compared, native_half, pictures, caplog):
    """It is what its user has; said once, and no warning."""
    check, graph = PrecisionCheck(pictures), prepared_onnx(native_half, Precision.FP16)
    with caplog.at_level(logging.INFO, logger=precision_check.__name__):
        for _ in range(2):
            check.check(spec_of(native_half), graph)
    assert compared == []
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "model half.onnx: computes in FP16 as it comes, there is no FP32 to compare with")
    ]


def test_frames_that_show_nothing_are_one_warning(compared, grey_picture, caplog):
    """Two graphs that find nothing agree for free; the engine is built all the same."""
    check, graph = PrecisionCheck(grey_picture), prepared_onnx(LIGHT, Precision.FP16)
    for _ in range(2):
        check.check(spec_of(LIGHT), graph)
    assert compared == [1]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "FP16 was compared with FP32 on 1 frames that show nothing of its classes" in record.message
    assert "engines.frames in the plan, or --frames" in record.message


def test_without_a_folder_the_drawn_scenes_stand_in(compared, monkeypatch):
    """Anybody has those."""
    scene = NamedFrame("scene", draw_scene((320, 320), 8).image_hwc)
    monkeypatch.setattr(precision_check, "drawn_scenes", lambda: [scene] * 3)
    PrecisionCheck(None).check(spec_of(LIGHT), prepared_onnx(LIGHT, Precision.FP16))
    assert compared == [3]


def test_a_folder_without_an_image_is_refused(compared, tmp_path):
    """A typing error must not pass for a comparison."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(FramelaneError, match="empty without an image"):
        PrecisionCheck(tmp_path / "empty").check(spec_of(LIGHT), prepared_onnx(LIGHT, Precision.FP16))
    assert compared == []


def test_a_graph_that_finds_something_else_is_refused_each_time(compared, pictures):
    """Here the graph of another model, which is as wrong as can be."""
    check, foreign = PrecisionCheck(pictures), prepared_onnx(FULL, Precision.FP16)
    for _ in range(2):
        with pytest.raises(PrecisionError, match="set precision: fp32"):
            check.check(spec_of(LIGHT), foreign)
    assert compared == [2, 2]
