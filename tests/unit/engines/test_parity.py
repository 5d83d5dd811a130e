"""Comparing what two engines find, and holding a reduced precision to it."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from engines.detections import Detections
from engines.engine_spec import Precision
from engines.errors import PrecisionError
from engines.image_file import read_image
from engines.parity import CANDIDATES, Tolerance, check_precision, compare, detect_all, engine_of, native_shape
from engines.prepared_graph import PreparedGraph, prepared_onnx
from engines.spec import CanvasShape, WarmShape
from framelane_inspection.scenes import draw_scene

SHARED = Path(__file__).resolve().parents[4] / "shared"
MODELS = Path(str(resources.files("framelane_inspection"))) / "models"
# Scores of these lie well above what is answered, so that nothing is excused by accident.
SQUARE = (10, 10, 20, 20)


def found(*boxes):
    """Detections of one frame from (corners, score) or (corners, score, class)."""
    rows = [(corners, score, *rest, 0)[:3] for corners, score, *rest in boxes]
    return Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
    )


def test_the_same_detections_are_the_same():
    """Every box has its counterpart, and nothing differs."""
    frames = [found((SQUARE, 0.9), ((30, 30, 50, 40), 0.8, 1)), found(), found((SQUARE, 0.5))]
    parity = compare(frames, frames)
    assert (parity.num_frames, parity.num_matched, parity.only_found, parity.only_wanted) == (3, 3, (), ())
    assert (parity.lowest_iou, parity.mean_iou) == (1, 1)
    assert (parity.largest_score_difference, parity.largest_corner_difference_px) == (0, 0)
    assert parity.excesses(Tolerance(1, 0)) == []


def test_figures_of_pairs_are_those_of_arithmetic():
    """A box of 10×10 px moved by 1 px shares 90 of 110 px²."""
    wanted = [found((SQUARE, 0.9), ((30, 30, 50, 40), 0.8))]
    parity = compare([found(((11, 10, 21, 20), 0.85), ((30, 30, 50, 40), 0.81))], wanted)
    assert parity.lowest_iou == pytest.approx(90 / 110)
    assert parity.mean_iou == pytest.approx((90 / 110 + 1) / 2)
    assert parity.largest_score_difference == pytest.approx(0.05)
    assert parity.largest_corner_difference_px == 1


def test_a_box_of_another_class_is_no_counterpart():
    """Both are alone, at their own scores."""
    parity = compare([found((SQUARE, 0.9, 0))], [found((SQUARE, 0.8, 1))])
    assert parity.num_matched == 0
    assert [(box.class_id, round(box.score, 3)) for box in parity.only_found] == [(0, 0.9)]
    assert [(box.class_id, round(box.score, 3)) for box in parity.only_wanted] == [(1, 0.8)]


def test_a_box_of_another_frame_is_no_counterpart():
    """Boxes meet within their frame only."""
    parity = compare([found((SQUARE, 0.9)), found()], [found(), found((SQUARE, 0.9))])
    assert (parity.num_matched, parity.only_found[0].frame, parity.only_wanted[0].frame) == (0, 0, 1)


def test_each_box_has_one_counterpart_at_most():
    """Two boxes on one: the closest is its pair, the other is alone."""
    parity = compare([found((SQUARE, 0.9), ((10, 10, 20, 21), 0.9))], [found((SQUARE, 0.9))])
    assert (parity.num_matched, parity.lowest_iou) == (1, 1)
    assert [box.corners_xyxy for box in parity.only_found] == [(10, 10, 20, 21)]


def test_boxes_that_lie_on_each_other_are_paired_by_their_scores():
    """Before NMS an object has many boxes in nearly the same place; place alone would pair them crosswise."""
    wanted = [found(((10, 10, 20, 20), 0.9), ((10, 10, 20, 20.02), 0.4))]
    got = [found(((10, 10, 20, 20.02), 0.9), ((10, 10, 20, 20), 0.4))]
    assert compare(got, wanted).largest_score_difference == 0


@pytest.mark.parametrize("found_it", [True, False], ids=["only-found", "only-wanted"])
@pytest.mark.parametrize(("score", "is_excused"), [(0.26, True), (0.28, False)], ids=["at-the-threshold", "above"])
def test_only_a_box_at_the_threshold_may_be_missing(found_it, score, is_excused):
    """Where the least score is 0.25 and scores may differ by 0.02, 0.26 may have been 0.24."""
    one, none = [found((SQUARE, score))], [found()]
    parity = compare(one, none) if found_it else compare(none, one)
    assert (parity.excesses(Tolerance(max_score_difference=0.02)) == []) is is_excused


def test_the_threshold_is_the_engines_own():
    """Engines that answer from 0.5 on may differ at 0.51."""
    assert compare([found((SQUARE, 0.51))], [found()], min_score=0.5).excesses(Tolerance()) == []


@pytest.mark.parametrize(("num_boxes", "is_excused"), [(300, True), (299, False)], ids=["full", "not-full"])
def test_a_full_answer_ends_at_its_lowest_score(num_boxes, is_excused):
    """An end-to-end head gives its best 300: which of two near the last one is among them is chance."""
    rest = [((20 * i, 0, 20 * i + 10, 10), 0.6) for i in range(num_boxes - 1)]
    mine, theirs = found(*rest, ((0, 50, 10, 60), 0.6)), found(*rest, ((0, 90, 10, 99), 0.6))
    assert (compare([mine], [theirs]).excesses(Tolerance()) == []) is is_excused


def test_an_excess_says_which_box_what_was_got_and_what_is_allowed():
    """Missing boxes come first, then places, then scores."""
    wanted = [found((SQUARE, 0.9), ((30, 30, 50, 40), 0.8), ((60, 60, 70, 70), 0.7))]
    parity = compare([found(((11, 10, 21, 20), 0.9), ((30, 30, 50, 40), 0.7))], wanted)
    missing, moved, rated = map(str, parity.excesses(Tolerance(0.98, 0.02)))
    assert missing == (
        "box (60.0, 60.0, 70.0, 70.0) px of class 0, score 0.700: "
        "got no such box on the other side, allowed is that up to a score of 0.270"
    )
    assert moved == (
        "box (10.0, 10.0, 20.0, 20.0) px of class 0, score 0.900: got an IoU of 0.8182, allowed is 0.9800 or more"
    )
    assert rated == (
        "box (30.0, 30.0, 50.0, 40.0) px of class 0, score 0.800: "
        "got a score that differs by 0.1000, allowed is 0.0200 or less"
    )


def test_a_score_that_is_no_number_is_an_excess():
    """NaN compares with nothing, and must not pass for that."""
    assert len(compare([found((SQUARE, np.nan))], [found((SQUARE, np.nan))]).excesses(Tolerance())) >= 1


def test_boxes_without_area_break_nothing():
    """They share nothing with anyone."""
    parity = compare([found(((5, 5, 5, 9), 0.9))], [found(((5, 5, 5, 9), 0.9))])
    assert parity.num_matched == 0


@pytest.mark.parametrize("changes", [{"min_iou": 1.1}, {"max_score_difference": -0.1}], ids=str)
def test_a_tolerance_outside_its_range_is_refused(changes):
    """Both are shares."""
    with pytest.raises(ValueError, match="allowed is 0 to 1"):
        Tolerance(**changes)


boxes = st.tuples(
    st.tuples(st.integers(0, 40), st.integers(0, 30), st.integers(1, 30), st.integers(1, 20)),
    st.integers(26, 100),
    st.integers(0, 2),
)


def as_found(rows):
    """Detections of hypothesis' boxes."""
    return found(*(((x, y, x + w, y + h), score / 100, class_id) for (x, y, w, h), score, class_id in rows))


@given(st.lists(boxes, max_size=8), st.lists(boxes, max_size=8))
def test_every_box_is_in_one_pair_or_alone(mine, theirs):
    """Nothing is lost, nothing counted twice, and pairs are of one class."""
    parity = compare([as_found(mine)], [as_found(theirs)])
    assert parity.num_matched + len(parity.only_found) == len(mine)
    assert parity.num_matched + len(parity.only_wanted) == len(theirs)
    assert all(pair.found.class_id == pair.wanted.class_id and pair.iou >= 0.5 for pair in parity.pairs)


@given(st.lists(boxes, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_boxes_does_not_matter(rows, random):
    """Runtimes break ties of scores in their own ways."""
    shuffled = list(rows)
    random.shuffle(shuffled)
    parity = compare([as_found(shuffled)], [as_found(rows)])
    assert (parity.num_matched, parity.lowest_iou, parity.largest_score_difference) == (len(rows), 1, 0)


# --- whole graphs


def test_frames_are_compared_at_their_own_size_and_answered_in_their_own_px(raw_model, save, boxes_xyxy):
    """Each frame on the canvas that holds it; boxes come back in px of the frame."""
    engine = engine_of(prepared_onnx(save(raw_model()), Precision.FP32))
    white = np.full((70, 90, 3), 255, np.uint8)
    assert native_shape(white, engine.model) == WarmShape(CanvasShape(96, 96), 1)
    (answer,) = detect_all(engine, [white])
    expected = (boxes_xyxy - [0, 10, 0, 10]) * (90 / 96)  # 90×70 px grow to 96×75, 10 px below the top
    np.testing.assert_allclose(
        np.sort(answer.boxes_xyxy, 0), np.sort(expected.clip(0, [90, 70, 90, 70])[1:], 0), atol=0.5
    )


def test_a_model_of_one_shape_is_compared_at_that(grid_model, save):
    """Canvas and batch that it was exported for; the other slots stay empty."""
    full = prepared_onnx(save(grid_model(axes=(2, 3, 64, 128))), Precision.FP32)
    frame = np.random.default_rng(1).integers(0, 256, (40, 200, 3), np.uint8)
    assert native_shape(frame, full.info) == WarmShape(CanvasShape(64, 128), 2)
    assert len(detect_all(engine_of(full), [frame])) == 1


def with_weights(prepared, change):
    """The same graph with other weights in its first convolution."""
    model = onnx.load_from_string(prepared.onnx_bytes)
    stem = next(tensor for tensor in model.graph.initializer if list(tensor.dims)[1:] == [3, 3, 3])
    array = numpy_helper.to_array(stem)
    stem.CopyFrom(numpy_helper.from_array(change(array).astype(array.dtype), stem.name))
    return PreparedGraph(model.SerializeToString(), prepared.info, "", 0)


SCENES = [
    draw_scene(size_hw, 7_000_000 + i).image_hwc for i, size_hw in enumerate([(320, 320), (320, 480), (480, 320)])
]


@pytest.mark.parametrize("name", ["inspection-full", "inspection-light"])
def test_fp16_finds_on_scenes_what_fp32_finds(name):
    """The bundled models, wide, tall and square, within the tolerance, on scenes that show something."""
    full, reduced = (
        prepared_onnx(MODELS / f"{name}.onnx", precision) for precision in (Precision.FP32, Precision.FP16)
    )
    parity = check_precision(full, reduced, SCENES)
    assert all(parity.of_frame(i).num_matched > 10 for i in range(len(SCENES)))
    assert parity.lowest_iou > 0.98


def test_fp16_finds_on_real_frames_what_fp32_finds():
    """A detector of people on street video and photos."""
    media = SHARED / "media"
    paths = [media / "bus.jpg", media / "zidane.jpg", media / "vtest.avi", SHARED / "models" / "person-v8s.onnx"]
    for path in paths:
        if not path.is_file():
            pytest.skip(f"{path} is not here")
    frames = [read_image(paths[0]), read_image(paths[1])]
    capture = cv2.VideoCapture(str(paths[2]))
    frames += [capture.read()[1]]
    capture.release()
    full, reduced = (prepared_onnx(paths[3], precision) for precision in (Precision.FP32, Precision.FP16))
    parity = check_precision(full, reduced, frames)
    assert all(parity.of_frame(i).num_matched > 3 for i in range(len(frames)))


def test_a_graph_that_finds_something_else_is_refused():
    """The error names the frame, the box, what was got, what is allowed and the cure."""
    full = prepared_onnx(MODELS / "inspection-light.onnx", Precision.FP32)
    worse = with_weights(prepared_onnx(MODELS / "inspection-light.onnx", Precision.FP16), lambda w: w[::-1])
    with pytest.raises(PrecisionError) as caught:
        check_precision(full, worse, SCENES[:1])
    message = str(caught.value)
    assert message.startswith("precision: frame 0, box (")
    assert "px of class" in message
    assert "got " in message
    assert "allowed is" in message
    assert message.endswith("set precision: fp32")


def test_a_graph_that_overflows_is_refused():
    """Activations that FP16 cannot hold end as values that are no numbers."""
    path = MODELS / "inspection-light.onnx"
    full, reduced = prepared_onnx(path, Precision.FP32), prepared_onnx(path, Precision.FP16)
    broken = with_weights(reduced, lambda w: np.full_like(w, 60_000))
    with pytest.raises(PrecisionError, match=r"the reduced graph cannot be used.*no numbers.*set precision: fp32"):
        check_precision(full, broken, SCENES[:1])


def test_a_stricter_tolerance_refuses_what_the_default_lets_pass():
    """FP16 is not FP32."""
    path = MODELS / "inspection-light.onnx"
    full, reduced = prepared_onnx(path, Precision.FP32), prepared_onnx(path, Precision.FP16)
    with pytest.raises(PrecisionError, match="IoU"):
        check_precision(full, reduced, SCENES[:1], Tolerance(min_iou=1.0, max_score_difference=1.0))


def test_frames_that_show_nothing_show_nothing():
    """No pair: the caller is told by the number, and nothing is refused."""
    path = MODELS / "inspection-light.onnx"
    full, reduced = prepared_onnx(path, Precision.FP32), prepared_onnx(path, Precision.FP16)
    assert check_precision(full, reduced, [np.full((64, 64, 3), 114, np.uint8)]).num_matched == 0


def test_comparing_before_nms_keeps_every_candidate():
    """The limits of a comparison are the service's own, but for NMS."""
    assert dataclasses.replace(CANDIDATES, max_iou=0.7, max_boxes=300) == type(CANDIDATES)()
    path = MODELS / "inspection-light.onnx"
    graph = prepared_onnx(path, Precision.FP32)
    (before,), (after,) = (
        detect_all(engine_of(graph), SCENES[:1]),
        detect_all(engine_of(graph, type(CANDIDATES)()), SCENES[:1]),
    )
    assert len(before) > len(after) > 0
