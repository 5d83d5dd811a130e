"""`framelane detect`: boxes on image files, in this process, with the same code that a replica runs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from engines.errors import EngineError
from engines.spec import CanvasShape
from serve_app.cli.console import errors, output, progress
from serve_app.cli.options import DEFAULTS, MaxBoxes, MaxIou, MinScore, ModelOption, save_picture
from serve_app.config import DEFAULT_MODEL
from serve_app.errors import FramelaneError
from serve_app.local_detector import MAX_CANVAS_PX, Detector
from serve_app.prediction import Prediction


def detect(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Image files, or folders of them.")],
    model: ModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    canvas: Annotated[
        str | None, typer.Option(metavar="HxW", help="Place every image on this canvas; default: its own size.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write annotated pictures into this folder.")] = None,
    conf: MinScore = DEFAULTS.min_score,
    iou: MaxIou = DEFAULTS.max_iou,
    max_det: MaxBoxes = DEFAULTS.max_boxes,
) -> None:
    """Detect on image files. Each is inferred at its own size; a file that cannot be read harms no other."""
    detector = Detector(
        DEFAULT_MODEL if model is None else model,
        conf=conf, iou=iou, max_det=max_det, canvas=_parse_canvas(canvas) if canvas else None,
    )  # fmt: skip
    num_images = num_failed = 0
    with progress() as shown, detector:
        task = shown.add_task("detecting", total=None if any(path.is_dir() for path in images) else len(images))
        for prediction in detector.each(images):
            try:
                _save(prediction.unless_failed(), save)
            except (EngineError, FramelaneError) as err:
                num_failed += 1
                errors.print(f"[bold red]error:[/] {escape(str(err))}", highlight=False, soft_wrap=True)
            else:
                _show(prediction, as_json=as_json)
            num_images += 1
            shown.advance(task)
    if num_failed:
        errors.print(f"{num_failed} of {num_images} images failed", highlight=False)
        raise typer.Exit(1)


def _parse_canvas(text: str) -> CanvasShape:
    height, _, width = text.lower().partition("x")
    if not (text.isascii() and height.isdigit() and width.isdigit()):
        raise FramelaneError(f"--canvas: got {text!r}, allowed is HEIGHTxWIDTH in px, such as 736x1280")
    canvas = CanvasShape(int(height), int(width))
    if canvas.num_px > MAX_CANVAS_PX:
        raise FramelaneError(f"--canvas: got {canvas}, {canvas.num_px:,} px, allowed are {MAX_CANVAS_PX:,}")
    return canvas


def _save(prediction: Prediction, folder: Path | None) -> None:
    if folder is not None:
        save_picture(folder / f"{Path(prediction.path).stem}.png", prediction.plot(), keep_old=True)


def _show(prediction: Prediction, *, as_json: bool) -> None:
    if as_json:
        # Not through rich: it would wrap and colour what programs read.
        typer.echo(json.dumps(prediction.to_dict(), ensure_ascii=False))
        return
    counts = Counter(prediction.class_names)
    what = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
    sizes = " on canvas ".join("×".join(map(str, size_hw)) for size_hw in (prediction.size_hw, prediction.canvas or ()))
    output.print(
        f"[cyan]{escape(prediction.path)}[/]  {sizes}  {prediction.times.infer_s * 1000:.0f} ms  "
        f"[bold]{escape(what)}[/]",
        highlight=False,
    )
