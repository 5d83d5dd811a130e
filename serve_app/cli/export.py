"""`framelane export`: from a `.pt` to an ONNX detector that a plan can name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engines.export import export_to_onnx
from serve_app.cli.console import output, progress


def export(
    weights: Annotated[Path, typer.Argument(help="A detector trained with ultralytics (.pt).")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write; default: beside the weights.")
    ] = None,
    raw_head: Annotated[
        bool, typer.Option("--raw-head", help="Take the head with NMS of models that also have one without.")
    ] = False,
) -> None:
    """Export a detector to ONNX: batch, height and width free, uint8 input. Needs the export extra."""
    onnx_path = out or weights.with_suffix(".onnx")
    with progress() as shown:
        shown.add_task(f"exporting {weights.name}", total=None)
        info = export_to_onnx(weights, onnx_path, end_to_end=not raw_head)
    output.print(
        f"{onnx_path}: {len(info.class_names)} classes, stride {info.stride_px}, head {info.head.value}, "
        f"{onnx_path.stat().st_size / 1e6:.1f} MB",
        highlight=False,
    )
