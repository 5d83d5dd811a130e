"""From output tensors to boxes: thresholds, class-aware NMS, order and both heads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import boxes
from engines.boxes import DetectionLimits, decode
from engines.spec import HeadKind

LIMITS = DetectionLimits()


def raw_output(boxes_xyxy, scores):
    """A raw output of one frame, `(1, 4 + num_classes, anchors)`, from corners and scores `(anchors, num_classes)`."""
    boxes_xyxy, scores = np.array(boxes_xyxy, np.float32).reshape(-1, 4), np.array(scores, np.float32)
    centres, sizes = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2, boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    return np.hstack([centres, sizes, scores]).T[None].astype(np.float32)


def as_rows(found):
    """Detections as a list of (x_min, y_min, x_max, y_max, score, class)."""
    return np.column_stack([found.boxes_xyxy, found.scores, found.class_ids]).tolist()


def iou(one_xyxy, other_xyxy):
    """Intersection over union, in plain words."""
    width = min(one_xyxy[2], other_xyxy[2]) - max(one_xyxy[0], other_xyxy[0])
    height = min(one_xyxy[3], other_xyxy[3]) - max(one_xyxy[1], other_xyxy[1])
    intersection = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one_xyxy, other_xyxy)]
    return intersection / (sum(areas) - intersection)


def slow_nms(boxes_xyxy, scores, limits):
    """The reference: best first, a box stays unless a kept one of its class overlaps it too much."""
    class_ids, best = scores.argmax(1), scores.max(1)
    kept = []
    for i in np.argsort(-best, kind="stable"):
        rivals = [k for k in kept if class_ids[k] == class_ids[i]]
        if best[i] > limits.min_score and all(iou(boxes_xyxy[i], boxes_xyxy[k]) <= limits.max_iou for k in rivals):
            kept.append(i)
    return [[*boxes_xyxy[i].tolist(), float(best[i]), int(class_ids[i])] for i in kept[: limits.max_boxes]]


@st.composite
def random_frames(draw):
    """Boxes in whole px (so that float32 is exact) around few centres, some beyond the canvas, with distinct scores."""
    num_anchors, num_classes = draw(st.integers(1, 25)), draw(st.integers(1, 3))
    side, near = st.integers(4, 200), st.integers(-3, 3)
    spots = draw(st.lists(st.tuples(st.integers(-40, 640), st.integers(-40, 384), side, side), min_size=1, max_size=4))
    rows = []
    for _ in range(num_anchors):
        x, y, width, height = draw(st.sampled_from(spots))
        x, y = x + draw(near), y + draw(near)
        rows.append([2 * x, 2 * y, 2 * (x + max(1, width + draw(near))), 2 * (y + max(1, height + draw(near)))])
    order = draw(st.permutations(range(num_anchors * num_classes)))
    scores = (np.array(order, np.float32).reshape(num_anchors, num_classes) + 1) / (num_anchors * num_classes + 1)
    return np.array(rows, np.float32), scores


@given(
    frame=random_frames(),
    limits=st.builds(
        DetectionLimits,
        min_score=st.sampled_from([0.0, 0.25, 0.6]),
        # Whole px give ratios of whole numbers, which these thresholds never meet: rounding decides nothing here.
        max_iou=st.sampled_from([0.30000019, 0.5000019, 0.70000019]),
        max_boxes=st.sampled_from([1, 3, 300]),
    ),
)
def test_nms_keeps_what_the_slow_reference_keeps(frame, limits):
    """The same boxes, scores and classes in the same order as two plain loops give."""
    boxes_xyxy, scores = frame
    (found,) = decode(raw_output(boxes_xyxy, scores), HeadKind.RAW, limits)
    np.testing.assert_array_equal(as_rows(found), np.array(slow_nms(boxes_xyxy, scores, limits)).reshape(-1, 6))


def test_raw_boxes_come_as_corners_with_their_best_class():
    """Centre and size become corners; each anchor answers its best class once."""
    output = raw_output([[10, 20, 30, 60], [100, 20, 104, 28]], [[0.5, 0.75], [0.9375, 0.5]])
    (found,) = decode(output, HeadKind.RAW, LIMITS)
    assert as_rows(found) == [[100, 20, 104, 28, 0.9375, 0], [10, 20, 30, 60, 0.75, 1]]
    assert (found.boxes_xyxy.dtype, found.scores.dtype, found.class_ids.dtype) == (np.float32, np.float32, np.int64)


def test_nms_is_class_aware():
    """A person on a forklift: the same box twice with two classes stays twice, with one class once."""
    same = [[10, 10, 50, 90]] * 3
    (found,) = decode(raw_output(same, [[0.5, 0], [0, 0.75], [0.625, 0]]), HeadKind.RAW, LIMITS)
    assert as_rows(found) == [[10, 10, 50, 90, 0.75, 1], [10, 10, 50, 90, 0.625, 0]]


@pytest.mark.parametrize("swapped", [False, True], ids=["outside-is-class-1", "outside-is-class-0"])
def test_a_box_beyond_the_corner_does_not_silence_another_class(swapped):
    """Boxes that reach left of and above the canvas are kept apart from other classes in the opposite corner."""
    corner, outside = [600, 600, 640, 640], [-40, -40, 1, 1]
    scores = np.array([[0.5, 0], [0, 0.75]])
    output = raw_output([corner, outside], scores[:, ::-1] if swapped else scores)
    (found,) = decode(output, HeadKind.RAW, LIMITS)
    assert as_rows(found) == [[*outside, 0.75, int(not swapped)], [*corner, 0.5, int(swapped)]]


def test_wholly_negative_boxes_of_two_classes_both_stay():
    """Class-awareness does not depend on where the origin is."""
    box = [-80, -90, -40, -30]
    (found,) = decode(raw_output([box, box], [[0.75, 0], [0, 0.5]]), HeadKind.RAW, LIMITS)
    assert as_rows(found) == [[*box, 0.75, 0], [*box, 0.5, 1]]


@pytest.mark.parametrize(
    ("height", "num_kept"),
    [pytest.param(69, 2, id="below"), pytest.param(70, 2, id="at"), pytest.param(71, 1, id="above")],
)
@pytest.mark.parametrize("transposed", [False, True], ids=["tall", "wide"])
def test_only_more_overlap_than_the_limit_drops_a_box(height, num_kept, transposed):
    """IoU 0.69 and 0.70 stay, 0.71 goes: the limit itself is allowed, as in torchvision's NMS."""
    outer, inner = [0, 0, 100, 100], [0, 0, 100, height]
    if transposed:
        inner = [0, 0, height, 100]
    (found,) = decode(raw_output([outer, inner], [[0.75], [0.5]]), HeadKind.RAW, LIMITS)
    assert as_rows(found) == [[*outer, 0.75, 0], [*inner, 0.5, 0]][:num_kept]


def test_a_dropped_box_drops_no_other():
    """Of a row of three, the middle one goes; the last overlaps only the middle one and stays."""
    row = [[0, 0, 100, 10], [15, 0, 115, 10], [30, 0, 130, 10]]
    (found,) = decode(raw_output(row, [[0.875], [0.75], [0.5]]), HeadKind.RAW, LIMITS)
    assert as_rows(found) == [[*row[0], 0.875, 0], [*row[2], 0.5, 0]]


@pytest.mark.parametrize("head", list(HeadKind), ids=lambda head: head.value)
def test_a_score_exactly_at_the_threshold_is_dropped(head):
    """Strictly more than `min_score` is answered, as in ultralytics."""
    above = np.nextafter(np.float32(0.25), np.float32(1))
    output = raw_output([[0, 0, 10, 20], [50, 0, 60, 20]], [[0.25], [above]])
    if head is HeadKind.END_TO_END:
        output = np.array([[[0, 0, 10, 20, 0.25, 0], [50, 0, 60, 20, above, 0]]], np.float32)
    (found,) = decode(output, head, LIMITS)
    assert as_rows(found) == [[50, 0, 60, 20, float(above), 0]]


@pytest.mark.parametrize("head", list(HeadKind), ids=lambda head: head.value)
def test_the_best_boxes_come_first_and_no_more_than_allowed(head):
    """`max_boxes` cuts the worst ones off."""
    corners = np.array([[20 * i, 0, 20 * i + 10, 30] for i in range(5)], np.float32)
    scores = np.array([0.5, 0.875, 0.375, 0.75, 0.625], np.float32)
    output = raw_output(corners, scores[:, None])
    if head is HeadKind.END_TO_END:
        output = np.column_stack([corners, scores, np.zeros(5)]).astype(np.float32)[None]
    (found,) = decode(output, head, DetectionLimits(max_boxes=3))
    assert as_rows(found) == [[*corners[i], scores[i], 0] for i in (1, 3, 4)]


def test_equal_scores_keep_the_order_of_the_network():
    """Ties are settled the same way on every run."""
    corners = [[20 * i, 0, 20 * i + 10, 30] for i in range(40)]
    (found,) = decode(raw_output(corners, [[0.5]] * 40), HeadKind.RAW, LIMITS)
    np.testing.assert_array_equal(found.boxes_xyxy, corners)


@pytest.mark.parametrize(
    ("output", "head"),
    [
        pytest.param(np.zeros((2, 6, 0), np.float32), HeadKind.RAW, id="raw-without-anchors"),
        pytest.param(np.zeros((2, 6, 9), np.float32), HeadKind.RAW, id="raw-without-scores"),
        pytest.param(np.zeros((2, 0, 6), np.float32), HeadKind.END_TO_END, id="end-to-end-without-rows"),
        pytest.param(np.zeros((2, 9, 6), np.float32), HeadKind.END_TO_END, id="end-to-end-without-scores"),
    ],
)
def test_nothing_found_is_an_empty_answer_for_each_frame(output, head):
    """Empty arrays of the right shapes and dtypes, one answer a frame."""
    answers = decode(output, head, LIMITS)
    described = [(f.boxes_xyxy.shape, f.boxes_xyxy.dtype, f.scores.dtype, f.class_ids.dtype) for f in answers]
    assert described == [((0, 4), np.float32, np.float32, np.int64)] * 2


def test_an_empty_batch_has_no_answers():
    """No frame, no answer."""
    assert decode(np.zeros((0, 6, 9), np.float32), HeadKind.RAW, LIMITS) == []


def test_scores_that_are_no_numbers_find_nothing():
    """A network that overflowed answers no box rather than a wrong one."""
    output = raw_output([[0, 0, 10, 20], [50, 0, 60, 20]], [[np.nan], [0.5]])
    (found,) = decode(output, HeadKind.RAW, LIMITS)
    assert as_rows(found) == [[50, 0, 60, 20, 0.5, 0]]


def test_no_more_than_the_best_candidates_reach_nms(monkeypatch):
    """A noisy frame costs bounded time: what scores below the best `MAX_CANDIDATES` is not looked at."""
    monkeypatch.setattr(boxes, "MAX_CANDIDATES", 2)
    corners = [[20 * i, 0, 20 * i + 10, 30] for i in range(4)]
    (found,) = decode(raw_output(corners, [[0.5], [0.75], [0.625], [0.875]]), HeadKind.RAW, LIMITS)
    assert as_rows(found) == [[*corners[3], 0.875, 0], [*corners[1], 0.75, 0]]


def test_the_candidate_limit_is_that_of_ultralytics():
    """`max_nms` of `non_max_suppression`."""
    assert boxes.MAX_CANDIDATES == 30_000


def test_end_to_end_rows_come_best_first_without_nms():
    """The network chose already: two equal boxes both stay; classes are read from the last column."""
    rows = [[0, 0, 10, 20, 0.5, 2], [0, 0, 10, 20, 0.75, 2], [0, 0, 0, 0, 0, 0], [5, 6, 7, 9, 0.875, 1]]
    (found,) = decode(np.array([rows], np.float32), HeadKind.END_TO_END, LIMITS)
    assert as_rows(found) == [rows[3], rows[1], rows[0]]
    assert (found.boxes_xyxy.dtype, found.scores.dtype, found.class_ids.dtype) == (np.float32, np.float32, np.int64)


@pytest.mark.parametrize("head", list(HeadKind), ids=lambda head: head.value)
def test_each_frame_is_decoded_on_its_own(head):
    """A batch gives what its frames give alone, in their order."""
    rng = np.random.default_rng(3)
    output = rng.uniform(0, 1, (3, 6, 50)).astype(np.float32)
    if head is HeadKind.END_TO_END:
        output = rng.uniform(0, 1, (3, 50, 6)).astype(np.float32)
    alone = [as_rows(decode(frame[None], head, LIMITS)[0]) for frame in output]
    assert [as_rows(found) for found in decode(output, head, LIMITS)] == alone


@pytest.mark.parametrize("head", list(HeadKind), ids=lambda head: head.value)
def test_answers_own_their_arrays(head):
    """The runner may reuse its output buffer at once; and it is only read."""
    output = np.random.default_rng(4).uniform(0.3, 1, (1, 6, 6)).astype(np.float32)
    before = output.copy()
    (found,) = decode(output, head, LIMITS)
    np.testing.assert_array_equal(output, before)
    arrays = (found.boxes_xyxy, found.scores, found.class_ids)
    assert [np.shares_memory(array, output) for array in arrays] == [False] * 3


def test_half_precision_outputs_give_float32_answers():
    """A FP16 model's answer has the dtypes of every other."""
    output = raw_output([[10, 20, 30, 60]], [[0.5]]).astype(np.float16)
    (found,) = decode(output, HeadKind.RAW, LIMITS)
    assert as_rows(found) == [[10, 20, 30, 60, 0.5, 0]]
    assert (found.boxes_xyxy.dtype, found.scores.dtype) == (np.float32, np.float32)


def test_limits_default_to_those_of_ultralytics_predict():
    """Its conf, iou and max_det: 0.25, 0.7 and 300."""
    assert DetectionLimits() == DetectionLimits(min_score=0.25, max_iou=0.7, max_boxes=300)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("min_score", -0.1, "0 to 1"),
        ("min_score", 25, "0 to 1"),
        ("min_score", float("nan"), "0 to 1"),
        ("max_iou", 1.1, "0 to 1"),
        ("max_iou", -1, "0 to 1"),
        ("max_boxes", 0, "1 or more"),
    ],
)
def test_limits_out_of_range_are_refused(name, value, allowed):
    """The message names the limit, the value and the range."""
    with pytest.raises(ValueError, match=f"{name}: got {value}, allowed is {allowed}"):
        DetectionLimits(**{name: value})
