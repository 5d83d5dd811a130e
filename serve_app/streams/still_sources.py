"""Frames that are pictures: image files, one each, and a drawn scene that moves past a camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.errors import ImageFileError
from engines.image_file import IMAGE_SUFFIXES, read_image
from engines.letterbox import Image
from serve_app.streams.source import Source, SourceError, SourceFrame, first_size_hw


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Image files, one frame each; they may have different sizes. Each counts for a second of its clock."""

    name: str
    paths: tuple[Path, ...]

    @property
    def num_frames(self) -> int | None:
        """One a file."""
        return len(self.paths)

    def first_size_hw(self) -> tuple[int, int]:
        """See `Source`; unreadable files are passed over."""
        return first_size_hw(self)

    def sizes_hw(self) -> set[tuple[int, int]]:
        """The sizes of all readable files."""
        sizes = set()
        for path in self.paths:
            try:
                height, width = read_image(path).shape[:2]
            except ImageFileError:
                continue
            sizes.add((height, width))
        return sizes

    def frames(self) -> Iterator[SourceFrame | SourceError]:
        """See `Source`; a file that is no whole image is one error, the others go on."""
        for number, path in enumerate(self.paths):
            try:
                image_hwc = read_image(path)
            except ImageFileError as err:
                yield SourceError(str(err))
                continue
            yield SourceFrame(float(number), lambda image_hwc=image_hwc: image_hwc)  # type: ignore[misc]


@dataclass(frozen=True, slots=True, eq=False)
class ScrollingSource:
    """A camera of fixed size over a wide picture that moves past it, as a belt does."""

    name: str
    wide_hwc: Image
    width_px: int
    step_px: int
    count: int

    @property
    def num_frames(self) -> int | None:
        """As asked."""
        return self.count

    def first_size_hw(self) -> tuple[int, int]:
        """See `Source`."""
        return self.wide_hwc.shape[0], self.width_px

    def frames(self) -> Iterator[SourceFrame | SourceError]:
        """See `Source`; the picture turns around at its ends."""
        reach = self.wide_hwc.shape[1] - self.width_px
        for index in range(self.count):
            offset = reach - abs(index * self.step_px % (2 * reach) - reach) if reach else 0
            view = self.wide_hwc[:, offset : offset + self.width_px]
            yield SourceFrame(float(index), lambda view=view: np.ascontiguousarray(view))  # type: ignore[misc]


def image_source(text: str) -> Source:
    """The images that a path names: one, or all of a folder by name. Raises `SourceError` if it holds none."""
    path = Path(text)
    if not path.is_dir():
        return ImageSource(path.stem, (path,))
    paths = tuple(sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES))
    if not paths:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(f"source {text}: a folder without images, allowed are files ending in {kinds}")
    return ImageSource(path.resolve().name, paths)
