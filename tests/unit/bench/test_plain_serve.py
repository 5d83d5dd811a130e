"""The baseline's own padding; the rest of it is Ray Serve's."""

from __future__ import annotations

import numpy as np
from overload_trace import SIZES_HW
from plain_serve import batch_canvases, padded

from engines.letterbox import FILL


def test_frames_stand_in_the_corner_of_the_smallest_canvas_that_holds_all():
    """So their boxes need no mapping; the height may be one frame's, the width another's."""
    wide, tall = np.full((10, 40, 3), 1, np.uint8), np.full((33, 20, 3), 2, np.uint8)

    batch = padded([wide, tall], 32)

    assert batch.shape == (2, 64, 64, 3)
    assert np.array_equal(batch[0, :10, :40], wide)
    assert np.array_equal(batch[1, :33, :20], tall)
    assert np.all(batch[0, 10:] == FILL)
    assert np.all(batch[1, :, 20:] == FILL)


def test_every_canvas_that_a_batch_can_need_is_warmed():
    """Those of the sizes themselves, and of a tall frame with a wide one."""
    assert batch_canvases(SIZES_HW, 32) == {
        (256, 320),
        (384, 640),
        (544, 960),
        (544, 416),
        (1088, 1920),
        (544, 640),
    }
