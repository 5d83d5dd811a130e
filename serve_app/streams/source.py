"""What a source of frames is: opened, read and closed by one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from engines.letterbox import Image
from serve_app.errors import FramelaneError


class SourceError(FramelaneError):
    """A source that cannot be opened, holds no frame, or breaks off."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceFrame:
    """A frame that is there, but not yet pixels: one that nobody takes costs no conversion.

    Attributes:
        at_s: seconds on the source's own clock.
        decode: its pixels, uint8 `(height, width, 3)` BGR, the caller's own; to be called before the next frame is
            asked for. Raises `SourceError` if it cannot be decoded.
    """

    at_s: float
    decode: Callable[[], Image]


class Source(Protocol):
    """One camera's frames, in order. Used by one thread."""

    @property
    def name(self) -> str:
        """What it is called in messages; without secrets."""

    @property
    def num_frames(self) -> int | None:
        """How many frames there are; None if nobody knows. May raise `SourceError`."""

    def first_size_hw(self) -> tuple[int, int]:
        """(height, width) in px of the first frame. Raises `SourceError` if there is none."""

    def frames(self) -> Iterator[SourceFrame | SourceError]:
        """Open it and give its frames; an error stands for a lost one. Closing the generator closes the source.

        Raises:
            SourceError: it cannot be opened, or broke off.
        """


def first_size_hw(source: Source) -> tuple[int, int]:
    """(height, width) in px of a source's first readable frame; opens and closes it. Raises `SourceError`."""
    num_lost = 0
    for frame in source.frames():
        try:
            if not isinstance(frame, SourceError):
                height, width = frame.decode().shape[:2]
                return height, width
        except SourceError:
            pass
        num_lost += 1
    if num_lost:
        raise SourceError(f"source {source.name}: none of its {num_lost} frames can be decoded")
    raise SourceError(f"source {source.name}: holds no frame that can be decoded")
