"""The ONNX Runtime runner against answers worked out by hand, and the models it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from engines.boxes import DetectionLimits
from engines.errors import CanvasError, EngineMemoryError, ModelFileError, ShapeNotWarmError, UnsupportedModelError
from engines.graph import HEAD_KEY, set_metadata, to_uint8_nhwc
from engines.onnx_run import OnnxEngine
from engines.spec import CanvasShape, HeadKind, WarmShape

SHAPE = WarmShape(CanvasShape(64, 96), 2)
# Blue, green, red of two frames: as a camera gives them.
BGR = np.array([[51, 255, 102], [204, 0, 153]], np.uint8)


@pytest.fixture(params=["raw_model", "end_to_end_model"])
def path(request, save):
    """Either colour detector as a file."""
    return save(request.getfixturevalue(request.param)())


def near(scores):
    """Scores up to the rounding of a mean over thousands of float32 values."""
    return pytest.approx(scores, abs=1e-4)


def plain_frames():
    """Two frames of one colour each."""
    return np.broadcast_to(BGR[:, None, None], (2, 64, 96, 3)).copy()


def answers(engine):
    """Warm, run the two plain frames, and give (scores, classes, boxes) of each."""
    engine.warm([SHAPE])
    found = engine.infer(plain_frames()).detections
    return [(f.scores.tolist(), f.class_ids.tolist(), f.boxes_xyxy.tolist()) for f in found]


def test_boxes_scores_and_classes_are_those_worked_out_by_hand(path, boxes_xyxy):
    """The score of class red, green, blue is that colour's mean in 0..1: so BGR was swapped and divided by 255."""
    first, second = answers(OnnxEngine(path))
    assert first == (near([1.0, 0.4]), [1, 0], boxes_xyxy[[1, 0]].tolist())  # blue, 0.2, is below 0.25
    assert second == (near([0.8, 0.6]), [2, 0], boxes_xyxy[[2, 0]].tolist())


def test_limits_are_applied(path, boxes_xyxy):
    """A lower threshold finds blue too, and one box a frame is one box a frame."""
    first, second = answers(OnnxEngine(path, limits=DetectionLimits(min_score=0.1)))
    assert first == (near([1.0, 0.4, 0.2]), [1, 0, 2], boxes_xyxy[[1, 0, 2]].tolist())
    assert second[1] == [2, 0]
    assert [a[1] for a in answers(OnnxEngine(path, limits=DetectionLimits(max_boxes=1)))] == [[1], [2]]


@pytest.mark.parametrize("num_threads", [0, 1, 2])
def test_the_number_of_threads_changes_no_answer(path, num_threads):
    """Threads are about time only."""
    assert [a[1] for a in answers(OnnxEngine(path, num_threads=num_threads))] == [[1, 0], [2, 0]]


def test_a_negative_number_of_threads_is_refused(path):
    """The message names the argument and the range."""
    with pytest.raises(ValueError, match=r"num_threads: got -1, allowed is 0 \(one a core\) or more"):
        OnnxEngine(path, num_threads=-1)


def test_a_model_with_fixed_axes_runs_at_its_own_shape_only(raw_model, save):
    """Other shapes are refused when warming, before any device sees them."""
    engine = OnnxEngine(save(raw_model(axes=(2, 3, 64, 96))))
    assert (engine.model.fixed_canvas, engine.model.fixed_batch) == (CanvasShape(64, 96), 2)
    assert [a[1] for a in answers(engine)] == [[1, 0], [2, 0]]
    for shape in (WarmShape(CanvasShape(96, 64), 2), WarmShape(CanvasShape(64, 96), 1)):
        with pytest.raises(CanvasError, match="exported for canvas 64x96 and batch 2 only"):
            engine.warm([shape])


def test_a_model_that_takes_bytes_already_runs_the_same(raw_model, save, boxes_xyxy):
    """What our exporter writes is served as what ultralytics' exporter writes."""
    first, _ = answers(OnnxEngine(save(to_uint8_nhwc(raw_model()))))
    assert first == (near([1.0, 0.4]), [1, 0], boxes_xyxy[[1, 0]].tolist())


def test_the_model_is_read_when_the_engine_is_made(tmp_path, classifier, raw_model, save):
    """A wrong path or model is told at once, not by the first frame."""
    with pytest.raises(ModelFileError, match="no such file"):
        OnnxEngine(tmp_path / "gone.onnx")
    with pytest.raises(UnsupportedModelError, match=r"tiny\.onnx: got an output of shape \[1, 3\]"):
        OnnxEngine(save(classifier))
    with pytest.raises(UnsupportedModelError, match=r"tiny\.onnx: got task 'segment'"):
        OnnxEngine(save(raw_model({"task": "segment"})))


def test_the_file_is_not_needed_after_construction(path):
    """A model may be replaced on disk while replicas run."""
    engine = OnnxEngine(path)
    path.unlink()
    assert [a[1] for a in answers(engine)] == [[1, 0], [2, 0]]


def test_a_closed_engine_can_be_warmed_again(path):
    """`close` frees the session, `warm` makes a new one."""
    engine = OnnxEngine(path)
    engine.warm([SHAPE])
    engine.close()
    with pytest.raises(ShapeNotWarmError, match="none yet"):
        engine.infer(plain_frames())
    assert [a[1] for a in answers(engine)] == [[1, 0], [2, 0]]


def test_running_out_of_memory_is_an_error_of_its_own(path, monkeypatch):
    """What the runtime says is passed on with the cure, and the engine stays usable."""
    engine = OnnxEngine(path)
    engine.warm([SHAPE])

    class FullDevice:
        """A session on a device without memory."""

        def run(self, *_):
            """As ONNX Runtime's arena says it."""
            raise RuntimeError("bfc_arena.cc: Failed to allocate memory for requested buffer of size 9\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_session", FullDevice())
        with pytest.raises(EngineMemoryError) as caught:
            engine.infer(plain_frames())
    message = str(caught.value)
    assert "batch of shape (2, 64, 96, 3)" in message
    assert "Failed to allocate memory" in message
    assert "smaller canvas or batch" in message
    assert len(engine.infer(plain_frames()).detections) == 2


def test_a_graph_that_the_runtime_cannot_load_is_a_model_file_error(raw_model, save):
    """Sound ONNX with an operator that this runtime lacks: told when warming, with its version and a cure."""
    model = raw_model()
    set_metadata(model, {HEAD_KEY: "raw"})
    model.opset_import.add(domain="com.example", version=1)
    model.graph.node[-1].domain = "com.example"
    engine = OnnxEngine(save(model))
    with pytest.raises(ModelFileError, match=r"ONNX Runtime [\d.]+ cannot load \(.*framelane export"):
        engine.warm([SHAPE])


def test_heads_are_told_apart(raw_model, end_to_end_model, save):
    """Each model is decoded by the rules of its own head."""
    assert OnnxEngine(save(raw_model())).model.head is HeadKind.RAW
    assert OnnxEngine(save(end_to_end_model())).model.head is HeadKind.END_TO_END


def test_damaged_weights_are_found_at_warm_up(save, raw_model):
    """Values that are no numbers would silently find nothing: every comparison with them is false."""
    model = raw_model()
    for weights in model.graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype == np.float32:
            weights.CopyFrom(numpy_helper.from_array(np.full_like(values, np.nan), weights.name))
    engine = OnnxEngine(save(model))
    with pytest.raises(ModelFileError, match="weights are damaged; export it again"):
        engine.warm([SHAPE])
