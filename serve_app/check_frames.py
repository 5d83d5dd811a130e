"""Frames on which runners and precisions are compared: a user's own, or drawn scenes where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.image_file import IMAGE_SUFFIXES, read_image
from engines.letterbox import Image
from serve_app.errors import FramelaneError

# The sizes (height, width) in px of the scenes that stand in where no frames are given: small, wide, tall, large.
SCENE_SIZES_HW = ((320, 320), (480, 640), (608, 800), (800, 480), (720, 1280), (1080, 1920))
FIRST_SCENE_SEED = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class NamedFrame:
    """A frame and what to call it."""

    name: str
    image_hwc: Image


def frames_of(sources: Sequence[Path]) -> list[NamedFrame]:
    """The images of these files and folders.

    Raises:
        FramelaneError: a folder without an image.
        ImageFileError: a file that is none.
    """
    paths = [path for source in sources for path in (_images_in(source) if source.is_dir() else [source])]
    return [NamedFrame(path.name, read_image(path)) for path in paths]


def drawn_scenes() -> list[NamedFrame]:
    """Seeded scenes of an inspection line, one of each size."""
    from framelane_inspection.scenes import draw_scene

    return [
        NamedFrame(f"scene {height}×{width}", draw_scene((height, width), FIRST_SCENE_SEED + index).image_hwc)
        for index, (height, width) in enumerate(SCENE_SIZES_HW)
    ]


def _images_in(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise FramelaneError(f"frames: got folder {folder} without an image, allowed are files of {kinds}")
    return paths
