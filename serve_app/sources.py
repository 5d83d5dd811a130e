"""Where a camera's frames come from: video files, image files and folders, camera addresses, or drawn scenes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from engines.errors import ImageFileError
from engines.image_file import IMAGE_SUFFIXES, read_image
from engines.letterbox import Image
from serve_app.errors import FramelaneError

# How OpenCV's FFmpeg names what it can open beside files.
URL_SCHEMES = ("rtsp://", "rtsps://", "http://", "https://", "udp://", "rtmp://")


class SourceError(FramelaneError):
    """A source that cannot be opened, holds no frame, or breaks off."""


class Source(Protocol):
    """One camera's frames, in order. Used by one thread."""

    @property
    def name(self) -> str:
        """What the camera is called unless the user says otherwise."""

    @property
    def num_frames(self) -> int | None:
        """How many frames there are; None if nobody knows."""

    @property
    def is_live(self) -> bool:
        """Whether frames come at their own time, and are stale when they are not taken."""

    def first_size_hw(self) -> tuple[int, int]:
        """(height, width) in px of the first frame. Raises `SourceError` if there is none."""

    def frames(self) -> Iterator[Image | FramelaneError]:
        """Frames, uint8 `(height, width, 3)` BGR, each owned by the caller; an error stands for a lost one."""


@dataclass(frozen=True, slots=True)
class VideoSource:
    """A video file, or a camera's address."""

    address: str

    @property
    def name(self) -> str:
        """The file's name without its ending, or the address without its password."""
        return self.address.rpartition("@")[2] if self.is_live else Path(self.address).stem

    @property
    def is_live(self) -> bool:
        """Whether it is a camera."""
        return self.address.startswith(URL_SCHEMES)

    @property
    def num_frames(self) -> int | None:
        """What the file's header says."""
        if self.is_live:
            return None
        capture = self._open()
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        return count if count > 0 else None

    def first_size_hw(self) -> tuple[int, int]:
        """See `Source`."""
        capture = self._open()
        _, image_hwc = capture.read()
        capture.release()
        if image_hwc is None:
            raise SourceError(f"source {self.name}: holds no frame that can be decoded")
        return image_hwc.shape[0], image_hwc.shape[1]

    def frames(self) -> Iterator[Image | FramelaneError]:
        """See `Source`; a file that ends before its header says so is reported."""
        expected = self.num_frames
        capture = self._open()
        num_read = 0
        try:
            while True:
                got, image_hwc = capture.read()
                if not got:
                    break
                num_read += 1
                yield np.asarray(image_hwc, np.uint8)
        finally:
            capture.release()
        if expected is None or num_read < expected:
            of = f" of {expected}" if expected else ""
            yield SourceError(f"source {self.name}: broke off after {num_read}{of} frames")

    def _open(self) -> cv2.VideoCapture:
        if not self.is_live and not os.path.isfile(self.address):  # noqa: PTH113 — an address is no path
            raise SourceError(
                f"source {self.address}: no such file; allowed are a video, an image, a folder of images, "
                f"or an address that begins with {', '.join(URL_SCHEMES)}"
            )
        capture = cv2.VideoCapture(self.address)
        if not capture.isOpened():
            raise SourceError(f"source {self.name}: cannot be opened as video by OpenCV {cv2.__version__}")
        return capture


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Image files, one frame each; they may have different sizes."""

    name: str
    paths: tuple[Path, ...]

    @property
    def is_live(self) -> bool:
        """Files wait."""
        return False

    @property
    def num_frames(self) -> int | None:
        """One a file."""
        return len(self.paths)

    def first_size_hw(self) -> tuple[int, int]:
        """See `Source`; unreadable files are passed over."""
        for frame in self.frames():
            if not isinstance(frame, FramelaneError):
                return frame.shape[0], frame.shape[1]
        raise SourceError(f"source {self.name}: none of its {len(self.paths)} files is a readable image")

    def frames(self) -> Iterator[Image | FramelaneError]:
        """See `Source`; a file that is no whole image is one error, the others go on."""
        for path in self.paths:
            try:
                yield read_image(path)
            except ImageFileError as err:
                yield SourceError(str(err))


@dataclass(frozen=True, slots=True, eq=False)
class ScrollingSource:
    """A camera of fixed size over a wide picture that moves past it, as a belt does."""

    name: str
    wide_hwc: Image
    width_px: int
    step_px: int
    count: int

    @property
    def is_live(self) -> bool:
        """It waits for whoever plays it."""
        return False

    @property
    def num_frames(self) -> int | None:
        """As asked."""
        return self.count

    def first_size_hw(self) -> tuple[int, int]:
        """See `Source`."""
        return self.wide_hwc.shape[0], self.width_px

    def frames(self) -> Iterator[Image | FramelaneError]:
        """See `Source`; the picture turns around at its ends."""
        reach = self.wide_hwc.shape[1] - self.width_px
        for index in range(self.count):
            offset = reach - abs(index * self.step_px % (2 * reach) - reach) if reach else 0
            yield np.ascontiguousarray(self.wide_hwc[:, offset : offset + self.width_px])


def open_source(text: str) -> Source:
    """The source that a user means by a path or an address. Raises `SourceError`."""
    if text.startswith(URL_SCHEMES):
        return VideoSource(text)
    path = Path(text)
    if path.is_dir():
        paths = tuple(sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES))
        if not paths:
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            raise SourceError(f"source {text}: a folder without images, allowed are files ending in {kinds}")
        return ImageSource(path.resolve().name, paths)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource(path.stem, (path,))
    return VideoSource(text)
