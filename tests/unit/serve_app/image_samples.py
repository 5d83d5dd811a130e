"""Image files as tests need them: written by OpenCV and by hand."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_SETTINGS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restart-marks": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
}


def picture(height=40, width=56):
    """A picture with noise (so that scans hold every byte) beside a smooth part."""
    image_hwc = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
    image_hwc[:, : width // 2] = np.arange(height, dtype=np.uint8)[:, None, None] * 3
    return image_hwc


def encoded(suffix, settings=(), image_hwc=None):
    """The bytes of a picture in a file format."""
    return cv2.imencode(suffix, picture() if image_hwc is None else image_hwc, list(settings))[1].tobytes()


def png_chunk(kind, data):
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(height, width, *, before=(), pixels=None, bit_depth=8, color=2):
    """A PNG by hand; `before` are chunks between header and pixels, `pixels` the rows with their filter bytes."""
    if pixels is None:
        pixels = b"".join(b"\0" + bytes(3 * width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, bit_depth, color, 0, 0, 0)
    return b"".join(
        [
            PNG_START,
            png_chunk(b"IHDR", header),
            *before,
            png_chunk(b"IDAT", zlib.compress(pixels)),
            png_chunk(b"IEND", b""),
        ]
    )


def with_png_size(data, height, width):
    """A PNG whose header says another size, its checksum set right."""
    kind_and_data = data[12:16] + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + kind_and_data + struct.pack(">I", zlib.crc32(kind_and_data)) + data[33:]


def with_jpeg_size(data, height, width):
    """A JPEG whose (baseline or progressive) header says another size."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def with_exif(jpeg, orientation, payload=b""):
    """`jpeg` with an EXIF segment that holds an orientation and then `payload`, say a thumbnail."""
    tiff = b"MM\x00\x2a" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0) + payload
    segment = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
