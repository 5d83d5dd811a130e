"""Small pictures of frames of any size, with their boxes."""

from __future__ import annotations

import asyncio

import cv2
import numpy as np
import pytest

from engines.detections import Detections
from serve_app.live.live_report import FrameSeen
from serve_app.live.pictures import MAX_PICTURES, MAX_SIDE_PX, Pictures, jpeg_of, key_of
from serve_app.live.source import FrameToFetch


def seen(camera="gate-1", frame_id="f-1", *boxes_xyxy):
    """A frame with these boxes."""
    number = len(boxes_xyxy)
    found = Detections(
        np.array(boxes_xyxy, np.float32).reshape(-1, 4), np.full(number, 0.5, np.float32), np.zeros(number, np.int64)
    )
    return FrameSeen(camera, frame_id, 10, found, ("thing",) * number)


@pytest.mark.parametrize(
    ("size_hw", "small_hw"),
    [((1080, 1920), (270, 480)), ((1920, 1080), (480, 270)), ((100, 200), (100, 200)), ((1, 4000), (1, 480))],
)
def test_a_picture_keeps_the_frame_s_shape_within_its_bound(size_hw, small_hw):
    """Never enlarged, at least a pixel high."""
    image_hwc = np.zeros((*size_hw, 3), np.uint8)
    image_hwc.setflags(write=False)  # as the object store gives it

    jpeg = cv2.imdecode(np.frombuffer(jpeg_of(image_hwc, seen()), np.uint8), cv2.IMREAD_COLOR)

    assert jpeg.shape == (*small_hw, 3)
    assert max(jpeg.shape) <= MAX_SIDE_PX


def test_boxes_stand_where_they_stood_on_the_frame():
    """Shrunk with it, on a picture that is not square."""
    jpeg = jpeg_of(np.zeros((1080, 1920, 3), np.uint8), seen("a", "f", (960, 540, 1440, 1000)))

    lit = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).max(axis=2) > 100
    rows, columns = np.nonzero(lit)
    assert (columns.min(), columns.max()) == pytest.approx((240, 360), abs=2)
    assert rows.max() == pytest.approx(250, abs=2)


def test_a_camera_s_key_tells_nothing_of_its_name_and_is_fit_for_an_address():
    """Whatever it is called."""
    keys = {key_of(name) for name in ("a", "../../etc/passwd", "<script>", "\ud800", "x" * 10_000, "")}
    assert len(keys) == 6
    assert all(key.isalnum() and len(key) == 16 for key in keys)


def test_one_that_cannot_be_fetched_harms_no_other():
    """Its sender may have died with the pixels."""

    def gone():
        raise OSError("owner died")

    async def main():
        pictures = Pictures()
        whole = FrameToFetch(seen("b"), lambda: np.zeros((48, 64, 3), np.uint8))
        await pictures.make([FrameToFetch(seen("a"), gone), whole])
        assert pictures.known() == {"b": "f-1"}
        assert pictures.find(key_of("a")) is None
        for number in range(MAX_PICTURES + 10):
            await pictures.make([FrameToFetch(seen(f"c{number}"), whole.fetch)])
        assert len(pictures.known()) == MAX_PICTURES
        pictures.clear()
        assert pictures.known() == {}

    asyncio.run(main())
