"""Compressed bodies, packed and unpacked within bounds: a kilobyte of gzip can hold a megabyte of zeros."""

from __future__ import annotations

import zlib

from serve_app.http.errors import BodyTooLargeError, HttpError, MediaTypeError

# zlib's window: 15 bits, and 16 more for the frame of gzip. HTTP's deflate has the frame of zlib (RFC 9110, 8.4.1.2).
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
# What one byte can become: 258 bytes in two bits (RFC 1951); zlib's own documentation says 1032.
MAX_RATIO = 1032
# Below this a packet of the network is not filled anyway.
MIN_PACKED_BYTES = 1024
# Boxes are few: what a higher level saves is not worth its time.
_LEVEL = 1


def unpacked_bytes_at_most(num_bytes: int, encoding: str, max_bytes: int) -> int:
    """How many bytes a body of this encoding may unpack to; 0: it is not packed. Raises `MediaTypeError`."""
    return min(num_bytes * MAX_RATIO, max_bytes) if _known(encoding) else 0


def unpack(data: bytes, encoding: str, max_bytes: int) -> bytes:
    """Unpack a body.

    Args:
        data: as it came.
        encoding: its `Content-Encoding`: `gzip`, `deflate`, or `identity` or nothing, which changes nothing.
        max_bytes: no more are unpacked, and no more memory than twice that is used.

    Raises:
        MediaTypeError: another encoding, or several.
        BodyTooLargeError: it unpacks to more.
        HttpError: it breaks off, is damaged, or something follows it.
    """
    name = _known(encoding)
    if not name:
        return data
    unpacker = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        unpacked = unpacker.decompress(data, max_bytes + 1)
    except zlib.error as err:
        raise HttpError(
            f"body: got {len(data)} bytes that are no {name} ({err}); send them packed or not at all"
        ) from err
    if len(unpacked) > max_bytes:
        raise BodyTooLargeError(
            f"body: got {len(data):,} bytes of {name} that unpack to more than {max_bytes:,}, which are allowed; send "
            "fewer or smaller images"
        )
    if not unpacker.eof or unpacker.unused_data:
        what = "is followed by other bytes" if unpacker.eof else "breaks off"
        raise HttpError(f"body: got {len(data)} bytes of {name}, which {what}; send one complete stream")
    return unpacked


def pack(data: bytes, accept_encoding: str) -> tuple[bytes, str]:
    """Pack an answer as its caller asks by `Accept-Encoding`; the bytes, and their encoding or `""` for none."""
    if len(data) >= MIN_PACKED_BYTES:
        for part in accept_encoding.lower().split(","):
            name, _, rest = part.partition(";")
            bits = _WINDOW_BITS.get(name.strip())
            if bits is not None and rest.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
                packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, bits)
                return packer.compress(data) + packer.flush(), name.strip()
    return data, ""


def _known(encoding: str) -> str:
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return ""
    if name not in _WINDOW_BITS:
        raise MediaTypeError(f"content-encoding: got {encoding[:80]!r}, allowed are gzip, deflate and identity")
    return name
