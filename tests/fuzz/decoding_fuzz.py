"""What a coverage-guided fuzzer looks for in the decoders behind the network: `decoding_fuzz.py TARGET [OPTIONS]`.

TARGET is `images` or `tensors`; the options are libFuzzer's: `-max_total_time=60 -rss_limit_mb=1500 -timeout=10`. A
finding ends the run with a status other than 0 and is written to the current folder. Anything but a `FramelaneError` is
one, as are an image that is larger than allowed, a hang, and memory above the limit.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris
import cv2
import numpy as np

with atheris.instrument_imports(include=["serve_app.http"]):
    from serve_app.errors import FramelaneError
    from serve_app.http.content_encoding import unpack
    from serve_app.http.image_decode import decode_image
    from serve_app.http.image_header import png_chunks
    from serve_app.http.inference_protocol_model import OUTPUT_NAMES, ImageBatch
    from serve_app.http.inference_protocol_request import json_length, read_request

MAX_PX = 1_000_000
MAX_BODY_BYTES = 1_000_000
MAX_IMAGES = 4


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose checksums are right, so that what the fuzzer changed is looked at; any other bytes as they are."""
    fixed = bytearray(data)
    try:
        for chunk in png_chunks(data):
            fixed[chunk.end - 4 : chunk.end] = zlib.crc32(data[chunk.start + 4 : chunk.end - 4]).to_bytes(4, "big")
    except FramelaneError:
        pass
    return bytes(fixed)


def one_image(data: bytes) -> None:
    """An image is decoded within its bound, or refused by an error of ours."""
    try:
        image_hwc = decode_image(with_right_checksums(data) if data.startswith(b"\x89PNG") else data, "", MAX_PX)
    except FramelaneError:
        return
    height, width, num_channels = image_hwc.shape
    if height * width > MAX_PX or num_channels != 3 or image_hwc.dtype != np.uint8:
        raise RuntimeError(f"decoded {image_hwc.shape} {image_hwc.dtype}, allowed are {MAX_PX} px of 3 bytes")


def one_request(data: bytes) -> None:
    """A body of the inference protocol is read, or refused by an error of ours; the first two bytes are its headers."""
    if len(data) < 3:
        return
    encoding = ("", "gzip", "deflate", "", "")[data[0] % 5]
    try:
        body = unpack(data[2:], encoding, MAX_BODY_BYTES)
        end = body.rfind(b"}") + 1
        num_json = json_length(body, (None, end, 0, data[1], len(body))[data[1] % 5])
        batch = ImageBatch(read_request(body, num_json, MAX_IMAGES, OUTPUT_NAMES), MAX_PX)
        for index in range(batch.num_images):
            batch.decoded(index)
    except FramelaneError:
        pass


def image_seeds() -> list[bytes]:
    """Small images of every kind that is decoded."""
    bgr = np.random.default_rng(1).integers(0, 256, (24, 16, 3), np.uint8)
    kinds = [
        (".jpg", bgr, []), (".jpg", bgr, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), (".jpg", bgr[..., 0], []),
        (".jpg", bgr, [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]), (".png", bgr, []), (".png", bgr[..., 0], []),
        (".png", bgr.astype(np.uint16) * 257, []), (".png", np.dstack([bgr, bgr[..., 0]]), []),
        (".png", bgr[..., 0] // 128 * 255, [cv2.IMWRITE_PNG_BILEVEL, 1]),
    ]  # fmt: skip
    return [cv2.imencode(suffix, image, settings)[1].tobytes() for suffix, image, settings in kinds]


def request_seeds() -> list[bytes]:
    """Bodies as clients send them, behind two bytes that stand for their headers."""
    pixels = bytes(2 * 8 * 8 * 3)
    parameters = {"camera": "gate-1", "priority": 1, "timeout": 1000, "allow_partial": True}
    raw = {"name": "images", "datatype": "UINT8", "shape": [2, 8, 8, 3]}
    binary = {"inputs": [raw | {"parameters": {"binary_data_size": len(pixels)}}], "parameters": parameters}
    listed = {
        "inputs": [raw | {"data": list(pixels)}],
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
    }
    encoded = {"inputs": [{"name": "encoded_images", "datatype": "BYTES", "shape": [1], "data": ["iVBORw0KGgo="]}]}
    picture = image_seeds()[0]
    tail = len(picture).to_bytes(4, "little") + picture
    files = {
        "inputs": [
            {"name": "encoded_images", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}
        ]
    }
    plain = [json.dumps(body).encode() for body in (listed, encoded)]
    with_tail = [json.dumps(binary).encode() + pixels, json.dumps(files).encode() + tail]
    return [
        *(b"\x00\x00" + body for body in plain),
        *(b"\x00\x01" + body for body in with_tail),
        *(b"\x01\x00" + gzip.compress(body) for body in plain),
        *(b"\x02\x00" + zlib.compress(body) for body in plain),
        b"\x00\x02" + picture,
    ]


def main() -> None:
    """Fuzz one target from its seeds."""
    target, seeds = {"images": (one_image, image_seeds), "tensors": (one_request, request_seeds)}[sys.argv[1]]
    with TemporaryDirectory() as folder:
        for index, seed in enumerate(seeds()):
            Path(folder, f"seed-{index}").write_bytes(seed)
        atheris.Setup([sys.argv[0], *sys.argv[2:], folder], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
