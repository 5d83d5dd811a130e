"""What a JPEG or PNG says of itself, read without decoding a pixel: its size, and what it would cost to decode.

Strict where a decoder is lenient: what cannot be walked from its first to its last segment is refused, so a decoder
never sees a size that this file has not seen. Reads bytes only; time is linear in their number, memory constant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from serve_app.http.image_errors import ImageDataError, ImageTypeError

# An encoder makes up to about a dozen scans, whatever the size. Each may cost the time of the whole picture and take
# ten bytes of file: without a bound, a file of a megabyte keeps a core busy for minutes.
MAX_JPEG_SCANS = 64
# Notes in 64 kB pieces (colour profiles, depth maps) come to some hundred; each costs this loop a microsecond.
MAX_JPEG_SEGMENTS = 10_000
# Encoders write pieces of 8 kB or more: enough for 800 MB of them.
MAX_PNG_CHUNKS = 100_000

_JPEG_START = b"\xff\xd8"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_END_MARKER, _JPEG_SCAN_MARKER = 0xD9, 0xDA
# Start of frame, in every coding; 0xC4, 0xC8 and 0xCC, which stand between, are tables.
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# TEM and the restart marks stand alone, without a length.
_JPEG_LONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
# Fill bytes before a marker are allowed; a stuffed zero is none.
_MARKER = re.compile(rb"\xff+[^\x00\xff]", re.DOTALL)
# In the pixels of a scan, 0xFF is followed by a stuffed zero, a restart mark or a fill byte; anything else is a marker.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_PNG_CHUNK_FRAME_BYTES = 12  # length, type and checksum around the data of a chunk
_PNG_HEADER_BYTES = 13
_OTHER_FORMATS = {
    b"GIF8": "GIF", b"BM": "BMP", b"II*\x00": "TIFF", b"MM\x00*": "TIFF", b"RIFF": "WebP", b"%PDF": "PDF",
}  # fmt: skip


class ImageFormat(Enum):
    """The formats that are decoded."""

    JPEG = "image/jpeg"
    PNG = "image/png"


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image says of itself.

    Attributes:
        format: what it is.
        height, width: as stored, in px; an EXIF note may turn it on decoding.
    """

    format: ImageFormat
    height: int
    width: int

    @property
    def num_px(self) -> int:
        """How many pixels decoding gives."""
        return self.height * self.width


class PngChunk(NamedTuple):
    """One chunk of a PNG: its four letters, and where it begins and ends in the file, frame included."""

    kind: bytes
    start: int
    end: int


def read_header(data: bytes) -> ImageHeader:
    """Walk a whole image file and return what it says of itself.

    Args:
        data: the bytes of one JPEG or PNG. Bytes after its end are ignored, as decoders do.

    Raises:
        ImageTypeError: it is neither.
        ImageDataError: it breaks off or contradicts itself.
    """
    if data.startswith(_JPEG_START):
        return _jpeg_header(data)
    if data.startswith(_PNG_START):
        return _png_header(data)
    raise ImageTypeError(f"image: got {_what_it_is(data)}, allowed are JPEG and PNG")


def png_chunks(data: bytes) -> Iterator[PngChunk]:
    """The chunks of a PNG, from header to end. Raises `ImageDataError` where it breaks off."""
    offset = len(_PNG_START)
    for _ in range(MAX_PNG_CHUNKS):
        end = offset + _PNG_CHUNK_FRAME_BYTES + int.from_bytes(data[offset : offset + 4], "big")
        if end > len(data):
            break
        kind = data[offset + 4 : offset + 8]
        yield PngChunk(kind, offset, end)
        if kind == b"IEND":
            return
        offset = end
    raise _truncated("PNG", data)


def _png_header(data: bytes) -> ImageHeader:
    header: ImageHeader | None = None
    for chunk in png_chunks(data):
        is_header = chunk.kind == b"IHDR" and chunk.end - chunk.start == _PNG_CHUNK_FRAME_BYTES + _PNG_HEADER_BYTES
        if is_header is not (header is None):
            raise ImageDataError("image: got a PNG that does not begin with one header (IHDR); write the file anew")
        if is_header:
            width, height = (int.from_bytes(data[chunk.start + at : chunk.start + at + 4], "big") for at in (8, 12))
            header = ImageHeader(ImageFormat.PNG, height, width)
    if header is None:
        raise _truncated("PNG", data)
    return header


def _jpeg_header(data: bytes) -> ImageHeader:
    """From the segments: one start of frame, some scans, and the picture's own end mark."""
    header: ImageHeader | None = None
    num_scans = 0
    for marker, start, end in _jpeg_segments(data):
        if marker in _JPEG_FRAME_MARKERS:
            if header is not None:
                raise ImageDataError("image: got a JPEG that says its size twice, allowed is once; write the file anew")
            if end < start + 8:
                raise _truncated("JPEG", data)
            height, width = (int.from_bytes(data[start + at : start + at + 2], "big") for at in (3, 5))
            header = ImageHeader(ImageFormat.JPEG, height, width)
        elif marker == _JPEG_SCAN_MARKER:
            num_scans += 1
    if header is None or not num_scans:
        raise ImageDataError("image: got a JPEG without a picture; send it again")
    if num_scans > MAX_JPEG_SCANS:
        raise ImageDataError(
            f"image: got a JPEG of {num_scans} scans, allowed are {MAX_JPEG_SCANS}; write it anew (a dozen is usual)"
        )
    return header


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end (of its length and content) of each segment up to the end mark; scans are skipped over."""
    offset = len(_JPEG_START)
    for _ in range(MAX_JPEG_SEGMENTS):
        at_marker = _MARKER.match(data, offset)
        if at_marker is None:
            break
        marker, offset = data[at_marker.end() - 1], at_marker.end()
        if marker == _JPEG_END_MARKER:
            return
        if marker in _JPEG_LONE_MARKERS:
            continue
        end = offset + int.from_bytes(data[offset : offset + 2], "big")
        if not offset + 2 <= end <= len(data):
            break
        yield marker, offset, end
        offset = end
        if marker == _JPEG_SCAN_MARKER:
            after = _AFTER_SCAN.search(data, offset)
            if after is None:
                break
            offset = after.start()
    raise _truncated("JPEG", data)


def _truncated(name: str, data: bytes) -> ImageDataError:
    return ImageDataError(
        f"image: got a truncated or damaged {name} of {len(data)} bytes, allowed is a complete image; send it again"
    )


def _what_it_is(data: bytes) -> str:
    if not data:
        return "no bytes"
    for start, name in _OTHER_FORMATS.items():
        if data.startswith(start):
            return f"{len(data)} bytes of {name}"
    return f"{len(data)} bytes that begin with 0x{data[:4].hex()}"
