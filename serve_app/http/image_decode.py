"""Bytes to frames: JPEG, PNG and raw pixels become uint8 BGR, under a limit that is checked before anything is decoded.

What comes out is what OpenCV (`cv2.imread`, `engines.read_image`) and so ultralytics would read from the same file:
grey becomes three equal channels; alpha is dropped, not blended; 16 bits become their upper 8; a palette its colours;
CMYK becomes BGR without a colour profile; the EXIF orientation turns the picture upright. Colour profiles and gamma
are not applied. Of an animated PNG the first picture counts.

No files, no network, no clock. One call takes milliseconds to tenths of seconds and lets other threads run: call it
outside an event loop's own thread.
"""

from __future__ import annotations

from types import MappingProxyType

import cv2
import numpy as np

from engines.frame_array import MIN_SIDE_PX
from engines.letterbox import Image
from serve_app.http.image_errors import ImageDataError, ImageTooLargeError, ImageTypeError
from serve_app.http.image_header import ImageFormat, png_chunks, read_header

# What may be said of an encoded image: its own type or nothing. The bytes decide which of the two it is: cameras that
# announce a PNG as JPEG are met, and both are decoded.
MEDIA_TYPES = frozenset({"image/jpeg", "image/jpg", "image/png", "image/*", "application/octet-stream", ""})
# Order of the channels of a raw pixel, by name; how many bytes a pixel has.
RAW_LAYOUTS = MappingProxyType({"bgr": 3, "rgb": 3, "grey": 1})
# The chunks of a PNG that make its pixels and turn it upright. All others go before the decoder sees it: texts, colour
# profiles and animations are compressed too, and a megabyte of them takes it seconds to unpack.
_PNG_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})


def decode_image(data: bytes, media_type: str, max_px: int) -> Image:
    """Decode one JPEG or PNG.

    Memory is bounded by the data and `max_px`: the header is read first, and nothing is allocated for a picture that
    is larger. Of a JPEG that is whole from start to end mark, but damaged between, the decoder fills what it cannot
    read: only a PNG has checksums.

    Args:
        data: the file's bytes.
        media_type: what its sender says it is, parameters after `;` allowed; empty if nothing was said.
        max_px: the most pixels.

    Returns:
        C-contiguous uint8 `(height, width, 3)` BGR, the caller's own.

    Raises:
        ImageTooLargeError: its header announces more than `max_px`.
        ImageTypeError: announced as, or in fact, neither JPEG nor PNG.
        ImageDataError: truncated, damaged or below `MIN_SIDE_PX` on a side.
    """
    said = media_type.partition(";")[0].strip().lower()
    if said not in MEDIA_TYPES:
        raise ImageTypeError(f"image: got media type {said[:80]!r}, allowed are image/jpeg and image/png")
    header = read_header(data)
    check_image_size(header.height, header.width, max_px)
    if header.format is ImageFormat.PNG:
        data = _pixels_only(data)
    try:
        image_hwc = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as err:
        raise _damaged(header.format) from err
    if image_hwc is None:
        raise _damaged(header.format)
    if sorted(image_hwc.shape) != sorted((header.height, header.width, 3)):
        raise ImageDataError(
            f"image: its header says {header.height}×{header.width} px, decoding gave {image_hwc.shape}; write it anew"
        )
    return np.ascontiguousarray(image_hwc, np.uint8)


def decode_raw(data: bytes, height: int, width: int, layout: str = "bgr") -> Image:
    """Take raw pixels, row by row without padding, as a frame.

    Args:
        data: exactly `height * width` pixels; so memory is bounded by the data, three times over for `grey`.
        height: in px.
        width: in px.
        layout: one of `RAW_LAYOUTS`: bytes blue, green, red of each pixel, or red, green, blue, or one grey.

    Returns:
        C-contiguous uint8 `(height, width, 3)` BGR; for `bgr` a read-only view of `data`.

    Raises:
        ImageDataError: another number of bytes than these, a side below `MIN_SIDE_PX`, or an unknown layout.
    """
    num_channels = RAW_LAYOUTS.get(layout)
    if num_channels is None:
        raise ImageDataError(f"raw image: got layout {layout[:80]!r}, allowed are {', '.join(RAW_LAYOUTS)}")
    check_image_size(height, width, None)
    num_bytes = height * width * num_channels
    if len(data) != num_bytes:
        raise ImageDataError(
            f"raw image: got {len(data)} bytes for {height}×{width} px (height × width) of {layout}, allowed are "
            f"{height} × {width} × {num_channels} = {num_bytes}; rows stand without padding"
        )
    pixels = np.frombuffer(data, np.uint8).reshape(height, width, num_channels)
    if layout == "bgr":
        return pixels
    return np.ascontiguousarray(pixels[..., ::-1] if layout == "rgb" else np.repeat(pixels, 3, axis=2))


def check_image_size(height: int, width: int, max_px: int | None) -> None:
    """Raise unless an image of this size may be decoded; `max_px` None: any number of pixels.

    Raises:
        ImageTooLargeError: more pixels than `max_px`.
        ImageDataError: a side below `MIN_SIDE_PX`.
    """
    if min(height, width) < MIN_SIDE_PX:
        raise ImageDataError(
            f"image: got {height}×{width} px (height × width), allowed is {MIN_SIDE_PX} px or more on each side"
        )
    if max_px is not None and height * width > max_px:
        raise ImageTooLargeError(
            f"image: got {height}×{width} px (height × width), {height * width:,} in all, allowed are {max_px:,}; "
            "scale it down before sending"
        )


def _pixels_only(png: bytes) -> bytes:
    """The PNG without the chunks that do not change its pixels; the same bytes if it has no other."""
    runs: list[tuple[int, int]] = [(0, 0)]
    for chunk in png_chunks(png):
        if chunk.kind in _PNG_PIXEL_CHUNKS:
            start, end = runs[-1]
            if end in (0, chunk.start):
                runs[-1] = (start, chunk.end)
            else:
                runs.append((chunk.start, chunk.end))
    return png if len(runs) == 1 else b"".join(png[start:end] for start, end in runs)


def _damaged(image_format: ImageFormat) -> ImageDataError:
    kinds = " or of a kind that no camera writes, lossless or 12 bit say" if image_format is ImageFormat.JPEG else ""
    return ImageDataError(f"image: got a {image_format.name} that is damaged{kinds}; write or send it anew")
