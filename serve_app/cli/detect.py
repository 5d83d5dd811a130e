"""`framelane detect`: boxes on image files, in this process, with the same code that a replica runs."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from engines.boxes import DetectionLimits
from engines.detector import detect_placed, place_batch
from engines.errors import EngineError
from engines.frame_array import check_frame
from engines.image_file import read_image
from engines.onnx_run import OnnxEngine
from engines.spec import CanvasShape, WarmShape, fitting_canvas
from serve_app.cli.console import errors, output, progress
from serve_app.cli.options import DEFAULTS, MaxBoxes, MaxIou, MinScore, ModelOption, model_file, save_picture
from serve_app.drawing import draw_detections
from serve_app.errors import FramelaneError

# Larger images are scaled down to this many px (4K): a CPU needs seconds and gigabytes for more.
MAX_CANVAS_PX = 3840 * 2176


def detect(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Image files.")],
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
    wanted = _parse_canvas(canvas) if canvas else None
    engine = OnnxEngine(model_file(model), limits=DetectionLimits(conf, iou, max_det))
    num_failed = 0
    with progress() as shown:
        task = shown.add_task("detecting", total=len(images))
        for path in images:
            try:
                record = _detect_one(engine, path, wanted, save)
            except (EngineError, FramelaneError) as err:
                num_failed += 1
                errors.print(f"[bold red]error:[/] {escape(str(err))}", highlight=False, soft_wrap=True)
            else:
                _show(record, as_json=as_json)
            shown.advance(task)
    engine.close()
    if num_failed:
        errors.print(f"{num_failed} of {len(images)} images failed", highlight=False)
        raise typer.Exit(1)


def _detect_one(engine: OnnxEngine, path: Path, wanted: CanvasShape | None, save: Path | None) -> dict[str, object]:
    """One image's line of output."""
    read_s = time.perf_counter()
    image_hwc = check_frame(read_image(path))
    canvas = wanted or native_canvas(image_hwc.shape[:2], engine.model.stride_px)
    engine.warm([WarmShape(canvas, 1)])
    placing_s = time.perf_counter()
    placed = place_batch([image_hwc], canvas)
    placed_s = time.perf_counter()
    output_ = detect_placed(engine, placed)
    ended_s = time.perf_counter()
    found = output_.detections[0]
    class_names = [engine.model.class_name(int(class_id)) for class_id in found.class_ids]
    if save is not None:
        save_picture(save / f"{path.stem}.png", draw_detections(image_hwc, found, class_names), keep_old=True)
    preprocess_s, postprocess_s = placed_s - placing_s, ended_s - placed_s - output_.run_s
    return {
        "image": str(path),
        "canvas_hw": list(canvas),
        "source_hw": list(image_hwc.shape[:2]),
        "boxes_xyxy": [[round(float(value), 2) for value in box] for box in found.boxes_xyxy],
        "scores": [round(float(score), 4) for score in found.scores],
        "class_ids": found.class_ids.tolist(),
        "class_names": class_names,
        "timings_ms": {
            "preprocess": round(preprocess_s * 1000, 2),
            "infer": round(output_.run_s * 1000, 2),
            "postprocess": round(postprocess_s * 1000, 2),
            "read_and_warm": round((placing_s - read_s) * 1000, 2),
        },
    }


def native_canvas(size_hw: tuple[int, ...], stride_px: int) -> CanvasShape:
    """The canvas of an image's own size, or for one of more than `MAX_CANVAS_PX` that of a smaller copy."""
    height, width = size_hw
    shrink = min(1.0, (MAX_CANVAS_PX / (height * width)) ** 0.5)
    return fitting_canvas((int(height * shrink), int(width * shrink)), stride_px)


def _parse_canvas(text: str) -> CanvasShape:
    height, _, width = text.lower().partition("x")
    if not (text.isascii() and height.isdigit() and width.isdigit()):
        raise FramelaneError(f"--canvas: got {text!r}, allowed is HEIGHTxWIDTH in px, such as 736x1280")
    canvas = CanvasShape(int(height), int(width))
    if canvas.num_px > MAX_CANVAS_PX:
        raise FramelaneError(f"--canvas: got {canvas}, {canvas.num_px:,} px, allowed are {MAX_CANVAS_PX:,}")
    return canvas


def _show(record: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        # Not through rich: it would wrap and colour what programs read.
        typer.echo(json.dumps(record, ensure_ascii=False))
        return
    names = record["class_names"]
    counts = Counter(names if isinstance(names, list) else [])
    what = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
    sizes = " on canvas ".join("×".join(map(str, record[key])) for key in ("source_hw", "canvas_hw"))  # type: ignore[call-overload]
    timings = record["timings_ms"]
    infer_ms = timings["infer"] if isinstance(timings, dict) else 0
    output.print(
        f"[cyan]{escape(str(record['image']))}[/]  {sizes}  {infer_ms:.0f} ms  [bold]{escape(what)}[/]", highlight=False
    )
