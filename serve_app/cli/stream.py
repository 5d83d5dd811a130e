"""`framelane stream`: plays videos, images and cameras against a service, many at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TextIO

import typer

from engines.graph import load_model, read_info
from serve_app.camera_summary import CameraSummary
from serve_app.cli.console import camera_table, errors, output, print_problems, progress
from serve_app.cli.options import ModelOption, model_file, model_source, save_picture
from serve_app.cli.stream_display import StreamDisplay
from serve_app.drawing import draw_detections
from serve_app.errors import FramelaneError
from serve_app.frames import priority_named
from serve_app.plan import Keep
from serve_app.streams.camera_list import MAX_FPS, load_cameras
from serve_app.streams.camera_spec import CameraListError, CameraSpec, named_apart
from serve_app.streams.open_source import open_source
from serve_app.streams.recordings import file_stem
from serve_app.streams.service_link import StreamClient
from serve_app.streams.still_sources import ImageSource
from serve_app.streams.stream import Stream
from serve_app.streams.stream_records import item_line
from serve_app.streams.stream_values import Answer, StreamItem

# Each source is opened once before a service is started for it; cameras that are off must not add up.
PROBE_THREADS = 16
INTERRUPTED = 130


def stream(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE…]", help="Videos, images, folders of images, addresses, webcams (0)."),
    ] = None,
    cameras: Annotated[
        Path | None, typer.Option("--cameras", "-c", help="A list of cameras in YAML: see docs/streams.md.")
    ] = None,
    model: ModelOption = None,
    camera: Annotated[
        list[str] | None, typer.Option(help="A name for each source, in their order; default: the file's own.")
    ] = None,
    priority: Annotated[
        list[str] | None, typer.Option(help="critical or normal: one for all, or one for each source.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=MAX_FPS, help="Play each file at so many frames a second; default: as fast as answered."
        ),
    ] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Play files at their own rate.")] = False,
    max_fps: Annotated[
        float | None, typer.Option(min=0.01, max=MAX_FPS, help="Take no more frames a second of each source.")
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Play files again and again.")] = False,
    keep: Annotated[
        Keep | None,
        typer.Option(
            help="latest: a newer frame replaces one that waits here; default for cameras, --fps, --realtime."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many frames of each source.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so long.")] = None,
    slo_s: Annotated[
        float | None, typer.Option("--slo-s", min=0.001, help="Seconds until a frame must be done.")
    ] = None,
    stall_s: Annotated[
        float | None, typer.Option("--stall-s", min=0.1, help="Connect a camera anew after so long without a frame.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write each camera's last annotated frame into this folder.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Record each camera's annotated frames into this folder, as MP4.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a frame or gap, as in the frame log.")] = False,
) -> None:
    """Detect on every frame of several sources at once, each at its own size and its own clock.

    Uses the running service (framelane up); with --model, or when none runs, one of its own that ends with the command.
    Ctrl-C ends it in order; once more ends it at once.
    """
    common: dict[str, Any] = {
        "slo_s": slo_s, "fps": fps, "realtime": realtime, "max_fps": max_fps, "loop": loop, "keep": keep,
        "limit": limit, "stall_s": stall_s,
    }  # fmt: skip
    specs = _specs(sources or [], cameras, camera, priority, common)
    latest = Latest() if save is not None else None
    # While a service of our own runs, the name `sys.stdout` stands for standard error.
    results = sys.stdout if as_json else None
    with _service(model, specs) as client:
        play = Play(Stream(specs, client=client, record=record), latest, results)
        was_interrupted = asyncio.run(play.run(seconds))
    if save is not None and latest is not None:
        latest.save(save)
    summaries = play.stream.summaries
    (errors if as_json else output).print(camera_table(summaries, title=""))
    print_problems(summaries)
    for problem in play.stream.recording_problems.values():
        errors.print(problem, highlight=False, markup=False, soft_wrap=True)
    if was_interrupted:
        raise typer.Exit(INTERRUPTED)
    if not _is_well(summaries) or play.stream.recording_problems:
        raise typer.Exit(1)


class Latest:
    """The last answer of each camera, drawn at the end."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}

    def add(self, answer: Answer) -> None:
        """Keep it instead of the one before."""
        self._answers[answer.camera] = answer

    def save(self, folder: Path) -> None:
        """Write the pictures. Raises `FramelaneError`."""
        for camera, answer in self._answers.items():
            drawn = draw_detections(answer.frame.image_hwc, answer.detections, answer.class_names)
            save_picture(folder / f"{file_stem(camera)}.png", drawn)


class Play:
    """One run of a stream: shown, printed, and ended in order by Ctrl-C."""

    def __init__(self, stream: Stream, latest: Latest | None, results: TextIO | None) -> None:
        self.stream = stream
        self._latest = latest
        self._results = results
        self._was_interrupted = False

    async def run(self, seconds: float | None) -> bool:
        """Until all cameras have ended; whether it was interrupted."""
        loop = asyncio.get_running_loop()
        with _on_signals(self._interrupt):
            async with self.stream, StreamDisplay(self.stream, errors) as display:
                if seconds is not None:
                    loop.call_later(seconds, self.stream.stop)
                async for item in self.stream:
                    self._take(item, display)
        return self._was_interrupted

    def _take(self, item: StreamItem, display: StreamDisplay) -> None:
        display.told(item)
        if self._latest is not None and isinstance(item, Answer):
            self._latest.add(item)
        if self._results is not None:
            self._results.write(item_line(item) + "\n")
            self._results.flush()

    def _interrupt(self) -> None:
        if self._was_interrupted:
            raise KeyboardInterrupt
        self._was_interrupted = True
        errors.print("ending in order; Ctrl-C once more ends at once", highlight=False)
        self.stream.stop()


@contextlib.contextmanager
def _on_signals(end: Callable[[], None]) -> Iterator[None]:
    """Call this in the event loop on Ctrl-C and SIGTERM; what was done on them before, afterwards again."""
    loop = asyncio.get_running_loop()

    def told(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (what `signal` calls)
        loop.call_soon_threadsafe(end)

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_well(summaries: Sequence[CameraSummary]) -> bool:
    return all(summary.all_answered for summary in summaries)


def _specs(
    sources: list[str],
    cameras: Path | None,
    names: list[str] | None,
    priorities: list[str] | None,
    common: dict[str, Any],
) -> list[CameraSpec]:
    """What to play; raises `FramelaneError` where numbers or values do not fit."""
    given = {key: value for key, value in common.items() if value not in (None, False)}
    if cameras is not None:
        return _listed(cameras, sources, names, priorities, given)
    if not sources:
        raise CameraListError(
            "stream: got no source, allowed are one or more sources, or --cameras with a list of them"
        )
    ranks = priorities if priorities and len(priorities) > 1 else (priorities or ["normal"]) * len(sources)
    own = names or _unique([CameraSpec(source).name for source in sources])
    for option, values in (("--camera", own), ("--priority", ranks)):
        if len(values) != len(sources):
            raise FramelaneError(f"{option}: got {len(values)} for {len(sources)} sources, allowed is one for each")
    if not all(own):
        raise FramelaneError("--camera: got an empty name, allowed is any other")
    specs = [
        CameraSpec(source, name=name, priority=priority_named(rank).value, **given)
        for source, name, rank in zip(sources, own, ranks, strict=True)
    ]
    return named_apart(specs)


def _listed(
    path: Path, sources: list[str], names: list[str] | None, priorities: list[str] | None, given: dict[str, Any]
) -> list[CameraSpec]:
    """The cameras of a list; options of the command line stand above what it says."""
    if sources or names or (priorities and len(priorities) > 1):
        raise CameraListError(
            "--cameras: got sources or names beside it, allowed is the list alone; add them to the list"
        )
    if priorities:
        given = given | {"priority": priority_named(priorities[0]).value}
    if "fps" in given:
        given = given | {"realtime": False}
    elif "realtime" in given:
        given = given | {"fps": None}
    # A list may hold files and live cameras: what is for files only leaves the others alone.
    return [
        replace(spec, **({key: value for key, value in given.items() if key != "loop"} if spec.is_live else given))
        for spec in load_cameras(path)
    ]


@contextlib.contextmanager
def _service(model: str | None, specs: Sequence[CameraSpec]) -> Iterator[StreamClient | None]:
    """None for the running service, which the stream connects to; or the client of one of our own.

    That one has a canvas for each size that the sources have.
    """
    from serve_app.local_service import local_service
    from serve_app.native_plan import native_plan
    from serve_app.ray_session import read_note, stop_ray

    if model is None and read_note() is not None:
        try:
            yield None
        finally:
            stop_ray()
        return
    path = model_file(model)
    stride_px = read_info(load_model(path), path.name).stride_px
    plan = native_plan(model_source(model), _sizes_hw(specs), stride_px)
    if model is None:
        errors.print(f"no service runs here: serving {path.stem} for this command alone", highlight=False)
    with contextlib.ExitStack() as at_end:
        with progress() as shown:
            shown.add_task("starting Ray and warming engines", total=None)
            client = at_end.enter_context(local_service(plan))
        yield client


def _sizes_hw(specs: Sequence[CameraSpec]) -> list[tuple[int, int]]:
    """The different sizes of all frames; sources that cannot be read are left for playing them to report.

    Raises:
        FramelaneError: none can be read; it is the first one's error.
    """

    def probed(spec: CameraSpec) -> list[tuple[int, int]] | FramelaneError:
        try:
            source = open_source(spec)
            first = source.first_size_hw()
        except FramelaneError as err:
            return err
        return [first, *sorted(source.sizes_hw())] if isinstance(source, ImageSource) else [first]

    with ThreadPoolExecutor(PROBE_THREADS) as threads:
        found = list(threads.map(probed, specs))
    sizes_hw = [size_hw for sizes in found if not isinstance(sizes, FramelaneError) for size_hw in sizes]
    problems = [problem for problem in found if isinstance(problem, FramelaneError)]
    if not sizes_hw:
        raise problems[0]
    return sizes_hw


def _unique(names: list[str]) -> list[str]:
    """Names with a number behind those that come again."""
    return [name if name not in names[:i] else f"{name}-{names[:i].count(name) + 1}" for i, name in enumerate(names)]
