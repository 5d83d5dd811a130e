"""examples/zone_counter: what it counts is what was drawn."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from example_run import run_example

from framelane_inspection.scenes import PART, draw_scene

SIZE_HW = (480, 640)
FPS, NUM_FRAMES = 4, 12
LEFT_PX = 400  # no middle, so that swapped zones are seen


@pytest.fixture
def belt(tmp_path):
    """A video of scenes, and the parts that stand left of `LEFT_PX` and right of it on each frame."""
    path = tmp_path / "belt.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, SIZE_HW[::-1])
    counts = []
    for seed in range(NUM_FRAMES):
        scene = draw_scene(SIZE_HW, seed)
        writer.write(scene.image_hwc)
        parts = scene.boxes_xyxy[scene.class_ids == PART]
        is_left = (parts[:, 0] + parts[:, 2]) / 2 < LEFT_PX
        counts.append((is_left.sum(), (~is_left).sum()))
    writer.release()
    return path, np.array(counts)


def test_zones_are_counted_over_time(belt, tmp_path):
    """An interval a second, every frame in one, and in each zone the parts that were drawn there."""
    path, drawn = belt
    corners = f"0,0 {LEFT_PX},0 {LEFT_PX},481 0,481", f"{LEFT_PX},0 641,0 641,481 {LEFT_PX},481"
    printed = run_example(
        "zone_counter/count_zones.py", path, "--zone", f"left {corners[0]}", "--zone", f"right {corners[1]}",
        "--class-name", "part", folder=tmp_path,
    )  # fmt: skip
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [(line["at_s"], line["frames"], line["missing"]) for line in lines] == [(0, 4, 0), (1, 4, 0), (2, 4, 0)]
    for line, frames in zip(lines, drawn.reshape(-1, FPS, 2), strict=True):
        for name, counts in zip(("left", "right"), frames.T, strict=True):
            # A part on the line may fall to either side, one that the edge cuts may be missed.
            assert line["zones"][name]["mean"] == pytest.approx(counts.mean(), abs=0.5)
            assert abs(line["zones"][name]["most"] - counts.max()) <= 1


@pytest.mark.parametrize("zone", ["left", "left 0,0 1,1", "left 0,0 1,1 2,x"])
def test_a_zone_that_is_none_is_refused(belt, tmp_path, zone):
    """Before anything starts."""
    with pytest.raises(AssertionError, match="--zone"):
        run_example("zone_counter/count_zones.py", belt[0], "--zone", zone, folder=tmp_path)
