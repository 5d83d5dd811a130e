"""Canvases, the profile over them, and which shapes a model can take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import CanvasError
from engines.spec import CanvasShape, HeadKind, ModelInfo, WarmShape, check_shapes, fitting_canvas

FREE_MODEL = ModelInfo(("thing",), 32, HeadKind.RAW)
FIXED_MODEL = ModelInfo(("thing",), 32, HeadKind.RAW, fixed_canvas=CanvasShape(64, 96), fixed_batch=2)


def test_a_canvas_is_written_height_first():
    """The text is the one that plans and messages use."""
    assert (str(CanvasShape(384, 640)), CanvasShape(384, 640).num_px) == ("384x640", 245_760)


@pytest.mark.parametrize(
    ("size_hw", "canvas"),
    [
        pytest.param((1080, 810), (1088, 832), id="up-to-the-stride"),
        pytest.param((810, 1080), (832, 1088), id="transposed"),
        pytest.param((64, 96), (64, 96), id="fits-exactly"),
        pytest.param((65, 96), (96, 96), id="one-row-more"),
        pytest.param((1, 1), (32, 32), id="tiny"),
        pytest.param((0, 0), (32, 32), id="nothing"),
    ],
)
def test_fitting_canvas_is_the_smallest_that_holds_the_frame(size_hw, canvas):
    """Each side is rounded up to the stride."""
    assert fitting_canvas(size_hw, 32) == CanvasShape(*canvas)


@given(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), st.sampled_from([8, 16, 32, 64]))
def test_fitting_canvas_always_passes_the_shape_check(size_hw, stride_px):
    """What we suggest is never refused, holds the frame, and is less than a stride larger."""
    canvas = fitting_canvas(size_hw, stride_px)
    check_shapes([WarmShape(canvas, 1)], ModelInfo(("thing",), stride_px, HeadKind.RAW))
    assert all(0 <= side - wanted < stride_px for side, wanted in zip(canvas, size_hw, strict=True))


@pytest.mark.parametrize(
    "canvas_hw",
    [(100, 64), (64, 100), (0, 64), (64, 0), (-32, 64), (64, -32), (16, 64), (31, 31)],
    ids=lambda canvas_hw: f"{canvas_hw[0]}x{canvas_hw[1]}",
)
def test_a_canvas_off_the_stride_is_refused_with_the_next_one(canvas_hw):
    """The message says what was got, the stride, and a canvas that works."""
    canvas = CanvasShape(*canvas_hw)
    with pytest.raises(CanvasError) as caught:
        check_shapes([WarmShape(CanvasShape(64, 64), 1), WarmShape(canvas, 1)], FREE_MODEL)
    message = str(caught.value)
    assert f"canvas {canvas}: got height {canvas.height} and width {canvas.width}" in message
    assert "multiples of the model's stride, 32" in message
    assert f"the next one up is {fitting_canvas(canvas, 32)}" in message


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_below_one_is_refused(batch):
    """There is no batch of nothing."""
    with pytest.raises(CanvasError, match=rf"canvas 64x64: got batch size {batch}, allowed is 1 or more"):
        check_shapes([WarmShape(CanvasShape(64, 64), batch)], FREE_MODEL)


def test_a_model_with_fixed_axes_takes_its_own_shape():
    """What it was exported for is allowed."""
    check_shapes([WarmShape(CanvasShape(64, 96), 2)], FIXED_MODEL)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(WarmShape(CanvasShape(96, 64), 2), id="transposed-canvas"),
        pytest.param(WarmShape(CanvasShape(64, 96), 1), id="other-batch"),
    ],
)
def test_a_model_with_fixed_axes_refuses_every_other_shape(shape):
    """The message names shape, what the model was exported for, and how to free its axes."""
    with pytest.raises(CanvasError) as caught:
        check_shapes([shape], FIXED_MODEL)
    message = str(caught.value)
    assert f"canvas {shape.canvas}, batch {shape.batch}" in message
    assert "exported for canvas 64x96 and batch 2 only" in message
    assert "framelane export" in message
