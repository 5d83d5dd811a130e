"""Why the bytes of an image are no frame; each says whether to send less, something else, or the same once more whole.

FramelaneError
├── ImageTooLargeError   413  more pixels than may be decoded, by its own header
├── ImageTypeError       415  neither JPEG nor PNG, or announced as something else
└── ImageDataError       422  truncated, damaged, contradictory, or too small to be a frame
"""

from __future__ import annotations

from serve_app.errors import FramelaneError


class ImageTooLargeError(FramelaneError):
    """The image's header announces more pixels than allowed; nothing was decoded."""

    http_status = 413


class ImageTypeError(FramelaneError):
    """The bytes are no JPEG and no PNG, or are said to be something else."""

    http_status = 415


class ImageDataError(FramelaneError):
    """A JPEG, PNG or raw image that is truncated, damaged, contradicts itself or is too small."""

    http_status = 422
