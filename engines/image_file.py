"""Reading image files, refusing those that break off: OpenCV fills what a truncated JPEG lacks with grey, silently."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from engines.errors import ImageFileError
from engines.letterbox import Image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_SCAN = 0xDA
_PNG_START, _PNG_PIXELS, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IDAT", b"IEND"
_PNG_CHUNK_FRAME_BYTES = 12  # length, type and checksum around the data of a chunk


def read_image(path: Path) -> Image:
    """Read an image file as uint8 `(height, width, 3)` BGR, turned upright as its EXIF says.

    Raises:
        ImageFileError: missing, unreadable, truncated or no image.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ImageFileError(f"image {path}: is a device or a pipe; allowed is a readable image file")
    try:
        data = path.read_bytes()
    except OSError as err:
        reason = "no such file" if isinstance(err, FileNotFoundError) else (err.strerror or str(err)).lower()
        raise ImageFileError(f"image {path}: {reason}; allowed is a readable image file") from err
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> Image:
    """Decode the bytes of an image file; `name` is how errors call it. Raises `ImageFileError`."""
    if not is_complete(data):
        raise ImageFileError(
            f"image {name}: got a truncated file of {len(data)} bytes, allowed is a complete image; send it again"
        )
    try:
        image_hwc = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as err:
        raise ImageFileError(f"image {name}: cannot be decoded ({str(err.err).strip()})") from err
    if image_hwc is None:
        kinds = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise ImageFileError(f"image {name}: got {len(data)} bytes that are no image, allowed are {kinds}")
    return np.asarray(image_hwc, np.uint8)


def is_complete(data: bytes) -> bool:
    """False for a JPEG or PNG that breaks off; True for everything else, which its decoder has to judge."""
    if data.startswith(_JPEG_START):
        scan = _jpeg_scan_start(data)
        # Inside a scan 0xFF is always followed by 0x00 or a restart mark, so this marker can only be the real end.
        return scan is not None and data.find(_JPEG_END, scan) >= 0
    if data.startswith(_PNG_START):
        return _has_png_end(data)
    return True


def _jpeg_scan_start(data: bytes) -> int | None:
    """Offset of the first scan, walking the segments before it (a thumbnail inside them has an end mark of its own)."""
    offset = len(_JPEG_START)
    while offset + 4 <= len(data):
        if data[offset] != 0xFF:
            return None
        marker = data[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
            continue
        if marker == _JPEG_SCAN:
            return offset
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
    return None


def _has_png_end(data: bytes) -> bool:
    """Whether the last chunk is there whole, walking the chunks before it (text and pixels may spell its name too).

    An end that is not empty, or comes before any pixels, is none: OpenCV would read on behind it, and take what it
    finds for a length of up to 4 GB.
    """
    offset, has_pixels = len(_PNG_START), False
    while offset + _PNG_CHUNK_FRAME_BYTES <= len(data):
        num_bytes, kind = int.from_bytes(data[offset : offset + 4], "big"), data[offset + 4 : offset + 8]
        if kind == _PNG_END:
            return has_pixels and num_bytes == 0
        has_pixels |= kind == _PNG_PIXELS
        offset += _PNG_CHUNK_FRAME_BYTES + num_bytes
    return False
