"""The narrow profile of a bucket, and what specs look like in names and messages."""

from __future__ import annotations

import pytest

from engines.engine_spec import ComputeCapability, ShapeProfile
from engines.spec import CanvasShape, WarmShape


def test_each_axis_of_a_profile_ranges_over_the_bucket_for_itself():
    """Smallest and largest height and width may come from different canvases; tall and wide ones share a bucket."""
    profile = ShapeProfile.around([CanvasShape(480, 640), CanvasShape(640, 480), CanvasShape(512, 512)], [1, 2, 8])
    assert profile == ShapeProfile(
        min_shape=WarmShape(CanvasShape(480, 480), 1),
        opt_shape=WarmShape(CanvasShape(480, 640), 8),
        max_shape=WarmShape(CanvasShape(640, 640), 8),
    )


def test_a_bucket_of_one_shape_has_a_profile_of_one_shape():
    """Nothing is added to what is asked for: memory follows the largest shape."""
    shape = WarmShape(CanvasShape(736, 1280), 1)
    assert ShapeProfile.around([shape.canvas], [1]) == ShapeProfile(shape, shape, shape)


def test_kernels_are_tuned_for_the_most_used_canvas_at_the_largest_batch():
    """A bucket names its most used canvas first, whatever its size."""
    canvases = [CanvasShape(512, 512), CanvasShape(800, 800), CanvasShape(320, 320)]
    assert ShapeProfile.around(canvases, [1, 4]).opt_shape == WarmShape(CanvasShape(512, 512), 4)


@pytest.mark.parametrize("batches", [[1, 2, 4], [4, 2, 1]], ids=["ascending", "descending"])
def test_the_order_of_batches_does_not_matter(batches):
    """The range is that of their values."""
    profile = ShapeProfile.around([CanvasShape(320, 320)], batches)
    assert (profile.min_shape.batch, profile.max_shape.batch) == (1, 4)


def test_profiles_and_capabilities_are_told_apart_by_their_text():
    """Cache keys and messages are made of it: batch, height and width of each corner; major and minor."""
    profile = ShapeProfile.around([CanvasShape(480, 640), CanvasShape(320, 352)], [1, 8])
    assert str(profile) == "1x320x352 8x480x640 8x480x640"
    assert str(ComputeCapability(12, 0)) == "12.0"
