"""Frames from files: every one in order, and what is broken is said, not passed over."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from serve_app.streams import open_source as choice
from serve_app.streams.camera_spec import CameraListError, CameraSpec
from serve_app.streams.opencv_source import OpenCvCamera, VideoFile
from serve_app.streams.pyav_source import PyAvSource
from serve_app.streams.source import SourceError
from serve_app.streams.still_sources import ImageSource, ScrollingSource

WAYS = {"OpenCV": VideoFile, "PyAV": lambda path: PyAvSource(path, 5.0)}


def open_source(text, **options):
    """The source of a camera of this text."""
    return choice.open_source(CameraSpec(text, **options))


def write_video(path, num_frames, size_wh=(64, 48)):
    """A video whose frames are brighter and brighter, ten a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, size_wh)
    for number in range(num_frames):
        writer.write(np.full((size_wh[1], size_wh[0], 3), 8 * number, np.uint8))
    writer.release()


def images_of(source):
    """All frames as (seconds, pixels), and what ended them, if anything."""
    images, frames = [], source.frames()
    while True:
        try:
            item = next(frames)
        except StopIteration:
            return images, None
        except SourceError as err:
            return images, str(err)
        images.append(item if isinstance(item, SourceError) else (round(item.at_s, 3), item.decode()))


@pytest.mark.parametrize("way", WAYS)
def test_a_video_gives_every_frame_in_order_with_its_time(tmp_path, way):
    """Size, count, times and order are the file's, whoever decodes it."""
    write_video(tmp_path / "belt 1.avi", 5)
    source = WAYS[way](str(tmp_path / "belt 1.avi"))
    frames, error = images_of(source)
    assert error is None
    assert (source.name, source.first_size_hw()) == ("belt 1", (48, 64))
    assert [at_s for at_s, _ in frames] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert {(image.shape, image.dtype.name) for _, image in frames} == {((48, 64, 3), "uint8")}
    brightness = [float(image.mean()) for _, image in frames]
    assert brightness == sorted(brightness)


def test_both_decoders_see_the_same_pixels(tmp_path):
    """Up to rounding."""
    write_video(tmp_path / "belt.avi", 3)
    first, second = (images_of(make(str(tmp_path / "belt.avi")))[0] for make in WAYS.values())
    for (_, one), (_, other) in zip(first, second, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 4


@pytest.mark.parametrize("name", ["Überwachung 東.avi", 'a\'b "c" %d.avi'])
def test_names_of_files_are_taken_as_they_are(tmp_path, name):
    """Other scripts, quotes, and what FFmpeg might take for a pattern."""
    write_video(tmp_path / "x.avi", 2)
    (tmp_path / "x.avi").rename(tmp_path / name)
    source = open_source(str(tmp_path / name))
    assert (len(images_of(source)[0]), source.num_frames, source.name) == (2, 2, name.removesuffix(".avi"))


def test_a_video_that_breaks_off_ends_with_an_error(tmp_path):
    """The header promises more frames than can be decoded."""
    write_video(tmp_path / "whole.avi", 30)
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    frames, error = images_of(VideoFile(str(tmp_path / "cut.avi")))
    assert 0 < len(frames) < 30
    assert f"broke off after {len(frames)} of 30" in error


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "content", [b"", b"no video at all", b"RIFF\x00\x00\x00\x00AVI LIST"], ids=["empty", "text", "head"]
)
def test_a_file_that_holds_no_video_is_told(tmp_path, way, content):
    """Zero bytes, text, a header alone."""
    (tmp_path / "x.avi").write_bytes(content)
    frames, error = images_of(WAYS[way](str(tmp_path / "x.avi")))
    assert frames == []
    assert error.startswith("source x: ")


def test_a_video_without_a_frame_is_told(tmp_path):
    """A whole file of no length."""
    write_video(tmp_path / "none.avi", 0)
    assert images_of(VideoFile(str(tmp_path / "none.avi")))[1].startswith("source none: ")
    with pytest.raises(SourceError, match="source none"):
        VideoFile(str(tmp_path / "none.avi")).first_size_hw()


def test_a_folder_gives_its_images_by_name_and_an_error_for_each_broken_one(tmp_path):
    """One bad file harms no other; the first size is that of the first readable one."""
    for name, side in (("b", 20), ("c", 30)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((side, side, 3), np.uint8))
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(str(tmp_path))
    (first, *others), error = images_of(source)
    assert (source.num_frames, error) == (3, None)
    assert isinstance(first, SourceError)
    assert [image.shape[0] for _, image in others] == [20, 30]
    assert (source.first_size_hw(), source.sizes_hw()) == ((20, 20), {(20, 20), (30, 30)})


@pytest.mark.parametrize(
    ("text", "kind"),
    [("rtsp://10.0.0.7/x", PyAvSource), ("http://10.0.0.7/x", PyAvSource), ("0", OpenCvCamera),
     ("/dev/video0", OpenCvCamera), ("x.mp4", VideoFile), ("x.PNG", ImageSource)],
)  # fmt: skip
def test_each_kind_of_source_has_its_reader(text, kind):
    """Nothing is opened before frames are asked for."""
    assert isinstance(open_source(text), kind)


def test_without_pyav_opencv_reads_cameras_and_devices_are_refused(monkeypatch):
    """The core needs no extra; what does says which."""
    monkeypatch.setattr(choice, "find_spec", lambda _: None)
    assert isinstance(open_source("rtsp://10.0.0.7/x"), OpenCvCamera)
    with pytest.raises(CameraListError, match=r"hwaccel: got 'cuda'.*framelane\[video\]"):
        open_source("x.mp4", hwaccel="cuda")


def test_a_device_that_is_not_there_leaves_the_decoding_to_the_cpu(tmp_path):
    """No GPU on this machine: the frames are the same."""
    write_video(tmp_path / "belt.avi", 3)
    assert len(images_of(open_source(str(tmp_path / "belt.avi"), hwaccel="cuda"))[0]) == 3
    with pytest.raises(CameraListError, match=r"hwaccel: got 'gpu', allowed .*cuda"):
        open_source("x.avi", hwaccel="gpu")


@pytest.mark.parametrize("what", ["missing.mp4", "empty"])
def test_what_cannot_be_a_source_is_told(tmp_path, what):
    """A missing file, a folder without images."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="allowed are"):
        list(open_source(str(tmp_path / what)).frames())


def test_images_none_of_which_can_be_read_have_no_size(tmp_path):
    """A clear error instead of an endless search."""
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(SourceError, match="none of its 1 frames"):
        ImageSource("camera", (tmp_path / "a.png",)).first_size_hw()


@pytest.mark.parametrize("make", [lambda text: PyAvSource(text, 2.0), lambda text: OpenCvCamera(text, 2.0)])
@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_camera_that_is_off_is_told_without_its_password(make, scheme, capfd):
    """Refused at once: in the error, in what is shown of the source, and in what libraries print."""
    source = make(f"{scheme}://user:secret@127.0.0.1:9/stream1?token=hidden")
    frames, error = images_of(source)
    assert frames == []
    assert "127.0.0.1:9/stream1" in error
    assert "cannot be opened" in error
    said = error + repr(source) + source.name + "".join(capfd.readouterr())
    assert "secret" not in said
    assert "hidden" not in said


@pytest.mark.parametrize("width_px", [40, 100], ids=["moves", "stands"])
def test_a_scrolling_camera_stays_inside_its_picture(width_px):
    """There and back again, always of the same size, never beyond the ends."""
    wide_hwc = np.zeros((10, 100, 3), np.uint8)
    wide_hwc[..., 0] = np.arange(100)
    frames = [image for _, image in images_of(ScrollingSource("belt", wide_hwc, width_px, 25, 9))[0]]
    assert {frame.shape for frame in frames} == {(10, width_px, 3)}
    expected = [0, 25, 50, 45, 20, 5, 30, 55, 40] if width_px == 40 else [0] * 9
    assert [int(frame[0, 0, 0]) for frame in frames] == expected
