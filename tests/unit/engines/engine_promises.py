"""What `Engine` promises: one suite for all runners. A test module imports it whole; its fixture `case` says which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from engines.base import Engine
from engines.errors import CanvasError, ShapeNotWarmError
from engines.spec import CanvasShape, WarmShape

WIDE, TALL = CanvasShape(64, 96), CanvasShape(96, 64)
WARM = [WarmShape(WIDE, 1), WarmShape(WIDE, 3), WarmShape(TALL, 1), WarmShape(TALL, 3)]


@dataclass(frozen=True)
class EngineCase:
    """An engine under test, and a second one of the same kind and model."""

    engine: Engine
    make: Callable[[], Engine]


@pytest.fixture
def engine(case):
    """Each runner, warm for a wide and a tall canvas with batches of 1 and 3."""
    case.engine.warm(WARM)
    return case.engine


def frames(shape, seed=0):
    """Random frames of a warm shape, bright enough that the tiny models find something."""
    (height, width), batch = shape
    return np.random.default_rng(seed).integers(100, 256, (batch, height, width, 3), np.uint8)


def shape_id(shape):
    """Canvas and batch."""
    return f"{shape.canvas}-batch-{shape.batch}"


def test_the_model_is_known_before_warming(case):
    """Router and plan read names and stride before any device is touched."""
    assert case.engine.model.stride_px == 32
    assert len(case.engine.model.class_names) >= 1


@pytest.mark.parametrize("shape", WARM, ids=shape_id)
def test_every_warm_shape_gives_one_answer_a_frame(engine, shape):
    """Arrays of the promised dtypes and shapes, best score first, in 0..1, classes within the names."""
    output = engine.infer(frames(shape))
    assert len(output.detections) == shape.batch
    for found in output.detections:
        num_boxes = len(found)
        assert num_boxes >= 1
        assert (found.boxes_xyxy.shape, found.boxes_xyxy.dtype) == ((num_boxes, 4), np.float32)
        assert (found.scores.shape, found.scores.dtype) == ((num_boxes,), np.float32)
        assert (found.class_ids.shape, found.class_ids.dtype) == ((num_boxes,), np.int64)
        assert (np.diff(found.scores) <= 0).all()
        assert ((found.class_ids >= 0) & (found.class_ids < len(engine.model.class_names))).all()
    assert output.run_s >= 0
    assert output.decode_s >= 0


@pytest.mark.parametrize("canvas", [WIDE, TALL], ids=str)
def test_a_batch_equals_its_frames_one_by_one(engine, canvas):
    """Who shares the batch changes nobody's answer, and answers stay in order."""
    batch_nhwc = frames(WarmShape(canvas, 3), seed=7)
    together = engine.infer(batch_nhwc).detections
    for i, found in enumerate(together):
        (alone,) = engine.infer(batch_nhwc[i : i + 1]).detections
        np.testing.assert_allclose(found.boxes_xyxy, alone.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)
        np.testing.assert_array_equal(found.class_ids, alone.class_ids)


@pytest.mark.parametrize("shape", WARM, ids=shape_id)
def test_the_batch_is_only_read(engine, shape):
    """Read-only memory passes, and its bytes stay."""
    batch_nhwc = frames(shape)
    before = batch_nhwc.copy()
    batch_nhwc.flags.writeable = False
    engine.infer(batch_nhwc)
    np.testing.assert_array_equal(batch_nhwc, before)


def test_the_batch_may_be_reused_when_infer_returns(engine):
    """Answers do not hang on the input's memory."""
    batch_nhwc = frames(WARM[0])
    (found,) = engine.infer(batch_nhwc).detections
    before = (found.boxes_xyxy.copy(), found.scores.copy())
    batch_nhwc[:] = 0
    engine.infer(batch_nhwc)
    np.testing.assert_array_equal(found.boxes_xyxy, before[0])
    np.testing.assert_array_equal(found.scores, before[1])


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((2, 64, 96, 3), id="other-batch"),
        pytest.param((1, 96, 96, 3), id="warm-height-with-other-width"),
        pytest.param((1, 64, 64, 3), id="warm-width-with-other-height"),
        pytest.param((0, 64, 96, 3), id="no-frame"),
    ],
)
def test_a_shape_that_is_not_warm_is_refused(engine, shape):
    """It would stall on a device; the message says what was got, what is warm and what to do."""
    with pytest.raises(ShapeNotWarmError) as caught:
        engine.infer(np.zeros(shape, np.uint8))
    message = str(caught.value)
    assert f"got shape {shape}" in message
    assert "allowed are the warmed ones" in message
    assert "64" in message.split("allowed")[1]
    assert "add the canvas to the plan" in message


def test_an_engine_still_answers_after_a_refusal(engine):
    """One wrong batch costs that batch only."""
    with pytest.raises(ShapeNotWarmError):
        engine.infer(np.zeros((2, 64, 96, 3), np.uint8))
    assert len(engine.infer(frames(WARM[1])).detections) == 3


def test_a_cold_engine_answers_nothing(case):
    """No shape is warm before `warm`."""
    with pytest.raises(ShapeNotWarmError, match="none yet"):
        case.engine.infer(frames(WARM[0]))


@pytest.mark.parametrize("canvas", [CanvasShape(64, 100), CanvasShape(100, 64), CanvasShape(0, 64)], ids=str)
def test_a_canvas_off_the_stride_cannot_be_warmed(case, canvas):
    """The whole call is refused: not even its sound shapes become warm."""
    with pytest.raises(CanvasError, match="multiples of the model's stride, 32"):
        case.engine.warm([WARM[0], WarmShape(canvas, 1)])
    with pytest.raises(ShapeNotWarmError):
        case.engine.infer(frames(WARM[0]))


def test_warming_again_adds_shapes(engine):
    """A new canvas joins; the old ones stay warm."""
    square = WarmShape(CanvasShape(64, 64), 2)
    engine.warm([square])
    assert len(engine.infer(frames(square)).detections) == 2
    assert len(engine.infer(frames(WARM[1])).detections) == 3


def test_closing_twice_does_nothing_more(engine):
    """Teardown may run twice."""
    engine.close()
    engine.close()


def test_a_closed_engine_answers_nothing(engine):
    """After `close` no shape is warm."""
    engine.close()
    with pytest.raises(ShapeNotWarmError):
        engine.infer(frames(WARM[0]))


def test_a_closed_engine_can_be_warmed_again(engine):
    """So one that lost its memory is rebuilt in its place; only what was warmed since is warm."""
    before = engine.infer(frames(WARM[0], seed=9)).detections
    engine.close()
    engine.warm([WARM[0]])
    after = engine.infer(frames(WARM[0], seed=9)).detections
    assert [len(found) for found in after] == [len(found) for found in before]
    for found, again in zip(before, after, strict=True):
        np.testing.assert_array_equal(found.boxes_xyxy, again.boxes_xyxy)
    with pytest.raises(ShapeNotWarmError):
        engine.infer(frames(WARM[1]))


def test_a_cold_engine_can_be_closed(case):
    """Closing needs no warming before it."""
    case.engine.close()


def test_two_engines_of_one_model_agree(engine, case):
    """Replicas answer the same to the bit."""
    other = case.make()
    other.warm(WARM)
    batch_nhwc = frames(WARM[1], seed=9)
    for mine, theirs in zip(engine.infer(batch_nhwc).detections, other.infer(batch_nhwc).detections, strict=True):
        np.testing.assert_array_equal(mine.boxes_xyxy, theirs.boxes_xyxy)
        np.testing.assert_array_equal(mine.scores, theirs.scores)
    other.close()


def test_memory_is_counted_in_bytes(engine):
    """Never negative, and never more than there is where that is known."""
    memory = engine.memory()
    assert memory.used_bytes >= 0
    assert memory.total_bytes == 0 or memory.used_bytes <= memory.total_bytes


@pytest.mark.parametrize("shape", WARM, ids=shape_id)
def test_a_staged_batch_gives_the_same_answer(engine, shape):
    """Staging is about time only, to the bit."""
    batch_nhwc = frames(shape, seed=3)
    plain = engine.infer(batch_nhwc).detections
    engine.stage(batch_nhwc)
    assert_same(engine.infer(batch_nhwc).detections, plain)
    assert_same(engine.infer(batch_nhwc).detections, plain)


def test_a_staged_batch_that_never_comes_changes_no_answer(engine):
    """It is replaced by the next one, and a batch that was not staged goes past it."""
    first, second, third = (frames(WARM[1], seed=seed) for seed in (4, 5, 6))
    wanted = [engine.infer(batch_nhwc).detections for batch_nhwc in (first, second, third)]
    engine.stage(first)
    engine.stage(second)
    assert_same(engine.infer(third).detections, wanted[2])
    assert_same(engine.infer(second).detections, wanted[1])
    assert_same(engine.infer(first).detections, wanted[0])


def test_an_array_that_took_a_staged_ones_place_is_another_batch(engine):
    """A batch is known by the array, not by its address."""
    gone, wanted = frames(WARM[0], seed=4), engine.infer(frames(WARM[0], seed=5)).detections
    engine.stage(gone)
    gone[:] = 0
    del gone
    assert_same(engine.infer(frames(WARM[0], seed=5)).detections, wanted)


def test_a_staged_array_may_be_filled_anew_when_its_infer_has_ended(engine):
    """What was staged counts once: the next `infer` reads the array again."""
    batch_nhwc, other = frames(WARM[1], seed=4), frames(WARM[1], seed=5)
    wanted = engine.infer(other).detections
    engine.stage(batch_nhwc)
    engine.infer(batch_nhwc)
    batch_nhwc[:] = other
    assert_same(engine.infer(batch_nhwc).detections, wanted)


def test_staging_a_shape_that_is_not_warm_does_nothing(case):
    """Cold, warm for other shapes, or closed: only `infer` refuses."""
    case.engine.stage(frames(WARM[0]))
    case.engine.warm(WARM[:1])
    case.engine.stage(frames(WARM[1]))
    assert len(case.engine.infer(frames(WARM[0])).detections) == 1
    case.engine.close()
    case.engine.stage(frames(WARM[0]))


def assert_same(found, wanted):
    """The same detections to the bit."""
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mine.boxes_xyxy, theirs.boxes_xyxy)
        np.testing.assert_array_equal(mine.scores, theirs.scores)
        np.testing.assert_array_equal(mine.class_ids, theirs.class_ids)
