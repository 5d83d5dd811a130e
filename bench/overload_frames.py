"""The pictures that the cameras of `overload.py` send, drawn before anything is measured."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from overload_trace import FLEET

from engines.letterbox import Image
from framelane_inspection.scenes import draw_scene

# Content hardly changes what a frame costs; two a camera show that nothing is answered from a cache.
NUM_FRAMES_A_CAMERA = 2


def camera_frames() -> Mapping[str, Iterator[Image]]:
    """For each camera its frames, uint8 `(height, width, 3)` BGR, without end; only to be read."""
    seeds = itertools.count()
    return {
        camera: itertools.cycle(
            [draw_scene(kind.size_hw, next(seeds)).image_hwc for _ in range(NUM_FRAMES_A_CAMERA)]
        )
        for kind in FLEET
        for camera in kind.cameras
    }  # fmt: skip
