"""What the text that names a source means, and how to speak of it without its password. Pure: opens nothing."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

from engines.image_file import IMAGE_SUFFIXES

# How FFmpeg names what it can open beside files.
URL_SCHEMES = ("rtsp://", "rtsps://", "http://", "https://", "udp://", "rtmp://", "srt://")
_WEBCAM = re.compile(r"(?:webcam:)?(\d{1,3})|/dev/video(\d{1,3})")
# Cameras that take their password in the query: the value behind such a key is never shown.
_SECRET_QUERY = re.compile(
    r"(?i)([?&;][^=&;\s]*(?:pass|pwd|token|secret|key|auth|sig|user|login)[^=&;\s]*=)[^&;\s'\"]*"
)
_ANY_USER = re.compile(r"(?i)([a-z][a-z0-9+.-]*://)[^\s'\"]*@")
HIDDEN = "***"


class SourceKind(Enum):
    """How a source is read."""

    NETWORK = "network"
    """A camera's address."""
    WEBCAM = "webcam"
    """A camera of this machine."""
    IMAGES = "images"
    """One image, or a folder of them."""
    VIDEO = "video"
    """A video file."""


def kind_of(text: str) -> SourceKind:
    """What a text names; a file that does not exist is a video by its name."""
    if text.lower().startswith(URL_SCHEMES):
        return SourceKind.NETWORK
    path = Path(text)
    if webcam_index(text) is not None and not path.is_file() and not path.is_dir():
        return SourceKind.WEBCAM
    is_images = path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES
    return SourceKind.IMAGES if is_images else SourceKind.VIDEO


def webcam_index(text: str) -> int | None:
    """The number of the webcam that `0`, `webcam:0` or `/dev/video0` names; None for anything else."""
    match = _WEBCAM.fullmatch(text)
    return None if match is None else int(match[1] or match[2])


def name_of(text: str) -> str:
    """What a camera is called unless the user says otherwise: the file's stem, or the address without its secrets."""
    kind = kind_of(text)
    if kind is SourceKind.NETWORK:
        name = text.rpartition("@")[2]  # a password may hold a slash or an at; what is behind the last one is the host
        return _SECRET_QUERY.sub(rf"\1{HIDDEN}", name)
    if kind is SourceKind.WEBCAM:
        return f"webcam-{webcam_index(text)}"
    path = Path(text)
    return path.resolve().name if path.is_dir() else path.stem or text


def without_secret(text: str) -> str:
    """A text with no user, password or token of any address in it; for messages, tables and records."""
    return _SECRET_QUERY.sub(rf"\1{HIDDEN}", _ANY_USER.sub(rf"\1{HIDDEN}@", text))
