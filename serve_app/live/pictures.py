"""Small annotated pictures of last frames: shrunk, drawn on and encoded in a thread, kept while somebody watches."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np

from engines.letterbox import Image
from serve_app.drawing import draw_detections
from serve_app.live.live_report import FrameSeen
from serve_app.live.source import FrameToFetch

logger = logging.getLogger(__name__)

# Six of them beside each other fill a full-HD wall.
MAX_SIDE_PX = 480
# Some 25 KB a picture.
JPEG_QUALITY = 80
MAX_PICTURES = 256


@dataclass(frozen=True, slots=True)
class Picture:
    """One camera's picture: which frame it shows, and its JPEG."""

    camera: str
    frame_id: str
    jpeg: bytes


def key_of(camera: str) -> str:
    """What stands for a camera in addresses: its name may be anything."""
    return hashlib.blake2s(camera.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def jpeg_of(image_hwc: Image, seen: FrameSeen) -> bytes:
    """A frame, shrunk to `MAX_SIDE_PX`, with its boxes.

    Args:
        image_hwc: uint8 `(height, width, 3)` BGR; only read.
        seen: what was found on it, in its px.
    """
    height, width = image_hwc.shape[:2]
    scale = min(1.0, MAX_SIDE_PX / max(height, width))
    small_wh = max(1, round(width * scale)), max(1, round(height * scale))
    small = image_hwc if scale == 1 else cv2.resize(image_hwc, small_wh, interpolation=cv2.INTER_AREA)
    boxes_xyxy = (seen.detections.boxes_xyxy * np.float32(scale)).astype(np.float32)
    found = replace(seen.detections, boxes_xyxy=boxes_xyxy)
    drawn = draw_detections(np.asarray(small, np.uint8), found, seen.class_names)
    is_good, jpeg = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not is_good:
        raise ValueError(f"picture: OpenCV could not encode {small_wh[0]}×{small_wh[1]} px as JPEG")
    return bytes(jpeg)


class Pictures:
    """The last picture of each camera, by `key_of`. One thread of its own makes them, so that the loop stays free."""

    def __init__(self) -> None:
        """Start without any."""
        self._pictures: dict[str, Picture] = {}
        self._thread: ThreadPoolExecutor | None = None

    def known(self) -> dict[str, str]:
        """By camera, the id of the frame that its picture shows."""
        return {picture.camera: picture.frame_id for picture in self._pictures.values()}

    def find(self, key: str) -> Picture | None:
        """The picture of a camera; None: there is none, or no more."""
        return self._pictures.get(key)

    async def make(self, frames: Iterable[FrameToFetch]) -> None:
        """Make pictures of these; pixels are held only while one's turn lasts."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "live-pictures")
        loop, waiting = asyncio.get_running_loop(), list(frames)
        while waiting:
            picture = await loop.run_in_executor(self._thread, _made, waiting.pop())
            if picture is not None:
                key = key_of(picture.camera)
                self._pictures.pop(key, None)
                self._pictures[key] = picture
        for key in list(self._pictures)[:-MAX_PICTURES]:
            del self._pictures[key]

    def clear(self) -> None:
        """Forget all, and end the thread."""
        self._pictures.clear()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None


def _made(frame: FrameToFetch) -> Picture | None:
    """The picture of a frame; None where its sender has died, or it is no picture."""
    try:
        return Picture(frame.seen.camera, frame.seen.frame_id, jpeg_of(frame.fetch(), frame.seen))
    except Exception as err:  # one picture more or less must not end the page
        logger.info("live page: no picture of frame %s: %s: %s", frame.seen.frame_id, type(err).__name__, err)
        return None
