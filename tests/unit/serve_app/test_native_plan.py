"""A plan for given sizes: each has a canvas of its own."""

from __future__ import annotations

from engines.spec import CanvasShape
from serve_app.native_plan import native_plan


def test_every_size_gets_its_own_canvas_once():
    """Sizes that share a canvas share a bucket; portrait and landscape do not."""
    plan = native_plan("m.onnx", [(480, 640), (640, 480), (478, 640), (1080, 1920), (480, 640)], 32)
    assert [bucket.canvases for bucket in plan.buckets] == [
        (CanvasShape(480, 640),), (CanvasShape(640, 480),), (CanvasShape(1088, 1920),),
    ]  # fmt: skip
    assert plan.canvas_for(plan.default_model, (480, 640)).canvas == (480, 640)
    assert plan.canvas_for(plan.default_model, (640, 480)).canvas == (640, 480)


def test_large_canvases_are_not_batched():
    """A batch of full-HD frames would stand in front of everything for its whole length."""
    small, large = native_plan("m.onnx", [(480, 640), (1080, 1920)], 32).buckets
    assert (small.batches, large.batches) == ((1, 2), (1,))
