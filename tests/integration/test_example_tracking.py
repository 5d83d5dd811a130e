"""examples/tracking: people keep their numbers over the frames of a real video."""

from __future__ import annotations

import json
from collections import defaultdict

import cv2
import numpy as np
import pytest
from example_run import SHARED, run_example

VIDEO, MODEL = SHARED / "media" / "vtest.avi", SHARED / "models" / "person-v8s.onnx"
NUM_FRAMES = 40


@pytest.mark.skipif(not (VIDEO.is_file() and MODEL.is_file()), reason=f"no video and model in {SHARED}")
def test_people_keep_their_numbers_over_frames(tmp_path):
    """A box a frame and number, which moves as people walk; few numbers for many boxes; and a video of it."""
    printed = run_example(
        "tracking/track.py", VIDEO, "--model", MODEL, "--limit", NUM_FRAMES, "--video", "t.mp4", folder=tmp_path
    )
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["frame"] for line in lines] == list(range(NUM_FRAMES))
    assert not any("missing" in line for line in lines)

    paths = defaultdict(dict)
    for line in lines:
        for track in line["tracks"]:
            assert line["frame"] not in paths[track["id"]], "two boxes of one number on a frame"
            paths[track["id"]][line["frame"]] = np.array(track["box_xyxy"])
    num_boxes = sum(map(len, paths.values()))
    most = max(len(line["tracks"]) for line in lines)
    assert num_boxes > 3 * NUM_FRAMES
    assert most <= len(paths) <= 2 * most, "numbers change hands, or are given anew"
    assert sum(len(path) >= NUM_FRAMES - 2 for path in paths.values()) >= 2, "nobody is followed throughout"
    for path in paths.values():
        for frame in path.keys() & {frame + 1 for frame in path}:
            # Box centres of people who walk, ten frames a second; a number that jumps to another one goes further.
            moved = (path[frame][:2] + path[frame][2:] - path[frame - 1][:2] - path[frame - 1][2:]) / 2
            assert np.hypot(*moved) < 60

    video = cv2.VideoCapture(str(tmp_path / "t.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FRAME_WIDTH)) == (NUM_FRAMES, 768)
