"""From a request to the images in it: which bytes they are, how to decode them, and under which limits; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from engines.letterbox import Image
from serve_app.errors import FramelaneError
from serve_app.http.errors import HttpError, MediaTypeError, ParameterError
from serve_app.http.image_decode import check_image_size, decode_image, decode_raw
from serve_app.http.image_header import read_header
from serve_app.http.limits import HttpLimits
from serve_app.http.multipart import parts_of

HEIGHT_HEADER, WIDTH_HEADER, LAYOUT_HEADER = "x-image-height", "x-image-width", "x-image-layout"
RAW_TYPE, MULTIPART_TYPE = "application/octet-stream", "multipart/form-data"
IMAGE_TYPES = ("image/jpeg", "image/png")
NUM_CHANNELS = 3
# Millions of px on a side are no camera's.
MAX_SIDE_DIGITS = 6


@dataclass(frozen=True, slots=True)
class SentImage:
    """One image of a request, not yet decoded.

    Attributes:
        name: what its sender calls it: the file name or field of a part; empty for a body that is the image.
        num_bytes: what it will hold decoded.
        decode: decodes it; takes milliseconds and more, and may raise.
        err: why it is none; then `decode` raises it. None: as far as its header tells it is one.
    """

    name: str
    num_bytes: int
    decode: Callable[[], Image]
    err: FramelaneError | None = None


def images_of(body: bytes, headers: Mapping[str, str], limits: HttpLimits) -> list[SentImage]:
    """The images of a body, in their order. A part that is none has its error; a body that should be one raises it.

    Args:
        body: whole.
        headers: of the request, names in lower case.
        limits: how many parts and pixels.

    Raises:
        FramelaneError: the body is none; the subclass says why and with which status.
    """
    content_type = headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != MULTIPART_TYPE:
        return [_image("", body, media_type, headers, limits)]
    parts = parts_of(body, content_type, limits.max_parts)
    if not parts:
        raise HttpError("body: got a multipart without parts, allowed is one image or more")
    images = []
    for index, part in enumerate(parts):
        name = part.file_name or part.name or f"part {index}"
        try:
            if not (part.file_name or part.media_type):
                raise ParameterError(
                    f"body: got a field {part.name[:80]!r} that is no file, allowed are images; camera, priority and "
                    "slo_s go into the query"
                )
            said = part.media_type.partition(";")[0].strip().lower()
            images.append(_image(name[:200], part.content, said, part.headers, limits))
        except FramelaneError as err:
            images.append(SentImage(name[:200], 0, partial(_raise, err), err))
    return images


def _image(name: str, data: bytes, media_type: str, headers: Mapping[str, str], limits: HttpLimits) -> SentImage:
    if media_type == RAW_TYPE and (HEIGHT_HEADER in headers or WIDTH_HEADER in headers):
        height, width = _side(headers, HEIGHT_HEADER), _side(headers, WIDTH_HEADER)
        layout = headers.get(LAYOUT_HEADER, "bgr").strip().lower()
        check_image_size(height, width, limits.max_image_px)
        return SentImage(name, height * width * NUM_CHANNELS, lambda: decode_raw(data, height, width, layout))
    if media_type not in (*IMAGE_TYPES, "image/jpg", RAW_TYPE, ""):
        raise MediaTypeError(
            f"content-type: got {media_type[:80]!r}, allowed are {', '.join(IMAGE_TYPES)}, {MULTIPART_TYPE} with such "
            f"parts, and {RAW_TYPE} with the headers X-Image-Height, X-Image-Width and X-Image-Layout"
        )
    if not data:
        raise HttpError("body: got no bytes, allowed is an image; with curl: --data-binary @photo.jpg")
    header = read_header(data)
    check_image_size(header.height, header.width, limits.max_image_px)
    # Beside the frame, what the decoder itself holds of it.
    return SentImage(
        name, header.height * header.width * NUM_CHANNELS, lambda: decode_image(data, media_type, limits.max_image_px)
    )


def _raise(err: FramelaneError) -> Image:
    raise err


def _side(headers: Mapping[str, str], name: str) -> int:
    value = headers.get(name, "").strip()
    if not (value.isascii() and value.isdigit() and len(value) <= MAX_SIDE_DIGITS):
        raise ParameterError(f"{name}: got {value[:80]!r}, allowed is a number of px; raw pixels need both sides")
    return int(value)
