"""`framelane stream`: plays videos, images and cameras against a service, several at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engines.graph import load_model, read_info
from engines.letterbox import Image
from serve_app.cli.console import camera_table, errors, output, print_problems, progress
from serve_app.cli.options import ModelOption, model_file, model_source, save_picture
from serve_app.drawing import draw_detections
from serve_app.errors import FramelaneError
from serve_app.frame_log import frame_record
from serve_app.frames import priority_named
from serve_app.player import Feed, play
from serve_app.results import FrameResult
from serve_app.sources import ImageSource, Source, open_source

if TYPE_CHECKING:
    from serve_app.client import Client


def stream(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE…", help="Video files, images, folders of images, camera addresses.")
    ],
    model: ModelOption = None,
    camera: Annotated[
        list[str] | None, typer.Option(help="A name for each source, in their order; default: the file's own.")
    ] = None,
    priority: Annotated[
        list[str] | None, typer.Option(help="critical or normal: one for all, or one for each source.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(min=0.01, help="Frames a second of each source; default: as fast as they are answered."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many frames of each source.")] = None,
    slo_s: Annotated[
        float | None, typer.Option("--slo-s", min=0.001, help="Seconds until a frame must be done.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write each camera's last annotated frame into this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a frame, as in the frame log.")] = False,
) -> None:
    """Detect on every frame of several sources at once, each at its own size.

    Uses the running service (framelane up); with --model, or when none runs, one of its own that ends with the command.
    """
    feeds = [
        Feed(name, source, rank, slo_s, fps, limit) for name, source, rank in _cameras(sources, camera, priority)
    ]  # fmt: skip
    latest: dict[str, tuple[Image, FrameResult]] = {}
    results = sys.stdout  # while a service of our own runs, the name stands for standard error
    with _service(model, [feed.source for feed in feeds]) as client, progress() as shown:
        tasks = {feed.camera: shown.add_task(feed.camera, total=_expected(feed)) for feed in feeds}

        def on_result(feed: Feed, image_hwc: Image, result: FrameResult) -> None:
            shown.advance(tasks[feed.camera])
            latest[feed.camera] = (image_hwc, result)
            if as_json:
                results.write(json.dumps(frame_record(result) | _boxes(result), ensure_ascii=False) + "\n")
                results.flush()

        summaries = asyncio.run(play(client, feeds, on_result))
    if save is not None:
        for name, (image_hwc, result) in latest.items():
            drawn = draw_detections(image_hwc, result.detections, result.class_names)
            save_picture(save / f"{_file_name(name)}.png", drawn)
    (errors if as_json else output).print(camera_table(summaries, title=""))
    print_problems(summaries)
    if not all(summary.all_answered for summary in summaries):
        raise typer.Exit(1)


def _cameras(
    sources: list[str], cameras: list[str] | None, priorities: list[str] | None
) -> list[tuple[str, Source, str]]:
    """A name, a source and a priority for each; raises `FramelaneError` where numbers or values do not fit."""
    opened = [open_source(text) for text in sources]
    names = cameras or _unique([source.name for source in opened])
    ranks = priorities if priorities and len(priorities) > 1 else (priorities or ["normal"]) * len(opened)
    for option, values in (("--camera", names), ("--priority", ranks)):
        if len(values) != len(opened):
            raise FramelaneError(f"{option}: got {len(values)} for {len(opened)} sources, allowed is one for each")
    if not all(names):
        raise FramelaneError("--camera: got an empty name, allowed is any other")
    if len(set(names)) != len(names):
        raise FramelaneError(f"--camera: got a name twice ({', '.join(names)}), allowed are different names")
    return [(name, source, priority_named(rank).value) for name, source, rank in zip(names, opened, ranks, strict=True)]


@contextlib.contextmanager
def _service(model: str | None, sources: Sequence[Source]) -> Iterator[Client]:
    """The running service's client; or one of our own, with a canvas for each size that the sources have."""
    from serve_app.client import Client
    from serve_app.local_service import local_service
    from serve_app.native_plan import native_plan
    from serve_app.ray_session import read_note, stop_ray

    if model is None and read_note() is not None:
        yield Client.connect()
        stop_ray()
        return
    path = model_file(model)
    stride_px = read_info(load_model(path), path.name).stride_px
    plan = native_plan(model_source(model), _sizes_hw(sources), stride_px)
    if model is None:
        errors.print(f"no service runs here: serving {path.stem} for this command alone", highlight=False)
    with contextlib.ExitStack() as at_end:
        with progress() as shown:
            shown.add_task("starting Ray and warming engines", total=None)
            client = at_end.enter_context(local_service(plan))
        yield client


def _sizes_hw(sources: Sequence[Source]) -> list[tuple[int, int]]:
    """The different sizes of all frames; sources that cannot be read are left for playing them to report.

    Raises:
        FramelaneError: none can be read; it is the first one's error.
    """
    sizes_hw: list[tuple[int, int]] = []
    problems: list[FramelaneError] = []
    for source in sources:
        try:
            sizes_hw.append(source.first_size_hw())
            if isinstance(source, ImageSource):
                sizes_hw += [frame.shape[:2] for frame in source.frames() if not isinstance(frame, FramelaneError)]
        except FramelaneError as err:
            problems.append(err)
    if not sizes_hw:
        raise problems[0]
    return sizes_hw


def _expected(feed: Feed) -> int | None:
    try:
        counts = [count for count in (feed.source.num_frames, feed.limit) if count is not None]
    except FramelaneError:
        return None
    return min(counts, default=None)


def _unique(names: list[str]) -> list[str]:
    """Names with a number behind those that come again."""
    return [name if name not in names[:i] else f"{name}-{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def _boxes(result: FrameResult) -> dict[str, object]:
    return {
        "boxes_xyxy": [[round(float(value), 2) for value in box] for box in result.detections.boxes_xyxy],
        "scores": [round(float(score), 4) for score in result.detections.scores],
        "class_names": list(result.class_names),
    }


def _file_name(camera: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in camera)
