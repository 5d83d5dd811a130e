"""Puts frames into Ray's object store, and says what to do when it has no room."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError

from engines.letterbox import Image
from serve_app.errors import FrameRejectedError

# Frames that wait are answered, and leave, within a normal deadline.
RETRY_AFTER_S = 1.0


def put_frame(image_hwc: Image) -> ray.ObjectRef[Any]:
    """The ref of a frame's pixels, now in the store of this machine.

    Raises:
        FrameRejectedError: neither the store nor the disk that it spills to has room.
    """
    try:
        return ray.put(image_hwc)
    except (ObjectStoreFullError, OutOfDiskError) as err:
        full = "the disk that it spills to" if isinstance(err, OutOfDiskError) else "this machine's object store"
        raise FrameRejectedError(
            f"frame: got {image_hwc.nbytes:,} bytes, and {full} is full; keep fewer frames in "
            "flight, lower limits.max_waiting_bytes below the store's size, or give Ray a larger store "
            "(object_store_memory)",
            RETRY_AFTER_S,
        ) from err
