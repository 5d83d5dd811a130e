"""Whatever comes from the network is decoded within bounds or refused by an error of ours: no crash, no hang."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_samples import JPEG_SETTINGS, encoded, picture, with_exif

from serve_app.errors import FramelaneError
from serve_app.http.image_decode import RAW_LAYOUTS, decode_image, decode_raw
from serve_app.http.inference_protocol_model import OUTPUT_NAMES, ImageBatch
from serve_app.http.inference_protocol_request import json_cost_bytes, json_length, read_request

MAX_PX = 40 * 56
FUZZER = Path(__file__).parents[2] / "fuzz" / "decoding_fuzz.py"
# A 40×56 picture of each kind.
SAMPLES = [
    *(encoded(".jpg", settings) for settings in JPEG_SETTINGS.values()), with_exif(encoded(".jpg"), 6), encoded(".png"),
    encoded(".png", image_hwc=picture()[..., 0]),
]  # fmt: skip


@st.composite
def damaged(draw, samples):
    """A sample of which bytes were changed, cut out, put in or repeated."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        data[start:end] = draw(st.binary(max_size=12) | st.just(bytes(data[start:end]) * 2))
    return bytes(data)


@given(damaged(SAMPLES))
def test_a_damaged_image_is_decoded_or_refused(data):
    """And never larger than allowed, whatever its header has become."""
    try:
        height, width, num_channels = decode_image(data, "", MAX_PX).shape
    except FramelaneError as err:
        told = str(err)
        assert told.isprintable()
    else:
        assert height * width <= MAX_PX
        assert num_channels == 3


@given(st.binary(max_size=300), st.integers(-1, 20), st.integers(-1, 20), st.sampled_from([*RAW_LAYOUTS, "x"]))
def test_raw_bytes_are_a_picture_or_refused(data, height, width, layout):
    """The size that is said must be the size that came."""
    try:
        assert decode_raw(data, height, width, layout).shape == (height, width, 3)
    except FramelaneError:
        assert len(data) != height * width * RAW_LAYOUTS.get(layout, 0) or min(height, width) < 8


PNG = encoded(".png")
BODIES = [
    json.dumps(body).encode() + tail
    for body, tail in (
        ({"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [7] * 192}]}, b""),
        ({"id": "x", "inputs": [{"name": "images", "datatype": "UINT8", "shape": [2, 8, 8, 3],
                                 "parameters": {"binary_data_size": 384}}]}, bytes(384)),
        ({"inputs": [{"name": "encoded_images", "datatype": "BYTES", "shape": [1, 1],
                      "parameters": {"binary_data_size": len(PNG) + 4}}],
          "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
          "parameters": {"camera": "gate", "priority": 1, "timeout": 10}}, len(PNG).to_bytes(4, "little") + PNG),
    )
]  # fmt: skip


@given(damaged(BODIES), st.none() | st.integers(0, 400), st.booleans())
def test_a_damaged_request_is_read_or_refused(body, header, is_at_end):
    """JSON, its tail and the header that says where one begins and the other ends."""
    try:
        at = body.rfind(b"}") + 1 if is_at_end else header
        batch = ImageBatch(read_request(body, json_length(body, at), 4, OUTPUT_NAMES), MAX_PX)
        shapes = [batch.decoded(index).shape for index in range(batch.num_images)]
    except FramelaneError:
        return
    assert all(shape[0] * shape[1] <= MAX_PX for shape in shapes)


MEASURE = """
import json, sys, tracemalloc
data = sys.stdin.buffer.read()
tracemalloc.start()
value = json.loads(data)
print(tracemalloc.get_traced_memory()[1])
"""
GROWING = [
    b"[],", b"{},", b'{"a":1},', b"1,", b"1e9,", b'"",', b'"ab",', b"[[]],", b'"\xc3\xa9",',
    b'"\\ud83d\\ude00abcdefgh",', b'"' + b"a" * 99 + b'\xf0\x9f\x98\x80",',
]  # fmt: skip


@pytest.mark.parametrize("one", GROWING, ids=repr)
def test_what_json_takes_is_never_more_than_was_counted(one):
    """The door counts it before it is read: brackets grow twentyfold."""
    data = b"[" + one * 20_000 + b"0]"
    child = subprocess.run([sys.executable, "-c", MEASURE], input=data, capture_output=True, check=True, timeout=60)
    assert int(child.stdout) <= json_cost_bytes(data)


def test_a_request_in_gzip_of_brackets_is_refused():
    """A few kilobytes that would become millions of lists."""
    body = gzip.decompress(gzip.compress(b"[" * 5_000_000))
    with pytest.raises(FramelaneError, match="got JSON of 5,000,000 values, allowed are 4,000,000"):
        read_request(body, len(body), 4, OUTPUT_NAMES)


@pytest.mark.parametrize("target", ["images", "tensors"])
def test_a_short_run_of_the_guided_fuzzer_finds_nothing(target, tmp_path):
    """`make fuzz` runs it for longer; memory, time of each input and errors that are not ours are its findings."""
    pytest.importorskip("atheris")
    options = ["-runs=8000", "-max_total_time=20", "-rss_limit_mb=1500", "-timeout=10", "-max_len=4096", "-seed=1"]
    run = subprocess.run(
        [sys.executable, str(FUZZER), target, *options],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Done " in run.stderr
    assert list(tmp_path.iterdir()) == []
