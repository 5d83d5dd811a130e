"""Image files are read whole or refused: half a picture must not pass as a picture."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from engines.errors import ImageFileError
from engines.image_file import decode_image, is_complete, read_image

JPEG_SETTINGS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restart-marks": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
    "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
}


def picture(height=40, width=56):
    """A picture with noise (so that scans hold every byte) beside a smooth part."""
    image_hwc = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
    image_hwc[:, : width // 2] = np.arange(height, dtype=np.uint8)[:, None, None] * 3
    return image_hwc


def encoded(suffix, settings=(), image_hwc=None):
    """The bytes of a picture in a file format."""
    return cv2.imencode(suffix, picture() if image_hwc is None else image_hwc, list(settings))[1].tobytes()


def with_exif(jpeg, payload, orientation=1):
    """`jpeg` with an EXIF segment that holds an orientation and then `payload`, say a thumbnail."""
    tiff = b"MM\x00\x2a" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0) + payload
    segment = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def with_text(png, text):
    """`png` with a text chunk after its header."""
    chunk = b"tEXt" + text
    header_end = 8 + 12 + 13
    framed = struct.pack(">I", len(text)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:header_end] + framed + png[header_end:]


def refusal(data):
    """The message with which these bytes are refused."""
    with pytest.raises(ImageFileError) as caught:
        decode_image(data, "cam3.jpg")
    return str(caught.value)


@pytest.mark.parametrize("settings", JPEG_SETTINGS.values(), ids=JPEG_SETTINGS.keys())
def test_a_jpeg_cut_anywhere_is_refused(settings):
    """OpenCV would fill the rest with grey; every proper prefix is refused, and the message names the file."""
    data = encoded(".jpg", settings)
    cuts = [*range(40), *range(40, len(data), 13), *range(len(data) - 8, len(data))]
    for cut in cuts:
        message = refusal(data[:cut])
        assert "image cam3.jpg: got" in message
        assert f"{cut} bytes" in message


@pytest.mark.parametrize("settings", JPEG_SETTINGS.values(), ids=JPEG_SETTINGS.keys())
def test_a_whole_jpeg_is_read(settings):
    """Its pixels are those of OpenCV's own decoder."""
    data = encoded(".jpg", settings)
    np.testing.assert_array_equal(decode_image(data, "x"), cv2.imdecode(np.frombuffer(data, np.uint8), 1))


def test_a_cut_jpeg_is_called_truncated():
    """The message says what is wrong, what is allowed and what to do."""
    data = encoded(".jpg")[:-100]
    assert refusal(data) == (
        f"image cam3.jpg: got a truncated file of {len(data)} bytes, allowed is a complete image; send it again"
    )


def test_bytes_after_the_end_of_a_jpeg_are_accepted():
    """Some cameras append padding or their own data."""
    data = encoded(".jpg")
    padded = data + bytes(64) + b"camera 3, lane 7"
    np.testing.assert_array_equal(decode_image(padded, "x"), decode_image(data, "x"))


def test_a_jpeg_cut_after_its_thumbnail_is_refused():
    """The thumbnail inside the EXIF segment has an end mark of its own, which is not the picture's."""
    thumbnail = encoded(".jpg", image_hwc=picture(12, 16))
    assert thumbnail.endswith(b"\xff\xd9")
    data = with_exif(encoded(".jpg"), thumbnail)
    assert decode_image(data, "x").shape == (40, 56, 3)
    after_thumbnail = data.index(b"\xff\xd9") + 2
    for cut in (after_thumbnail, after_thumbnail + 1, after_thumbnail + 200, len(data) - 100, len(data) - 1):
        assert "truncated" in refusal(data[:cut])


def test_fill_bytes_before_a_marker_are_allowed():
    """The JPEG standard allows any number of 0xFF before a marker."""
    data = encoded(".jpg")
    assert is_complete(data[:2] + b"\xff\xff\xff" + data[2:])


@pytest.mark.parametrize(("orientation", "size_hw"), [(1, (40, 56)), (3, (40, 56)), (6, (56, 40)), (8, (56, 40))])
def test_a_picture_is_turned_upright_as_its_exif_says(orientation, size_hw):
    """Phones store a turned sensor image; a detector must see it upright."""
    assert decode_image(with_exif(encoded(".jpg"), b"", orientation), "x").shape == (*size_hw, 3)


def test_a_png_cut_anywhere_is_refused():
    """Every proper prefix, the checksum of the last chunk included."""
    data = encoded(".png")
    for cut in [*range(40), *range(40, len(data), 101), *range(len(data) - 14, len(data))]:
        assert f"{cut} bytes" in refusal(data[:cut])


@pytest.mark.parametrize("num_bytes", [0, 83], ids=["an end before any pixels", "an end that is not empty"])
def test_a_png_whose_end_comes_too_early_is_refused(num_bytes):
    """OpenCV reads on behind such an end: 140 bytes made it take 4 GB."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)), (b"IEND", bytes(num_bytes))]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(its)) + kind + its + struct.pack(">I", zlib.crc32(kind + its)) for kind, its in chunks
    )
    with pytest.raises(ImageFileError, match="truncated"):
        decode_image(data + b"\xff\xf8\x00\x00IEND", "trap.png")


def test_a_png_whose_text_spells_the_end_is_refused_when_cut():
    """The name of the last chunk inside another chunk is not the end."""
    data = with_text(encoded(".png"), b"note\x00IEND")
    assert decode_image(data, "x").shape == (40, 56, 3)
    for cut in (data.index(b"IEND") + 4, data.index(b"IEND") + 12, len(data) // 2, len(data) - 12, len(data) - 1):
        assert "truncated" in refusal(data[:cut])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_lossless_files_come_back_pixel_for_pixel(suffix):
    """BGR in, BGR out, height before width."""
    image_hwc = decode_image(encoded(suffix), "x")
    np.testing.assert_array_equal(image_hwc, picture())
    assert image_hwc.dtype == np.uint8


@pytest.mark.parametrize("suffix", [".bmp", ".tiff", ".webp"])
def test_other_formats_cut_in_the_middle_are_refused(suffix):
    """Their decoders notice it themselves."""
    data = encoded(suffix)
    assert "image cam3.jpg" in refusal(data[: len(data) // 2])


@pytest.mark.parametrize(
    "image_hwc",
    [
        pytest.param(picture()[..., 0], id="grey"),
        pytest.param(np.dstack([picture(), picture()[..., :1]]), id="alpha"),
        pytest.param(picture().astype(np.uint16) * 257, id="16-bit"),
    ],
)
def test_every_png_becomes_three_channels_of_bytes(image_hwc):
    """Grey, alpha and 16 bit files are frames like any other."""
    decoded_hwc = decode_image(encoded(".png", image_hwc=image_hwc), "x")
    assert (decoded_hwc.shape, decoded_hwc.dtype) == ((40, 56, 3), np.uint8)


@pytest.mark.parametrize("data", [b"", b"\x00", b"not an image at all", b"GIF9", b"\x89PNG"], ids=repr)
def test_bytes_that_are_no_image_are_refused(data):
    """The message says how many bytes came and which formats are allowed."""
    message = refusal(data)
    assert f"image cam3.jpg: got {len(data)} bytes that are no image" in message
    assert "allowed are bmp, jpeg, jpg, png, tif, tiff, webp" in message


def test_a_file_is_read_as_its_bytes(tmp_path):
    """From a path with a space and an umlaut, whatever its suffix says."""
    path = tmp_path / "Halle 3 süd.jpg"
    path.write_bytes(encoded(".png"))
    np.testing.assert_array_equal(read_image(path), picture())


def test_a_missing_file_is_named(tmp_path):
    """The message holds the path."""
    path = tmp_path / "gone.jpg"
    with pytest.raises(ImageFileError, match=r"no such file; allowed is a readable image file") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_image_file(tmp_path):
    """What the system says of it is passed on."""
    with pytest.raises(ImageFileError, match=r"is a directory; allowed is a readable image file"):
        read_image(tmp_path)


def test_a_truncated_file_is_named_with_its_path(tmp_path):
    """The reader of the message must find the file."""
    path = tmp_path / "cam3.jpg"
    path.write_bytes(encoded(".jpg")[:-2])
    with pytest.raises(ImageFileError, match="truncated") as caught:
        read_image(path)
    assert str(path) in str(caught.value)
