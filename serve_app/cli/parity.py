"""`framelane parity`: whether two runners find the same on the same frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from engines.base import Engine
from engines.detections import Detections
from engines.engine_spec import Precision
from engines.graph import load_model, read_info
from engines.parity import (
    DEFAULT_MAX_SCORE_DIFFERENCE,
    DEFAULT_MIN_IOU,
    Excess,
    Parity,
    Tolerance,
    compare,
    detect_all,
    engine_of,
    native_shape,
)
from engines.prepared_graph import prepared_onnx
from engines.spec import WarmShape
from serve_app.check_frames import NamedFrame, drawn_scenes, frames_of
from serve_app.cli.console import output, progress
from serve_app.config import engine_cache_folder, model_path
from serve_app.errors import FramelaneError

TRUSTED_RUNNER = "onnx-fp32"
CHECKED_RUNNER = "onnx-fp16"
TENSORRT_RUNNER = "tensorrt"


@dataclass(frozen=True, slots=True)
class Runner:
    """A way to run a model.

    Attributes:
        make: from the model's file, a precision and all shapes that will be asked for, an engine that answers the boxes
            before NMS (`engines.parity.CANDIDATES`).
        precision: the only one that it knows; None: any, and `--precision` says which.
    """

    make: Callable[[Path, Precision, Sequence[WarmShape]], Engine]
    precision: Precision | None


def _onnx_engine(path: Path, precision: Precision, _: Sequence[WarmShape]) -> Engine:
    return engine_of(prepared_onnx(path, precision))


def _tensorrt_engine(path: Path, precision: Precision, shapes: Sequence[WarmShape]) -> Engine:
    """On the first GPU here, with whichever TensorRT is installed."""
    from serve_app.lone_engine import lone_tensorrt_engine
    from serve_app.tensorrt_pool import gpu_here

    return lone_tensorrt_engine(path, precision, shapes, parts=gpu_here(), folder=engine_cache_folder())


RUNNERS: dict[str, Runner] = {
    TRUSTED_RUNNER: Runner(_onnx_engine, Precision.FP32),
    CHECKED_RUNNER: Runner(_onnx_engine, Precision.FP16),
    TENSORRT_RUNNER: Runner(_tensorrt_engine, None),
}


def parity(
    model: Annotated[str, typer.Argument(help="ONNX detector: a path, or a bundled one such as bundled:…-full.")],
    frames: Annotated[
        list[Path] | None, typer.Option(help="An image file or a folder of them; may be given again. Default: scenes.")
    ] = None,
    runner: Annotated[
        list[str] | None, typer.Option(help="A runner; given twice, the first is the trusted one.", show_default=False)
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="For runners whose name says none.", show_default="fp16")
    ] = None,
    min_iou: Annotated[float, typer.Option(min=0, max=1, help="Least overlap of two equal boxes.")] = DEFAULT_MIN_IOU,
    max_score_difference: Annotated[
        float, typer.Option(min=0, max=1, help="Most difference of their scores.")
    ] = DEFAULT_MAX_SCORE_DIFFERENCE,
) -> None:
    """Compare two runners of a model on the same frames, box by box, before NMS. Exit status 1 when they differ."""
    trusted, checked = _two_runners(runner or [], precision)
    path = model_path(model)
    info = read_info(load_model(path), path.name)
    shown_frames = _frames(frames or [])
    images_hwc = [frame.image_hwc for frame in shown_frames]
    shapes = sorted({native_shape(image_hwc, info) for image_hwc in images_hwc})
    with progress() as shown:
        task = shown.add_task("comparing", total=2)
        answers: dict[str, list[Detections]] = {}
        for name in (trusted, checked):
            chosen = RUNNERS[name]
            engine = chosen.make(path, chosen.precision or precision or Precision.FP16, shapes)
            answers[name] = detect_all(engine, images_hwc)
            shown.advance(task)
    found = compare(answers[checked], answers[trusted])
    if not found.num_matched and not found.only_found and not found.only_wanted:
        raise FramelaneError(
            f"parity: got no box of {path.name} on {len(images_hwc)} frames, which shows nothing; give frames that "
            f"show what it detects ({', '.join(info.class_names[:5])}): --frames FOLDER"
        )
    output.print(_table(found, shown_frames, trusted, checked))
    excesses = found.excesses(Tolerance(min_iou, max_score_difference))
    output.print(_verdict(found, excesses, shown_frames, f"{checked} and {trusted}"), highlight=False, soft_wrap=True)
    if excesses:
        raise typer.Exit(1)


def _two_runners(named: Sequence[str], precision: Precision | None) -> tuple[str, str]:
    """The trusted runner, and the one that is checked."""
    for name in named:
        if name not in RUNNERS:
            raise FramelaneError(f"--runner: got {name!r}, allowed are {', '.join(RUNNERS)}")
    if len(named) > 2 or list(named) == [TRUSTED_RUNNER]:
        raise FramelaneError(
            f"--runner: got {', '.join(named)}, allowed are two runners, or one to compare with {TRUSTED_RUNNER}"
        )
    checked = named[-1] if named else CHECKED_RUNNER
    trusted = named[0] if len(named) == 2 else TRUSTED_RUNNER
    known = {RUNNERS[trusted].precision, RUNNERS[checked].precision}
    if precision is not None and None not in known and precision is not RUNNERS[checked].precision:
        raise FramelaneError(
            f"--precision: got {precision.value}, but {trusted} and {checked} each know only their own; "
            f"allowed are other runners of {', '.join(RUNNERS)}"
        )
    return trusted, checked


def _frames(sources: Sequence[Path]) -> list[NamedFrame]:
    """The frames of files and folders; drawn scenes where there are none."""
    if sources:
        return frames_of(sources)
    scenes = drawn_scenes()
    output.print(f"No --frames: comparing on {len(scenes)} drawn scenes of an inspection line.")
    return scenes


def _table(found: Parity, frames: Sequence[NamedFrame], trusted: str, checked: str) -> Table:
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
    table.add_column("frame", style="cyan", overflow="fold")
    for heading in (f"{trusted} boxes", f"{checked} boxes", "matched", "lowest IoU", "score ±"):
        table.add_column(heading, justify="right")
    for index, frame in enumerate(frames):
        part = found.of_frame(index)
        table.add_row(
            escape(frame.name), str(part.num_matched + len(part.only_wanted)),
            str(part.num_matched + len(part.only_found)), str(part.num_matched),
            f"{part.lowest_iou:.4f}" if part.pairs else "–",
            f"{part.largest_score_difference:.4f}" if part.pairs else "–",
        )  # fmt: skip
    return table


def _verdict(found: Parity, excesses: Sequence[Excess], frames: Sequence[NamedFrame], names: str) -> str:
    """One line: the same, or by what they differ first."""
    if excesses:
        first = excesses[0]
        more = f", and {len(excesses) - 1} more" if len(excesses) > 1 else ""
        return f"[bold red]differ:[/] {names}: {escape(frames[first.box.frame].name)}, {escape(str(first))}{more}"
    return (
        f"[bold green]same:[/] {names}: {found.num_matched} boxes, lowest IoU {found.lowest_iou:.4f}, mean "
        f"{found.mean_iou:.4f}, scores within {found.largest_score_difference:.4f}, "
        f"corners within {found.largest_corner_difference_px:.2f} px"
    )
