"""Bytes from the network become frames, or an error that says why not; a header is believed before memory is spent."""

from __future__ import annotations

import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from image_samples import (
    JPEG_SETTINGS,
    encoded,
    picture,
    png,
    png_chunk,
    with_exif,
    with_jpeg_size,
    with_png_size,
)

from serve_app.http import image_decode
from serve_app.http.image_decode import MEDIA_TYPES, RAW_LAYOUTS, decode_image, decode_raw
from serve_app.http.image_errors import ImageDataError, ImageTooLargeError, ImageTypeError
from serve_app.http.image_header import MAX_JPEG_SCANS, ImageFormat, ImageHeader, read_header

MAX_PX = 1_000_000


@pytest.fixture
def no_decoder(monkeypatch):
    """The decoder must not be reached: what is refused is refused by its header."""

    def reached(*_):
        raise AssertionError("decoded what the header should have refused")

    monkeypatch.setattr(image_decode.cv2, "imdecode", reached)


def by_opencv(data):
    """What `cv2.imread` makes of the same file."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("settings", JPEG_SETTINGS.values(), ids=JPEG_SETTINGS.keys())
def test_a_jpeg_is_what_opencv_reads(settings):
    """A frame over HTTP has the pixels of the same file on a disk."""
    data = encoded(".jpg", settings)
    image_hwc = decode_image(data, "image/jpeg", MAX_PX)
    np.testing.assert_array_equal(image_hwc, by_opencv(data))
    assert (image_hwc.shape, image_hwc.dtype, image_hwc.flags.c_contiguous) == ((40, 56, 3), np.uint8, True)


def test_a_png_comes_back_pixel_for_pixel():
    """BGR in, BGR out, height before width."""
    np.testing.assert_array_equal(decode_image(encoded(".png"), "image/png", MAX_PX), picture())


@pytest.mark.parametrize("media_type", sorted({*MEDIA_TYPES, "IMAGE/JPEG; q=1", " image/png "}), ids=repr)
def test_the_bytes_decide_which_of_the_two_it_is(media_type):
    """Cameras that announce a PNG as JPEG are met; what was said must only not contradict an image."""
    assert decode_image(encoded(".png"), media_type, MAX_PX).shape == (40, 56, 3)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("media_type", ["image/webp", "text/html", "video/mp4", "image", "x" * 500])
def test_another_media_type_is_refused_by_name(media_type):
    """415, with what is allowed, and not all of a long name."""
    with pytest.raises(ImageTypeError, match="allowed are image/jpeg and image/png") as caught:
        decode_image(encoded(".png"), media_type, MAX_PX)
    assert caught.value.http_status == 415
    assert len(str(caught.value)) < 200


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("data", "name"),
    [
        (encoded(".bmp"), "BMP"), (encoded(".tiff"), "TIFF"), (encoded(".webp"), "WebP"), (b"GIF89a...", "GIF"),
        (b"", "no bytes"), (b"\xff", "0xff"), (b"<html>", "0x3c68746d"),
    ],
    ids=["bmp", "tiff", "webp", "gif", "empty", "one byte", "html"],
)  # fmt: skip
def test_other_bytes_are_refused_by_their_own_name(data, name):
    """Only two decoders are reachable from the network; the message says what came instead."""
    with pytest.raises(ImageTypeError, match=name):
        decode_image(data, "image/jpeg", MAX_PX)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (with_png_size(encoded(".png"), 50_000, 40_000), "image/png"),
        (with_jpeg_size(encoded(".jpg"), 50_000, 40_000), "image/jpeg"),
        (with_jpeg_size(encoded(".jpg", JPEG_SETTINGS["progressive"]), 50_000, 40_000), "image/jpeg"),
    ],
    ids=["png", "jpeg", "progressive"],
)
def test_a_decompression_bomb_is_refused_by_its_header(data, media_type):
    """A kilobyte that says 2 gigapixels: 413 before a byte is allocated for it."""
    tracemalloc.start()
    try:
        with pytest.raises(ImageTooLargeError, match=r"50000×40000 px.*2,000,000,000 in all, allowed are 1,000,000"):
            decode_image(data, media_type, MAX_PX)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_thumbnail_does_not_hide_the_size():
    """A small picture inside a segment of the large one is not the picture."""
    thumbnail = encoded(".jpg", image_hwc=picture(12, 16))
    data = with_exif(encoded(".jpg"), 1, thumbnail)
    assert read_header(data) == ImageHeader(ImageFormat.JPEG, 40, 56)
    with pytest.raises(ImageTooLargeError):
        decode_image(data, "", 40 * 56 - 1)
    assert decode_image(data, "", 40 * 56).shape == (40, 56, 3)


@pytest.mark.usefixtures("no_decoder")
def test_a_second_size_is_refused():
    """Which of the two the decoder would take is not for the sender to choose."""
    small, large = encoded(".jpg"), with_jpeg_size(encoded(".jpg"), 50_000, 50_000)
    start = large.index(b"\xff\xc0")
    segment = large[start : start + 2 + int.from_bytes(large[start + 2 : start + 4], "big")]
    at = small.index(b"\xff\xda")
    with pytest.raises(ImageDataError, match="says its size twice"):
        decode_image(small[:at] + segment + small[at:], "", MAX_PX)
    with_two = png(8, 8, before=[encoded(".png")[8:33]])
    with pytest.raises(ImageDataError, match="one header"):
        decode_image(with_two, "", MAX_PX)


@pytest.mark.usefixtures("no_decoder")
def test_a_jpeg_of_endless_scans_is_refused():
    """Each scan may cost the time of the whole picture, and takes ten bytes of file."""
    data = encoded(".jpg")
    at = data.index(b"\xff\xda")
    scan = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
    with pytest.raises(ImageDataError, match=f"of {MAX_JPEG_SCANS + 1} scans, allowed are {MAX_JPEG_SCANS}"):
        decode_image(data[:at] + scan * MAX_JPEG_SCANS + data[at:], "", MAX_PX)


def test_compressed_notes_of_a_png_are_never_unpacked(monkeypatch):
    """Texts, profiles and animations leave before the decoder: a megabyte of them would keep it busy for seconds."""
    seen = []
    decoder = cv2.imdecode
    monkeypatch.setattr(
        image_decode.cv2, "imdecode", lambda data, flag: seen.append(data.nbytes) or decoder(data, flag)
    )
    note = png_chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(100_000)))
    plain = png(8, 9)
    image_hwc = decode_image(png(8, 9, before=[note] * 50) + b"behind the end", "", MAX_PX)
    assert image_hwc.shape == (8, 9, 3)
    assert seen == [len(plain)]


@pytest.mark.parametrize("settings", JPEG_SETTINGS.values(), ids=JPEG_SETTINGS.keys())
def test_a_jpeg_cut_anywhere_is_refused(settings):
    """OpenCV would fill the rest with grey."""
    data = encoded(".jpg", settings)
    for cut in [*range(2, 40), *range(40, len(data), 13), *range(len(data) - 8, len(data))]:
        with pytest.raises(ImageDataError):
            decode_image(data[:cut], "", MAX_PX)


def test_a_png_cut_anywhere_is_refused():
    """Every proper prefix behind its start."""
    data = encoded(".png")
    for cut in [*range(8, 40), *range(40, len(data), 101), *range(len(data) - 14, len(data))]:
        with pytest.raises(ImageDataError):
            decode_image(data[:cut], "", MAX_PX)


def test_a_png_with_a_wrong_bit_is_refused():
    """Its pieces have checksums: wrong pixels do not pass as pixels."""
    data = bytearray(encoded(".png"))
    data[len(data) // 2] ^= 0x10
    with pytest.raises(ImageDataError, match="PNG that is damaged"):
        decode_image(bytes(data), "", MAX_PX)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("size_hw", [(7, 100), (100, 7), (0, 100)])
def test_a_picture_below_the_smallest_side_is_refused(size_hw):
    """As everywhere else: no detector has a cell to look at."""
    with pytest.raises(ImageDataError, match="allowed is 8 px or more on each side"):
        decode_image(with_png_size(encoded(".png"), *size_hw), "", MAX_PX)


@pytest.mark.parametrize(("orientation", "size_hw"), [(1, (40, 56)), (3, (40, 56)), (6, (56, 40)), (8, (56, 40))])
def test_a_picture_is_turned_upright_as_its_exif_says(orientation, size_hw):
    """Boxes are in px of the upright picture."""
    assert decode_image(with_exif(encoded(".jpg"), orientation), "", MAX_PX).shape == (*size_hw, 3)


def test_grey_alpha_and_sixteen_bits_become_three_channels_of_bytes():
    """Grey is repeated; alpha is dropped, not blended; of 16 bits the upper 8 are kept."""
    bgr = picture()
    grey = decode_image(encoded(".png", image_hwc=bgr[..., 0]), "", MAX_PX)
    np.testing.assert_array_equal(grey, np.repeat(bgr[..., :1], 3, axis=2))
    bgra = np.dstack([bgr, np.zeros((40, 56), np.uint8)])
    np.testing.assert_array_equal(decode_image(encoded(".png", image_hwc=bgra), "", MAX_PX), bgr)
    sixteen = bgr.astype(np.uint16) * 256 + 255
    np.testing.assert_array_equal(decode_image(encoded(".png", image_hwc=sixteen), "", MAX_PX), bgr)


def test_raw_pixels_are_taken_without_a_copy():
    """A frame of a camera that sends BGR costs no second buffer, and is read-only like every frame."""
    data = picture().tobytes()
    image_hwc = decode_raw(data, 40, 56, "bgr")
    np.testing.assert_array_equal(image_hwc, picture())
    assert np.shares_memory(image_hwc, np.frombuffer(data, np.uint8))


def test_raw_layouts_say_which_byte_is_which_colour():
    """Red, green, blue are turned round; grey is repeated."""
    bgr = picture()
    np.testing.assert_array_equal(decode_raw(bgr[..., ::-1].tobytes(), 40, 56, "rgb"), bgr)
    np.testing.assert_array_equal(
        decode_raw(bgr[..., 1].tobytes(), 40, 56, "grey"), np.repeat(bgr[..., 1:2], 3, axis=2)
    )
    assert set(RAW_LAYOUTS) == {"bgr", "rgb", "grey"}


@pytest.mark.parametrize(
    ("num_bytes", "size_hw", "layout", "message"),
    [
        (40 * 56 * 3 - 1, (40, 56), "bgr", "got 6719 bytes for 40×56 px .* 40 × 56 × 3 = 6720"),
        (40 * 56 * 3, (40, 56), "grey", "40 × 56 × 1 = 2240"),
        (0, (2**40, 2**40), "bgr", "got 0 bytes"),
        (21, (7, 1), "bgr", "8 px or more"),
        (6720, (-40, -56), "bgr", "8 px or more"),
        (6720, (40, 56), "nv12", "got layout 'nv12', allowed are bgr, rgb, grey"),
    ],
    ids=["short", "other layout", "enormous", "tiny", "negative", "unknown layout"],
)
def test_raw_pixels_that_do_not_add_up_are_refused(num_bytes, size_hw, layout, message):
    """The size must explain every byte; nothing is allocated for a size that lies."""
    with pytest.raises(ImageDataError, match=message):
        decode_raw(bytes(num_bytes), *size_hw, layout)
