"""Plays cameras against a service: each with its own clock, or as fast as the service answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engines.letterbox import Image
from serve_app.camera_summary import CameraSummary
from serve_app.errors import FramelaneError
from serve_app.results import FrameResult
from serve_app.sources import Source

# Without a clock: one frame runs, one is on its way, so that neither service nor source waits for the other.
UNPACED_IN_FLIGHT = 2
# With one: more unanswered frames than this and the camera skips, as a real one's driver would.
PACED_IN_FLIGHT = 64
# Without a clock nothing is late; this only ends a wait for a service that is gone.
UNPACED_SLO_S = 120.0


class AsyncDetector(Protocol):
    """What a player needs of a client."""

    async def submit_async(self, image_hwc: Image, *, camera: str, priority: str, slo_s: float | None) -> FrameResult:
        """The result of a frame, whatever its outcome."""


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """One camera to play.

    Attributes:
        camera: its name.
        source: its frames.
        priority, slo_s: as in `Client.detect`.
        fps: frames a second; None: as fast as they are answered.
        limit: at most so many frames; None: all.
    """

    camera: str
    source: Source
    priority: str = "normal"
    slo_s: float | None = None
    fps: float | None = None
    limit: int | None = None


OnResult = Callable[[Feed, Image, FrameResult], None]


async def play(client: AsyncDetector, feeds: Sequence[Feed], on_result: OnResult) -> list[CameraSummary]:
    """Play all feeds at once until each is at its end.

    Args:
        client: who detects.
        feeds: the cameras.
        on_result: called on the event loop with every frame that has its outcome; keep it short.

    Returns:
        One summary a feed, in their order; a feed whose source fails has the error in its summary, the others go on.
    """
    playing = [asyncio.create_task(_play_one(client, feed, on_result)) for feed in feeds]
    try:
        return list(await asyncio.gather(*playing))
    finally:
        await _cancelled(playing)


async def _play_one(client: AsyncDetector, feed: Feed, on_result: OnResult) -> CameraSummary:
    summary = CameraSummary(feed.camera, feed.priority)
    in_flight: set[asyncio.Task[None]] = set()
    most = UNPACED_IN_FLIGHT if feed.fps is None else PACED_IN_FLIGHT
    frames = feed.source.frames()
    began_s = time.monotonic()
    index = 0
    try:
        while feed.limit is None or index < feed.limit:
            frame = await asyncio.to_thread(_next_frame, frames)
            if frame is None:
                break
            if feed.fps is not None:
                await asyncio.sleep(max(0.0, began_s + index / feed.fps - time.monotonic()))
            index += 1
            if feed.fps is None and len(in_flight) >= most:
                await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
            _forget_done(in_flight)
            if isinstance(frame, FramelaneError):
                summary.add_unreadable(frame)
            elif len(in_flight) >= most:
                summary.num_skipped += 1
            else:
                in_flight.add(asyncio.create_task(_send(client, feed, frame, summary, on_result)))
        await asyncio.gather(*in_flight)
    finally:
        await _cancelled(in_flight)
    return summary


def _forget_done(tasks: set[asyncio.Task[None]]) -> None:
    """Take out the tasks that have ended; raises what one of them raised."""
    for task in [task for task in tasks if task.done()]:
        tasks.discard(task)
        task.result()


async def _send(
    client: AsyncDetector, feed: Feed, image_hwc: Image, summary: CameraSummary, on_result: OnResult
) -> None:
    slo_s = UNPACED_SLO_S if feed.slo_s is None and feed.fps is None else feed.slo_s
    sent_s = time.monotonic()
    try:
        result = await client.submit_async(image_hwc, camera=feed.camera, priority=feed.priority, slo_s=slo_s)
    except FramelaneError as err:
        summary.add_unreadable(err)
        return
    summary.add(result, time.monotonic() - sent_s)
    on_result(feed, image_hwc, result)


async def _cancelled(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel what still runs and wait for its end: an error of `on_result` must leave nothing behind."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _next_frame(frames: Iterator[Image | FramelaneError]) -> Image | FramelaneError | None:
    """The next frame, None at the end; a source that cannot be opened at all is its one error."""
    try:
        return next(frames, None)
    except FramelaneError as err:
        return err
