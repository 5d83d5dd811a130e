"""Frames of any size through an engine and back into their own pixels."""

from __future__ import annotations

import numpy as np
import pytest

from engines.detector import PlacedBatch, detect_placed, place_batch
from engines.fake import FakeEngine
from engines.letterbox import FILL, placement
from engines.spec import CanvasShape, WarmShape

CANVAS = CanvasShape(64, 128)


def frame(height, width, value=0):
    """A frame of one brightness."""
    return np.full((height, width, 3), value, np.uint8)


def warm_engine(*batches, canvas=CANVAS):
    """A fake engine that is warm for a canvas at some batch sizes."""
    engine = FakeEngine({}, sleep=lambda _: None)
    engine.warm([WarmShape(canvas, batch) for batch in batches])
    return engine


def test_frames_of_mixed_sizes_share_a_canvas():
    """Each slot holds its own frame at its own place on grey."""
    images = [frame(64, 128, 10), frame(64, 64, 20), frame(32, 128, 30)]
    placed = place_batch(images, CANVAS)
    wanted = np.full((3, 64, 128, 3), FILL, np.uint8)
    wanted[0], wanted[1, :, 32:96], wanted[2, 16:48] = 10, 20, 30
    np.testing.assert_array_equal(placed.batch_nhwc, wanted)
    assert placed.placements == tuple(placement(image.shape[:2], CANVAS) for image in images)


def test_an_empty_slot_is_grey_and_keeps_the_batch_size():
    """A frame that turned out unreadable must not change the warmed shape."""
    placed = place_batch([frame(64, 128, 10), None], CANVAS)
    assert placed.batch_nhwc.shape == (2, 64, 128, 3)
    assert (placed.batch_nhwc[0] == 10).all()
    assert (placed.batch_nhwc[1] == FILL).all()
    assert placed.placements == (placement((64, 128), CANVAS), None)


def test_a_single_empty_slot_is_a_grey_batch_of_one():
    """The one frame of a batch may be the unreadable one."""
    placed = place_batch([None], CANVAS)
    np.testing.assert_array_equal(placed.batch_nhwc, np.full((1, 64, 128, 3), FILL, np.uint8))
    assert placed.placements == (None,)


def test_one_frame_of_the_canvas_size_is_not_copied():
    """The batch is a view of it."""
    image_hwc = frame(64, 128, 10)
    assert np.shares_memory(place_batch([image_hwc], CANVAS).batch_nhwc, image_hwc)


@pytest.mark.parametrize(
    "image_hwc",
    [
        pytest.param(
            np.random.default_rng(0).integers(0, 256, (128, 64, 3), np.uint8).transpose(1, 0, 2), id="strided"
        ),
        pytest.param(frame(128, 64), id="transposed-size"),
        pytest.param(frame(63, 128), id="one-row-less"),
    ],
)
def test_every_other_single_frame_is_drawn_into_a_contiguous_batch(image_hwc):
    """Engines need C-contiguous memory."""
    batch_nhwc = place_batch([image_hwc], CANVAS).batch_nhwc
    assert not np.shares_memory(batch_nhwc, image_hwc)
    assert batch_nhwc.flags.c_contiguous
    assert batch_nhwc.shape == (1, 64, 128, 3)


def test_a_strided_frame_of_the_canvas_size_keeps_its_content():
    """The copy has the same pixels."""
    image_hwc = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)[:, ::-1]
    np.testing.assert_array_equal(place_batch([image_hwc], CANVAS).batch_nhwc[0], image_hwc)


def test_two_frames_of_the_canvas_size_become_one_batch():
    """No view can hold two arrays."""
    batch_nhwc = place_batch([frame(64, 128, 1), frame(64, 128, 2)], CANVAS).batch_nhwc
    assert batch_nhwc[:, 0, 0, 0].tolist() == [1, 2]


def test_boxes_are_mapped_into_each_frames_own_pixels():
    """The fake's box covers the middle half of the canvas: clipped or stretched, frame by frame."""
    images = [frame(128, 256), frame(64, 64), frame(16, 128)]
    output = detect_placed(warm_engine(3), place_batch(images, CANVAS))
    # On the canvas: x 32..96, y 16..48. The second frame lies at x 32..96, the third at y 24..40.
    assert [found.boxes_xyxy.tolist() for found in output.detections] == [
        [[64, 32, 192, 96]],
        [[0, 16, 64, 48]],
        [[32, 0, 96, 16]],
    ]


def test_an_empty_slot_has_no_detections_and_shifts_none():
    """Whatever the network sees on grey is nobody's; the slots after it keep their own answers."""
    images = [frame(64, 128, 51), None, frame(64, 128, 255)]
    output = detect_placed(warm_engine(3), place_batch(images, CANVAS))
    scores = [found.scores.tolist() for found in output.detections]
    assert scores == [[pytest.approx(0.2)], [], [pytest.approx(1.0)]]


def test_times_are_those_of_the_engine():
    """Mapping boxes adds nothing to what the engine measured."""
    engine = FakeEngine({WarmShape(CANVAS, 1): 0.125}, sleep=lambda _: None)
    engine.warm([WarmShape(CANVAS, 1)])
    output = detect_placed(engine, place_batch([frame(64, 128)], CANVAS))
    assert (output.run_s, output.decode_s) == (0.125, 0.0)


def test_frames_are_only_read():
    """Read-only frames, as Ray's object store gives them, pass through place and infer."""
    images = [frame(64, 128, 3), frame(40, 30, 3)]
    for image in images:
        image.flags.writeable = False
    for batch in ([images[0]], images):
        detect_placed(warm_engine(1, 2), place_batch(batch, CANVAS))
    assert all((image == 3).all() for image in images)


def test_a_batch_and_its_placements_must_be_of_one_length():
    """A mismatch is a bug of ours and must not map one frame's boxes into another."""
    placed = place_batch([frame(64, 128), frame(64, 128)], CANVAS)
    with pytest.raises(ValueError, match="zip"):
        detect_placed(warm_engine(2), PlacedBatch(placed.batch_nhwc, placed.placements[:1]))
