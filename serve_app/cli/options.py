"""What several commands understand in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engines.boxes import DetectionLimits
from engines.letterbox import Image
from serve_app.config import BUNDLED_PREFIX, DEFAULT_MODEL, model_path
from serve_app.errors import FramelaneError

ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help=f"ONNX detector: a path, or a bundled one such as {DEFAULT_MODEL}."),
]
MinScore = Annotated[float, typer.Option("--conf", min=0.0, max=1.0, help="Boxes that score no more are dropped.")]
MaxIou = Annotated[float, typer.Option("--iou", min=0.0, max=1.0, help="NMS: most overlap of two boxes of a class.")]
MaxBoxes = Annotated[int, typer.Option("--max-det", min=1, help="Most boxes of one frame.")]

DEFAULTS = DetectionLimits()


def model_file(model: str | None) -> Path:
    """The file that a user means by `--model`; the bundled one if nothing was said."""
    return model_path(DEFAULT_MODEL if model is None else model)


def model_source(model: str | None) -> str:
    """How a plan names that model."""
    text = DEFAULT_MODEL if model is None else model
    return text if text.startswith(BUNDLED_PREFIX) else str(Path(text).resolve())


def save_picture(path: Path, image_hwc: Image, *, keep_old: bool = False) -> None:
    """Write an annotated frame; with `keep_old` beside a file of that name. Raises `FramelaneError` if it cannot be."""
    import cv2

    stem, number = path.stem, 1
    while keep_old and path.exists():
        number += 1
        path = path.with_stem(f"{stem}-{number}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, image_hwc)[1].tobytes())
    except OSError as err:
        raise FramelaneError(f"picture {path}: cannot be written ({err.strerror}); choose another folder") from err
