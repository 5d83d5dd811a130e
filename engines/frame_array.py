"""What an array must be to be a frame; said once, in words that help whoever passed another."""

from __future__ import annotations

import numpy as np

from engines.errors import FrameArrayError
from engines.letterbox import Image

# Below this side no detector has a whole cell of its finest grid (stride 8) to look at.
MIN_SIDE_PX = 8
# 8k by 8k. A frame above it would hold 200 MB; the plan can allow more.
MAX_FRAME_PX = 64_000_000

_ALLOWED = "allowed is a uint8 array (height, width, 3) in BGR"


def check_frame(image: object, *, max_frame_px: int = MAX_FRAME_PX) -> Image:
    """Return `image` as a C-contiguous uint8 `(height, width, 3)` array; a view or copy only where strides need it.

    Raises:
        FrameArrayError: it is anything else; the message says what was got and how to convert it.
    """
    if not isinstance(image, np.ndarray):
        raise FrameArrayError(f"frame: got {type(image).__name__}, {_ALLOWED}; read files with cv2.imread")
    shape = "×".join(map(str, image.shape)) or "no axis"
    if image.dtype != np.uint8:
        raise FrameArrayError(
            f"frame: got dtype {image.dtype} (shape {shape}), {_ALLOWED}; convert values in 0..1 with "
            "(image * 255).astype(np.uint8), values in 0..255 with image.astype(np.uint8)"
        )
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        raise FrameArrayError(f"frame: got grey {shape}, {_ALLOWED}; use cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)")
    if image.ndim != 3:
        cure = "pass the frames of a batch one by one, or to detect_many"
        if image.ndim < 3:
            cure = "decode the bytes of an image file with cv2.imdecode(data, cv2.IMREAD_COLOR)"
        raise FrameArrayError(f"frame: got {image.ndim} axes (shape {shape}), {_ALLOWED}; {cure}")
    if image.shape[2] == 4:
        raise FrameArrayError(f"frame: got alpha, {shape}, {_ALLOWED}; use cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)")
    if image.shape[2] != 3:
        cure = "transpose (3, H, W) with image.transpose(1, 2, 0)"
        if image.shape[0] != 3:
            cure = "pick blue, green and red with image[..., [b, g, r]]"
        raise FrameArrayError(f"frame: got {image.shape[2]} channels (shape {shape}), {_ALLOWED}; {cure}")
    check_size(image.shape[:2], max_frame_px=max_frame_px)
    return np.ascontiguousarray(image)


def check_size(size_hw: tuple[int, ...], *, max_frame_px: int = MAX_FRAME_PX) -> None:
    """Raise `FrameArrayError` unless (height, width) px is a size that may be served."""
    height, width = size_hw
    if min(height, width) < MIN_SIDE_PX:
        raise FrameArrayError(
            f"frame: got {height}×{width} px (height × width), allowed is {MIN_SIDE_PX} px or more on each side; "
            "an empty frame usually means that the camera's read failed: check what cap.read() returned"
        )
    if height * width > max_frame_px:
        raise FrameArrayError(
            f"frame: got {height}×{width} px, {height * width:,} in all, allowed are {max_frame_px:,}; scale it down, "
            "or raise limits.max_frame_px in the plan"
        )
