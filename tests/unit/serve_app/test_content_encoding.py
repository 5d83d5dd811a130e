"""Compressed bodies: what was packed comes back, and what would not end is stopped at its limit."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import FramelaneError
from serve_app.http.content_encoding import MAX_RATIO, MIN_PACKED_BYTES, pack, unpack, unpacked_bytes_at_most
from serve_app.http.errors import BodyTooLargeError, HttpError, MediaTypeError

PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_packed_body_comes_back(encoding):
    """Names are read as HTTP writes them: any case, spaces around."""
    data = bytes(range(256)) * 9
    assert unpack(PACKERS[encoding](data), f" {encoding.upper()} ", len(data)) == data


@pytest.mark.parametrize("encoding", ["", "identity"])
def test_an_unpacked_body_stays_as_it_is(encoding):
    """And holds no more room."""
    assert unpack(b"\x1f\x8b", encoding, 10) == b"\x1f\x8b"
    assert unpacked_bytes_at_most(10, encoding, 1000) == 0


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_bomb_is_stopped_at_its_limit(encoding):
    """50 MB of zeros in 50 kB: no more than twice the limit is ever held."""
    bomb = PACKERS[encoding](bytes(50_000_000))
    assert unpacked_bytes_at_most(len(bomb), encoding, 10**12) == len(bomb) * MAX_RATIO > 50_000_000
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError, match="unpack to more than 1,000,000"):
            unpack(bomb, encoding, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 2_500_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 300])
def test_another_encoding_is_refused(encoding):
    """415, with those that are allowed."""
    with pytest.raises(MediaTypeError, match="allowed are gzip, deflate and identity"):
        unpack(b"", encoding, 10)


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_stream_that_breaks_off_or_goes_on_is_refused(encoding):
    """Half a body must not pass as one."""
    packed = PACKERS[encoding](b"a body of the caller's")
    for data, words in ((packed[:-1], "breaks off"), (packed + b"x", "followed by other bytes"), (b"no", "no|breaks")):
        with pytest.raises(HttpError, match=words):
            unpack(data, encoding, 1000)


@given(st.sampled_from(["gzip", "deflate", "", "br"]), st.binary(max_size=200))
def test_any_bytes_are_a_body_or_an_error_of_ours(encoding, data):
    """Whatever came."""
    try:
        unpacked = unpack(data, encoding, 300)
    except FramelaneError:
        return
    assert len(unpacked) <= 300


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("gzip", "gzip"), ("deflate", "deflate"), ("br, GZIP;q=0.5", "gzip"), ("", ""), ("br", ""), ("gzip;q=0", ""),
        ("gzip; q=0.000, deflate", "deflate"), ("*", ""), ("\0\xff,,;", ""),
    ],
)  # fmt: skip
def test_an_answer_is_packed_as_its_caller_takes_it(accept, encoding):
    """And small ones not at all."""
    data = bytes(MIN_PACKED_BYTES)
    packed, told = pack(data, accept)
    assert (unpack(packed, told, len(data)), told) == (data, encoding)
    assert pack(data[1:], accept) == (data[1:], "")
