"""What a spool keeps as bytes: the same comes back, and any other bytes are told from it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spool_samples import sample_record, sample_result

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app.errors import FrameExpiredError, FrameFailedError, FrameRejectedError, InvalidFrameError
from serve_app.results import FrameResult, StageTimes
from serve_app.spool.pixels import encoded, pixels_of
from serve_app.spool.record import (
    DIGEST_BYTES,
    MAGIC,
    DamagedRecordError,
    Encoding,
    FrameRecord,
    opened,
    record_bytes,
    record_from,
    sealed,
)
from serve_app.spool.result_record import result_bytes, result_from
from serve_app.verdicts import Outcome, Verdict, VerdictKind

TEXT = st.text(max_size=40)
FLOATS32 = st.floats(width=32, allow_nan=False)
# Whole records with any content, so that what lies behind the checksum is met as well.
SEALED = st.binary(max_size=300).map(sealed)


def content_of(result: FrameResult) -> dict:
    """Every field of a result as something that compares."""
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    found = fields.pop("detections")
    error = fields.pop("error")
    arrays = [(array.dtype, array.shape, array.tolist()) for array in (found.boxes_xyxy, found.scores, found.class_ids)]
    return fields | {"arrays": arrays, "error": error and (type(error), error.args)}


@given(
    st.builds(
        FrameRecord, TEXT, TEXT, st.tuples(st.integers(1, 2**31), st.integers(1, 2**31)), st.sampled_from(Encoding),
        st.binary(max_size=500),
    )
)  # fmt: skip
def test_a_record_comes_back(record):
    """Whatever the names and the image are."""
    assert record_from(record_bytes(record)) == record


@st.composite
def results(draw):
    """Results with any values in any field."""
    num_boxes = draw(st.integers(0, 3))
    error = draw(
        st.none()
        | st.builds(
            lambda kind, message, retry_s: kind(message, retry_s),
            st.sampled_from([FrameRejectedError, FrameExpiredError, InvalidFrameError, FrameFailedError]),
            TEXT,
            st.none() | st.floats(0, 1e6),
        )
    )
    return FrameResult(
        draw(TEXT),
        draw(TEXT),
        (draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6))),
        "normal",
        draw(st.sampled_from(Outcome)),
        Detections(
            np.array(draw(st.lists(FLOATS32, min_size=4 * num_boxes, max_size=4 * num_boxes)), np.float32).reshape(
                -1, 4
            ),
            np.array(draw(st.lists(FLOATS32, min_size=num_boxes, max_size=num_boxes)), np.float32),
            np.arange(num_boxes, dtype=np.int64),
        ),
        tuple(draw(st.lists(TEXT, min_size=num_boxes, max_size=num_boxes))),
        draw(
            st.none() | st.builds(Verdict, st.sampled_from(VerdictKind), TEXT, st.none() | st.floats(0, 9), st.just(1))
        ),
        error,
        draw(st.none() | TEXT),
        canvas=draw(st.none() | st.just(CanvasShape(480, 640))),
        batch_size=draw(st.integers(0, 8)),
        times=StageTimes(*draw(st.lists(st.floats(0, 1e9), min_size=6, max_size=6))),
    )


@given(results())
def test_a_result_comes_back(result):
    """To the last bit of each box, with its error of the same class."""
    assert content_of(result_from(result_bytes(result))) == content_of(result)


@given(st.binary(max_size=400) | SEALED | st.binary(max_size=100).map(lambda data: MAGIC + data))
def test_any_other_bytes_are_damage(data):
    """No other exception, whatever somebody else wrote there."""
    for read in (record_from, result_from):
        with pytest.raises(DamagedRecordError):
            read(data)


@given(st.data())
def test_a_changed_byte_is_damage(data):
    """One bit anywhere in a record or result: the checksum tells."""
    whole = data.draw(st.sampled_from([record_bytes(sample_record()), result_bytes(sample_result())]))
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for damaged in (bytes(changed), cut):
        with pytest.raises(DamagedRecordError):
            opened(damaged)


HEADER = '{"frame_id": "f", "camera": "c", "size_hw": [48, 64], "encoding": "png"}'


@pytest.mark.parametrize(
    "header",
    [
        "[]", "{}", "nan", "[" * 100_000, HEADER.replace('"f"', "1"), HEADER.replace("[48, 64]", "[48]"),
        HEADER.replace("48", "48.5"), HEADER.replace("48", "true"), HEADER.replace("png", "bmp"),
        HEADER.replace("[48, 64]", "7"),
    ],
    ids=["list", "empty", "no json", "deep", "id", "one side", "half px", "switch", "encoding", "no sides"],
)  # fmt: skip
def test_a_sound_checksum_over_nonsense_is_damage(header):
    """As a later version might write it."""
    content = header.encode()
    with pytest.raises(DamagedRecordError):
        record_from(sealed(len(content).to_bytes(4, "big") + content + b"image"))


def test_the_sample_header_is_sound():
    """Else the test above would prove nothing."""
    content = HEADER.encode()
    record = record_from(sealed(len(content).to_bytes(4, "big") + content + b"image"))
    assert (record.size_hw, record.image) == ((48, 64), b"image")


def test_an_error_of_another_version_is_a_failure():
    """Its words stay, its class is the general one."""
    result = dataclasses.replace(sample_result(outcome=Outcome.FAILED), error=FrameFailedError("frame: odd"))
    content = opened(result_bytes(result)).replace(b"FrameFailedError", b"FrameMeltedError")
    error = result_from(sealed(content)).error
    assert (type(error), error.message) == (FrameFailedError, "frame: odd")


@pytest.mark.parametrize("size_hw", [(48, 64), (8, 9), (333, 17)])
def test_png_is_lossless(size_hw):
    """To the bit, also of noise."""
    image_hwc = np.random.default_rng(1).integers(0, 256, (*size_hw, 3), np.uint8)
    encoding, data = encoded(image_hwc, None)
    assert encoding is Encoding.PNG
    np.testing.assert_array_equal(pixels_of(FrameRecord("f", "c", size_hw, encoding, data)), image_hwc)


def test_jpeg_has_the_quality_asked_for():
    """Smaller with less, and still the same picture."""
    ramp = np.linspace(0, 255, 96 * 64).reshape(64, 96, 1).astype(np.uint8)
    noisy = ramp.repeat(3, 2) // 2 + np.random.default_rng(1).integers(0, 40, (64, 96, 3), np.uint8)
    sizes = []
    for quality in (95, 40):
        encoding, data = encoded(noisy, quality)
        assert encoding is Encoding.JPEG
        sizes.append(len(data))
        found = pixels_of(FrameRecord("f", "c", (64, 96), encoding, data))
        assert np.abs(found.astype(int) - noisy).mean() < 15
    assert sizes[1] < sizes[0] / 2


def test_a_frame_that_no_file_holds_is_refused():
    """Before anything is written."""
    with pytest.raises(InvalidFrameError, match="allowed are 65500 px a side"):
        encoded(np.zeros((8, 65_501, 3), np.uint8), None)


SMALLER = encoded(np.zeros((8, 9, 3), np.uint8), None)[1]


@pytest.mark.parametrize("image", [b"", b"no image", SMALLER], ids=["empty", "text", "other size"])
def test_an_image_that_is_not_what_was_said_is_damage(image):
    """The checksum is right, the image is not."""
    with pytest.raises(DamagedRecordError):
        pixels_of(sample_record(image=image))


def test_the_digest_has_its_length():
    """What the layout on disk says."""
    assert len(sealed(b"")) == len(MAGIC) + DIGEST_BYTES
