"""`framelane demo`: a fleet of five cameras against a real service on this machine, from nothing to pictures."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from engines.letterbox import Image
from serve_app.cli.console import camera_table, output, print_problems, progress
from serve_app.cli.options import save_picture
from serve_app.config import load_plan, plan_path
from serve_app.demo_fleet import FLEET, demo_camera
from serve_app.drawing import contact_sheet, draw_caption, draw_detections
from serve_app.results import FrameResult
from serve_app.streams.camera_spec import CameraSpec
from serve_app.streams.still_sources import ScrollingSource
from serve_app.streams.stream import Stream
from serve_app.streams.stream_values import Answer

SHEET_WIDTH_PX = 1600


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where pictures and frame log go.")] = Path("out/demo"),
    seconds: Annotated[float, typer.Option(min=1, help="How long the cameras play.")] = 25.0,
) -> None:
    """Serve a mixed-resolution fleet with the bundled models on this CPU; leaves pictures and a frame log."""
    from serve_app.local_service import local_service

    out.mkdir(parents=True, exist_ok=True)
    log_path = out.resolve() / "frames.jsonl"
    log_path.unlink(missing_ok=True)
    plan = dataclasses.replace(load_plan(plan_path("bundled:demo")), frame_log=str(log_path))
    latest: dict[str, tuple[Image, FrameResult]] = {}
    with contextlib.ExitStack() as at_end:
        with progress() as shown:
            drawing = shown.add_task("drawing the belts", total=len(FLEET))
            fleet: list[tuple[CameraSpec, ScrollingSource]] = []
            for index in range(len(FLEET)):
                fleet.append(demo_camera(index, seconds))
                shown.advance(drawing)
            shown.add_task("starting Ray and warming engines", total=None)
            client = at_end.enter_context(local_service(plan))
        sources = {spec.name: source for spec, source in fleet}
        stream = Stream([spec for spec, _ in fleet], client=client, open_source=lambda spec: sources[spec.name])
        with progress() as shown:
            tasks = {name: shown.add_task(name, total=source.num_frames) for name, source in sources.items()}

            async def play() -> None:
                async with stream:
                    async for item in stream:
                        shown.advance(tasks[item.camera], 1 if isinstance(item, Answer) else item.num_frames)
                        if isinstance(item, Answer):
                            latest[item.camera] = (item.frame.image_hwc, item.result)

            asyncio.run(play())
    summaries = stream.summaries
    pictures = {camera: _picture(image_hwc, result) for camera, (image_hwc, result) in latest.items()}
    for camera, picture in pictures.items():
        save_picture(out / f"{camera}.png", picture)
    if pictures:
        save_picture(out / "fleet.png", contact_sheet(list(pictures.values()), SHEET_WIDTH_PX))
    output.print(camera_table(summaries, title="Each camera at its own size, on this CPU"))
    print_problems(summaries)
    output.print(f"\npictures: {out}/*.png   one record a frame: {out}/frames.jsonl", highlight=False)
    if not all(summary.all_answered for summary in summaries):
        raise typer.Exit(1)


def _picture(image_hwc: Image, result: FrameResult) -> Image:
    drawn = draw_detections(image_hwc, result.detections, result.class_names)
    height, width = result.size_hw
    canvas = result.canvas
    draw_caption(
        drawn,
        f"{result.camera}  {height}x{width}  canvas {canvas}  {result.priority}  model {result.model}  "
        f"{len(result.detections)} found  {result.times.total_s * 1000:.0f} ms",
    )
    return drawn
