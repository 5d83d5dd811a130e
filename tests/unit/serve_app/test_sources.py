"""Frames from files: every one in order, and what is broken is said, not passed over."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from serve_app.errors import FramelaneError
from serve_app.sources import ImageSource, ScrollingSource, SourceError, VideoSource, open_source


def write_video(path, num_frames, size_wh=(64, 48)):
    """A video whose frames are brighter and brighter."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, size_wh)
    for number in range(num_frames):
        writer.write(np.full((size_wh[1], size_wh[0], 3), 8 * number, np.uint8))
    writer.release()


def test_a_video_gives_every_frame_in_order(tmp_path):
    """Size, count and order are the file's."""
    write_video(tmp_path / "belt 1.avi", 5)
    source = open_source(str(tmp_path / "belt 1.avi"))
    frames = list(source.frames())
    assert (source.name, source.num_frames, source.first_size_hw(), source.is_live) == ("belt 1", 5, (48, 64), False)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 5
    brightness = [float(frame.mean()) for frame in frames]
    assert brightness == sorted(brightness)


def test_a_video_that_breaks_off_ends_with_an_error(tmp_path):
    """The header promises more frames than can be decoded."""
    write_video(tmp_path / "whole.avi", 30)
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    *frames, last = VideoSource(str(tmp_path / "cut.avi")).frames()
    assert 0 < len(frames) < 30
    assert isinstance(last, SourceError)
    assert f"broke off after {len(frames)}" in str(last)


def test_a_folder_gives_its_images_by_name_and_an_error_for_each_broken_one(tmp_path):
    """One bad file harms no other; the first size is that of the first readable one."""
    for name, side in (("b", 20), ("c", 30)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((side, side, 3), np.uint8))
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(str(tmp_path))
    first, *others = source.frames()
    assert source.num_frames == 3
    assert isinstance(first, FramelaneError)
    assert [frame.shape[0] for frame in others] == [20, 30]
    assert source.first_size_hw() == (20, 20)


@pytest.mark.parametrize(
    ("address", "name"),
    [("rtsp://user:secret@10.0.0.7/stream1", "10.0.0.7/stream1"), ("http://10.0.0.8/video", "http://10.0.0.8/video")],
)
def test_a_camera_address_is_live_and_its_name_keeps_no_password(address, name):
    """Nothing is opened before frames are asked for."""
    source = open_source(address)
    assert (source.is_live, source.name, source.num_frames) == (True, name, None)


@pytest.mark.parametrize("what", ["missing.mp4", "empty"])
def test_what_cannot_be_a_source_is_told(tmp_path, what):
    """A missing file, a folder without images."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="allowed are"):
        list(open_source(str(tmp_path / what)).frames())


def test_images_none_of_which_can_be_read_have_no_size(tmp_path):
    """A clear error instead of an endless search."""
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(SourceError, match="none of its 1 files"):
        ImageSource("camera", (tmp_path / "a.png",)).first_size_hw()


@pytest.mark.parametrize("width_px", [40, 100], ids=["moves", "stands"])
def test_a_scrolling_camera_stays_inside_its_picture(width_px):
    """There and back again, always of the same size, never beyond the ends."""
    wide_hwc = np.zeros((10, 100, 3), np.uint8)
    wide_hwc[..., 0] = np.arange(100)
    frames = list(ScrollingSource("belt", wide_hwc, width_px, 25, 9).frames())
    assert {frame.shape for frame in frames} == {(10, width_px, 3)}
    expected = [0, 25, 50, 45, 20, 5, 30, 55, 40] if width_px == 40 else [0] * 9
    assert [int(frame[0, 0, 0]) for frame in frames] == expected
