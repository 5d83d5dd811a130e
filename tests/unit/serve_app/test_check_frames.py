"""The frames of a comparison: a user's files and folders in their order, or drawn scenes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engines.errors import ImageFileError
from serve_app import check_frames
from serve_app.check_frames import SCENE_SIZES_HW, drawn_scenes, frames_of
from serve_app.errors import FramelaneError


@pytest.fixture
def pictures(tmp_path):
    """A folder of three images of different brightness, and a text."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for level, name in enumerate(("b.png", "a.bmp", "C.PNG")):
        cv2.imwrite(str(folder / name), np.full((32 + 2 * level, 64, 3), 10 * level, np.uint8))
    (folder / "notes.txt").write_text("none")
    return folder


def test_a_folder_gives_its_images_by_name(pictures):
    """Whatever the case of their suffix; other files are passed over."""
    assert [(frame.name, frame.image_hwc.shape) for frame in frames_of([pictures])] == [
        ("C.PNG", (36, 64, 3)), ("a.bmp", (34, 64, 3)), ("b.png", (32, 64, 3))
    ]  # fmt: skip


def test_files_and_folders_keep_the_order_in_which_they_are_named(pictures):
    """A file may come twice."""
    frames = frames_of([pictures / "b.png", pictures, pictures / "a.bmp"])
    assert [frame.name for frame in frames] == ["b.png", "C.PNG", "a.bmp", "b.png", "a.bmp"]
    assert frames[-1].image_hwc.max() == 10


def test_a_folder_without_an_image_is_refused(tmp_path):
    """It names the folder, and which files count."""
    with pytest.raises(FramelaneError, match=r"got folder .* without an image, allowed are files of .*\.jpg.*\.png"):
        frames_of([tmp_path])


def test_a_file_that_is_no_image_is_refused(pictures):
    """One that is named by itself is meant."""
    with pytest.raises(ImageFileError, match=r"notes\.txt"):
        frames_of([pictures / "notes.txt"])


def test_drawn_scenes_are_the_same_every_time(monkeypatch):
    """One of each size, uint8 BGR, no two alike."""
    assert {orientation(size_hw) for size_hw in SCENE_SIZES_HW} == {"square", "wide", "tall"}
    monkeypatch.setattr(check_frames, "SCENE_SIZES_HW", ((320, 320), (320, 320), (320, 480)))
    first, second = drawn_scenes(), drawn_scenes()
    assert [(frame.name, frame.image_hwc.shape, frame.image_hwc.dtype) for frame in first] == [
        ("scene 320×320", (320, 320, 3), np.uint8),
        ("scene 320×320", (320, 320, 3), np.uint8),
        ("scene 320×480", (320, 480, 3), np.uint8),
    ]
    for mine, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine.image_hwc, theirs.image_hwc)
    assert (first[0].image_hwc != first[1].image_hwc).any()


def orientation(size_hw):
    """How a frame lies."""
    height, width = size_hw
    return "square" if height == width else "wide" if width > height else "tall"
