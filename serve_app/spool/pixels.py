"""The pixels of a frame as PNG or JPEG, and back."""

from __future__ import annotations

import cv2
import numpy as np

from engines.errors import ImageFileError
from engines.image_file import decode_image
from engines.letterbox import Image
from serve_app.errors import InvalidFrameError
from serve_app.spool.record import DamagedRecordError, Encoding, FrameRecord

# JPEG has 16 bits for a side, and OpenCV's decoder stops a little below that. PNG could do more; no camera does.
MAX_SIDE_PX = 65_500
# Level 1 of 9: five times as fast as OpenCV's own choice, files a tenth larger.
PNG_LEVEL = 1


def encoded(image_hwc: Image, jpeg_quality: int | None) -> tuple[Encoding, bytes]:
    """A uint8 `(height, width, 3)` BGR image as JPEG of this quality, or lossless.

    Raises:
        InvalidFrameError: no such file holds it.
    """
    if max(image_hwc.shape[:2]) > MAX_SIDE_PX:
        height, width = image_hwc.shape[:2]
        raise InvalidFrameError(
            f"frame: got {height}×{width} px for the spool, allowed are {MAX_SIDE_PX} px a side; send it in parts"
        )
    if jpeg_quality is None:
        encoding, options = Encoding.PNG, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL]
    else:
        encoding, options = Encoding.JPEG, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
    done, data = cv2.imencode(f".{encoding.value}", image_hwc, options)
    if not done:
        raise InvalidFrameError(
            f"frame: OpenCV cannot write {image_hwc.shape} as {encoding.value}; send it with detect"
        )
    return encoding, data.tobytes()


def pixels_of(record: FrameRecord) -> Image:
    """The image of a record, uint8 `(height, width, 3)` BGR; raises `DamagedRecordError` if it is not what it says."""
    try:
        image_hwc = decode_image(record.image, record.frame_id)
    except ImageFileError as err:
        raise DamagedRecordError(str(err)) from err
    if image_hwc.shape != (*record.size_hw, 3) or image_hwc.dtype != np.uint8:
        raise DamagedRecordError(f"record {record.frame_id}: got an image {image_hwc.shape}, said was {record.size_hw}")
    return image_hwc
