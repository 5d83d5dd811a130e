"""What a spool keeps of a frame, as bytes that can tell whether they are whole. No pickle: a store may be shared."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Any

# Changes when what follows it changes, so that an older file is told from a damaged one.
MAGIC = b"FLSPOOL1"
DIGEST_BYTES = 16
_HEADER_LENGTH = struct.Struct(">I")


class DamagedRecordError(ValueError):
    """These bytes are not what was kept: cut off, changed, or written by something else."""


class Encoding(str, Enum):
    """How the pixels are written."""

    PNG = "png"
    """Lossless."""
    JPEG = "jpeg"


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One frame with its pixels.

    Attributes:
        frame_id, camera: as its caller said.
        size_hw: (height, width) in px.
        encoding, image: its pixels.
    """

    frame_id: str
    camera: str
    size_hw: tuple[int, int]
    encoding: Encoding
    image: bytes


def sealed(content: bytes) -> bytes:
    """These bytes behind their checksum."""
    return MAGIC + _digest(content) + content


def opened(data: bytes) -> bytes:
    """The bytes that were sealed; raises `DamagedRecordError` for any others."""
    start = len(MAGIC) + DIGEST_BYTES
    if len(data) < start or not data.startswith(MAGIC):
        raise DamagedRecordError(f"record: got {len(data)} bytes that begin with {data[:8]!r}, allowed is {MAGIC!r}")
    content = data[start:]
    if _digest(content) != data[len(MAGIC) : start]:
        raise DamagedRecordError(f"record: its checksum does not match its {len(content)} bytes: they were changed")
    return content


def record_bytes(record: FrameRecord) -> bytes:
    """A record as sealed bytes: the length of its header, the header as JSON, the image."""
    header = json.dumps(
        {
            "frame_id": record.frame_id,
            "camera": record.camera,
            "size_hw": list(record.size_hw),
            "encoding": record.encoding.value,
        }
    ).encode()
    return sealed(_HEADER_LENGTH.pack(len(header)) + header + record.image)


def record_from(data: bytes) -> FrameRecord:
    """The record that `record_bytes` wrote; raises `DamagedRecordError` for any other bytes."""
    content = opened(data)
    if len(content) < _HEADER_LENGTH.size:
        raise DamagedRecordError("record: has no header")
    (length,) = _HEADER_LENGTH.unpack_from(content)
    end = _HEADER_LENGTH.size + length
    header = json_object(content[_HEADER_LENGTH.size : end])
    try:
        frame_id, camera = header["frame_id"], header["camera"]
        height, width = header["size_hw"]
        encoding = Encoding(header["encoding"])
    except (KeyError, TypeError, ValueError) as err:
        raise DamagedRecordError(f"record: its header lacks something ({type(err).__name__}: {err})") from err
    if not (isinstance(frame_id, str) and isinstance(camera, str) and type(height) is int and type(width) is int):
        raise DamagedRecordError(f"record: got header {header!r:.200}, allowed are texts and whole px")
    return FrameRecord(frame_id, camera, (height, width), encoding, content[end:])


def json_object(content: bytes) -> dict[str, Any]:
    """A JSON object; raises `DamagedRecordError` for anything else."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as err:  # `ValueError`: no JSON, or no UTF-8
        raise DamagedRecordError(f"record: is no JSON ({type(err).__name__})") from err
    if not isinstance(value, dict):
        raise DamagedRecordError(f"record: got {type(value).__name__}, allowed is a JSON object")
    return value


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
