"""Videos and webcams through OpenCV, and network cameras where PyAV is not installed.

OpenCV decodes files in several threads and knows webcams; of a camera's address it tells neither times nor what went
wrong, so `pyav_source.py` is preferred there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from engines.letterbox import Image
from serve_app.streams.source import SourceError, SourceFrame, first_size_hw
from serve_app.streams.source_address import URL_SCHEMES, name_of, webcam_index

# A webcam's driver may hand out its first frame late, but not a minute late.
OPEN_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video file."""

    path: str

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return name_of(self.path)

    @property
    def num_frames(self) -> int | None:
        """What the file's header says."""
        capture = self._open()
        count = _count_of(capture)
        capture.release()
        return count

    def first_size_hw(self) -> tuple[int, int]:
        """See `Source`."""
        return first_size_hw(self)

    def frames(self) -> Iterator[SourceFrame | SourceError]:
        """See `Source`; a file that ends before its header says so has broken off."""
        capture = self._open()
        expected, num_read, at_s = _count_of(capture), 0, -1.0
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        period_s = 1.0 / rate if 0 < rate < MAX_FPS else 1.0 / USUAL_FPS
        try:
            while capture.grab():
                # Containers without times tell 0 for every frame: then the rate tells.
                told_s = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
                at_s = told_s if told_s > at_s else at_s + period_s if at_s >= 0 else 0.0
                num_read += 1
                yield SourceFrame(at_s, lambda: _retrieved(capture, self.name))
        finally:
            capture.release()
        if expected is not None and num_read < expected:
            raise SourceError(f"source {self.name}: broke off after {num_read} of {expected} frames")
        if num_read == 0:
            raise SourceError(f"source {self.name}: holds no frame that can be decoded")

    def _open(self) -> cv2.VideoCapture:
        if not os.path.isfile(self.path):  # noqa: PTH113 — the user's text, not a path of ours
            raise SourceError(
                f"source {self.path}: no such file; allowed are a video, an image, a folder of images, a webcam's "
                f"number, or an address that begins with {', '.join(URL_SCHEMES)}"
            )
        capture = cv2.VideoCapture(self.path)
        if not capture.isOpened():
            raise SourceError(f"source {self.name}: cannot be opened as video by OpenCV {cv2.__version__}")
        return capture


# A header that says more is wrong (10,000 Hz of some raw streams); then a rate that players assume.
MAX_FPS = 1000.0
USUAL_FPS = 25.0


@dataclass(frozen=True, slots=True)
class OpenCvCamera:
    """A webcam, or a network camera as OpenCV reads it.

    Attributes:
        address: as the user gave it; never shown.
        timeout_s: seconds without a frame after which it counts as gone; webcams' drivers have their own.
        clock: seconds, for the times of its frames.
    """

    address: str = field(repr=False)
    timeout_s: float
    clock: Callable[[], float] = time.monotonic

    @property
    def name(self) -> str:
        """The address without its secrets."""
        return name_of(self.address)

    @property
    def num_frames(self) -> int | None:
        """Nobody knows."""
        return None

    def first_size_hw(self) -> tuple[int, int]:
        """See `Source`."""
        return first_size_hw(self)

    def frames(self) -> Iterator[SourceFrame | SourceError]:
        """See `Source`; a camera has no end, so its end is an error."""
        capture = self._open()
        num_read = 0
        try:
            while capture.grab():
                num_read += 1
                yield SourceFrame(self.clock(), lambda: _retrieved(capture, self.name))
        finally:
            capture.release()
        raise SourceError(
            f"source {self.name}: broke off after {num_read} frames, or sent none for {self.timeout_s:g} s"
        )

    def _open(self) -> cv2.VideoCapture:
        index = webcam_index(self.address)
        if index is not None:
            capture = cv2.VideoCapture(index)
        else:
            open_s = min(OPEN_TIMEOUT_S, self.timeout_s)
            # FFmpeg by name: of the others, some would write the address with its password into their warnings.
            capture = cv2.VideoCapture(self.address, cv2.CAP_FFMPEG, [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(open_s * 1000),
                cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(self.timeout_s * 1000),
            ])  # fmt: skip
        if not capture.isOpened():
            cure = "is it connected, and not in use?" if index is not None else "look at its address and its power"
            raise SourceError(f"source {self.name}: cannot be opened by OpenCV {cv2.__version__}; {cure}")
        return capture


def _count_of(capture: cv2.VideoCapture) -> int | None:
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return count if count > 0 else None


def _retrieved(capture: cv2.VideoCapture, name: str) -> Image:
    got, image_hwc = capture.retrieve()
    if not got or image_hwc is None:
        raise SourceError(f"source {name}: a frame cannot be decoded")
    # Webcams of one channel exist; a frame is three.
    return np.asarray(image_hwc if image_hwc.ndim == 3 else cv2.cvtColor(image_hwc, cv2.COLOR_GRAY2BGR), np.uint8)
