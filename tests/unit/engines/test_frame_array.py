"""What an array must be to be a frame, and what the message says when it is not."""

from __future__ import annotations

import numpy as np
import pytest

from engines.errors import FrameArrayError
from engines.frame_array import MAX_FRAME_PX, MIN_SIDE_PX, check_frame, check_size

ALLOWED = "allowed is a uint8 array (height, width, 3) in BGR"


def huge(*shape, dtype=np.uint8):
    """An array of any size that takes one element of memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def refusal(image, **options):
    """The message of the refusal."""
    with pytest.raises(FrameArrayError) as caught:
        check_frame(image, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("image", "got", "cure"),
    [
        pytest.param([[[0, 0, 0]]], "got list", "cv2.imread", id="list"),
        pytest.param(None, "got NoneType", "cv2.imread", id="none"),
        pytest.param("bus.jpg", "got str", "cv2.imread", id="path"),
        pytest.param(b"\xff\xd8", "got bytes", "cv2.imread", id="bytes"),
        pytest.param(huge(48, 64, 3, dtype=np.float32), "got dtype float32 (shape 48×64×3)", "* 255", id="float32"),
        pytest.param(huge(48, 64, 3, dtype=np.float64), "got dtype float64", "astype(np.uint8)", id="float64"),
        pytest.param(huge(48, 64, 3, dtype=np.int64), "got dtype int64", "astype(np.uint8)", id="int64"),
        pytest.param(huge(48, 64, 3, dtype=np.uint16), "got dtype uint16", "astype(np.uint8)", id="uint16"),
        pytest.param(huge(48, 64, 3, dtype=bool), "got dtype bool", "astype(np.uint8)", id="bool"),
        pytest.param(np.array(None), "got dtype object (shape no axis)", "astype(np.uint8)", id="object"),
        pytest.param(huge(), "got 0 axes (shape no axis)", "cv2.imdecode", id="rank-0"),
        pytest.param(huge(9000), "got 1 axes (shape 9000)", "cv2.imdecode", id="rank-1-encoded-file"),
        pytest.param(huge(0), "got 1 axes (shape 0)", "cv2.imdecode", id="rank-1-empty"),
        pytest.param(huge(2, 48, 64, 3), "got 4 axes (shape 2×48×64×3)", "one by one", id="rank-4"),
        pytest.param(huge(48, 64), "got grey 48×64", "COLOR_GRAY2BGR", id="grey"),
        pytest.param(huge(48, 64, 1), "got grey 48×64×1", "COLOR_GRAY2BGR", id="grey-with-channel"),
        pytest.param(huge(48, 64, 4), "got alpha, 48×64×4", "COLOR_BGRA2BGR", id="alpha"),
        pytest.param(huge(3, 48, 64), "got 64 channels (shape 3×48×64)", "transpose(1, 2, 0)", id="channels-first"),
        pytest.param(huge(48, 64, 2), "got 2 channels (shape 48×64×2)", "image[..., [b, g, r]]", id="two-channels"),
        pytest.param(huge(48, 64, 0), "got 0 channels (shape 48×64×0)", "image[..., [b, g, r]]", id="no-channels"),
    ],
)
def test_what_is_no_frame_is_refused_with_a_cure(image, got, cure):
    """The message says what was got, what is allowed, and how to get there."""
    message = refusal(image)
    assert message.startswith("frame: ")
    assert got in message
    assert ALLOWED in message
    assert cure in message.split(ALLOWED)[1]


@pytest.mark.parametrize(
    "size_hw",
    [(0, 640), (480, 0), (0, 0), (1, 1), (MIN_SIDE_PX - 1, 640), (640, MIN_SIDE_PX - 1)],
    ids=lambda size_hw: f"{size_hw[0]}x{size_hw[1]}",
)
def test_a_frame_with_too_short_a_side_is_refused(size_hw):
    """Empty and tiny frames come from failed reads, and the message says so."""
    message = refusal(huge(*size_hw, 3))
    assert f"got {size_hw[0]}×{size_hw[1]} px (height × width)" in message
    assert f"allowed is {MIN_SIDE_PX} px or more on each side" in message
    assert "cap.read()" in message


def test_a_frame_with_too_many_pixels_is_refused_before_it_is_copied():
    """30,000 by 30,000 px would be 2.7 GB; the message names sizes, limit and the setting."""
    message = refusal(huge(30_000, 30_000, 3))
    assert "got 30000×30000 px, 900,000,000 in all" in message
    assert f"allowed are {MAX_FRAME_PX:,}" in message
    assert "scale it down" in message
    assert "limits.max_frame_px" in message


def test_the_pixel_limit_is_the_callers_to_set():
    """Exactly the limit passes, one row more does not; the transpose counts the same."""
    assert check_frame(huge(10, 20, 3), max_frame_px=200).shape == (10, 20, 3)
    assert check_frame(huge(20, 10, 3), max_frame_px=200).shape == (20, 10, 3)
    assert "allowed are 200" in refusal(huge(11, 20, 3), max_frame_px=200)
    assert "allowed are 200" in refusal(huge(20, 11, 3), max_frame_px=200)


@pytest.mark.parametrize("size_hw", [(MIN_SIDE_PX, 640), (640, MIN_SIDE_PX), (8000, 8000)])
def test_sizes_at_the_limits_pass(size_hw):
    """The smallest side and the largest area are allowed."""
    check_size(size_hw)


def test_a_good_frame_is_returned_as_it_is():
    """No copy where none is needed."""
    image_hwc = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    assert check_frame(image_hwc) is image_hwc


STRIDED = {
    "flipped": lambda image: image[::-1, ::-1],
    "rgb-as-bgr": lambda image: image[..., ::-1],
    "cropped": lambda image: image[3:40, 5:60],
    "every-second-column": lambda image: image[:, ::2],
    "transposed": lambda image: image.transpose(1, 0, 2),
    "fortran-order": np.asfortranarray,
    "three-of-four-channels": lambda image: np.dstack([image, image[..., :1]])[..., :3],
    "broadcast": lambda image: np.broadcast_to(image[:1], image.shape),
}


@pytest.mark.parametrize("view", STRIDED.values(), ids=STRIDED.keys())
def test_any_strides_are_accepted_and_made_contiguous(view):
    """Equal content, C-contiguous, and the caller's array untouched."""
    image_hwc = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    before_hwc, strided_hwc = image_hwc.copy(), view(image_hwc)
    checked_hwc = check_frame(strided_hwc)
    np.testing.assert_array_equal(checked_hwc, strided_hwc)
    np.testing.assert_array_equal(image_hwc, before_hwc)
    assert checked_hwc.flags.c_contiguous
    assert checked_hwc.dtype == np.uint8


def test_a_read_only_frame_is_accepted():
    """Frames out of Ray's object store are read-only."""
    image_hwc = np.zeros((48, 64, 3), np.uint8)
    image_hwc.flags.writeable = False
    assert check_frame(image_hwc) is image_hwc
