"""Many cameras as one asynchronous iterator of answers and gaps.

async with Stream(["gate.mp4", "rtsp://10.0.0.7/stream1"]) as stream:
    async for item in stream:
        ...
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from serve_app.camera_summary import CameraSummary
from serve_app.errors import FramelaneError
from serve_app.streams.backoff import Backoff
from serve_app.streams.camera_flow import CameraFlow
from serve_app.streams.camera_spec import CameraListError, CameraSpec, named_apart
from serve_app.streams.camera_state import CameraState
from serve_app.streams.mailbox import NOT_TAKEN, Mailbox
from serve_app.streams.open_source import open_source
from serve_app.streams.reader import Reader
from serve_app.streams.recordings import Recordings
from serve_app.streams.service_link import RECONNECT_MOST_S, ServiceLink, StreamClient, connect_anew
from serve_app.streams.source import Source
from serve_app.streams.stream_clock import MonotonicClock, StreamClock
from serve_app.streams.stream_values import GapCause, StreamItem

# Items that wait for whoever iterates; beyond them each camera's own bound holds.
MAX_ITEMS_WAITING = 16
# Threads that hang in a read are left to their time-outs after so long.
JOIN_S = 1.0
# Who stops a stream does not want to wait for a service that is away.
STOP_S = 5.0


class _Camera:
    """The parts of one camera."""

    def __init__(self, spec: CameraSpec, reader: Reader, flow: CameraFlow, mailbox: Mailbox) -> None:
        self.spec = spec
        self.reader = reader
        self.flow = flow
        self.mailbox = mailbox
        self.summary = CameraSummary(spec.name, spec.priority, spec.keeps_latest)


class Stream:
    """Plays cameras against a service, each at its own clock, and gives what was found, in order for each camera.

    Each frame that was read is one `Answer`, or lies in one `Gap`; numbers of a camera run on without a hole. One bad
    source harms no other. In flight are at most `CameraFlow.num_in_flight` frames a camera, so memory is bounded
    whatever service and consumer do. It iterates once, in the event loop in which it was entered.
    """

    def __init__(
        self,
        cameras: Sequence[CameraSpec | str],
        *,
        client: StreamClient | None = None,
        connect: Callable[[], StreamClient] = connect_anew,
        record: Path | None = None,
        open_source: Callable[[CameraSpec], Source] = open_source,
        clock: StreamClock | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """Take what to play; nothing is opened before it is entered.

        Args:
            cameras: as `CameraSpec`, or the text of a source alone.
            client: who detects; None: `connect` gets one, and another one whenever the service went away.
            connect: how to get one, in a thread of its own; by default the running service's.
            record: a folder for a video of each camera's annotated frames; None: none is recorded.
            open_source: how a source is opened.
            clock: for the cameras' threads.
            uniform: chance, for the waits before attempts.

        Raises:
            CameraListError: no camera, or two of one name.
        """
        specs = [camera if isinstance(camera, CameraSpec) else CameraSpec(camera) for camera in cameras]
        if not specs:
            raise CameraListError("cameras: got none, allowed is one or more")
        self._specs = named_apart(specs)
        self._client = client
        self._connect = connect
        self._open_source = open_source
        self._clock = clock or MonotonicClock()
        self._uniform = uniform
        self._recordings = Recordings(record) if record is not None else None
        self._cameras: dict[str, _Camera] = {}
        self._link: ServiceLink | None = None
        self._items: asyncio.Queue[StreamItem | None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._is_over = self._is_stopped = False

    async def __aenter__(self) -> Stream:  # noqa: PYI034 (Python 3.10 has no `Self`)
        """Connect and start the cameras. Raises `ServiceUnavailableError` if there is no service to begin with."""
        if self._running is not None:
            raise CameraListError("stream: it was entered before, allowed is once; make another one")
        backoff = Backoff(self._uniform, most_s=RECONNECT_MOST_S)
        link = self._link = ServiceLink(self._client, self._connect, backoff=backoff)
        await link.start()
        self._items = asyncio.Queue(MAX_ITEMS_WAITING)
        for spec in self._specs:
            self._cameras[spec.name] = self._camera(spec, link)
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `aclose`."""
        await self.aclose()

    def __aiter__(self) -> Stream:
        """It is its own iterator."""
        return self

    async def __anext__(self) -> StreamItem:
        """The next answer or gap of any camera."""
        if self._items is None or self._running is None:
            raise FramelaneError("stream: it was not entered; write: async with Stream(...) as stream")
        if self._is_over:
            raise StopAsyncIteration
        item = await self._items.get()
        if item is None:
            self._is_over = True
            await self._running  # what went wrong inside is raised here
            raise StopAsyncIteration
        self._cameras[item.camera].summary.add(item)
        return item

    def stop(self) -> None:
        """Read no more; what was read is still answered and given, then the iteration ends.

        What has no answer after `STOP_S` is given as a gap.
        """
        for camera in self._cameras.values():
            camera.reader.stop()
            camera.mailbox.close()
        if self._cameras and not self._is_stopped:
            self._is_stopped = True
            loop = asyncio.get_running_loop()
            for camera in self._cameras.values():
                loop.call_later(STOP_S, camera.flow.give_up)

    async def aclose(self) -> None:
        """Stop everything and wait for it; frames that are on their way are cancelled. May be called again."""
        self.stop()
        self._is_over = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        if self._link is not None:
            await self._link.close()
        readers = [camera.reader for camera in self._cameras.values()]
        await asyncio.gather(*(asyncio.to_thread(reader.join, JOIN_S) for reader in readers))
        if self._recordings is not None:
            await self._recordings.close()

    @property
    def specs(self) -> tuple[CameraSpec, ...]:
        """Its cameras, in their order."""
        return tuple(self._specs)

    @property
    def summaries(self) -> tuple[CameraSummary, ...]:
        """What has become of each camera's frames that were given so far; in their order."""
        return tuple(camera.summary for camera in self._cameras.values())

    @property
    def states(self) -> dict[str, CameraState]:
        """How each camera is doing now."""
        return {name: camera.reader.state for name, camera in self._cameras.items()}

    @property
    def num_read(self) -> dict[str, int]:
        """Frames read so far, by camera: what was given, and what is in flight."""
        return {name: camera.mailbox.num_read for name, camera in self._cameras.items()}

    @property
    def recording_problems(self) -> dict[str, str]:
        """Why a camera is recorded no more, or not wholly; by its name."""
        if self._recordings is None:
            return {}
        skipped = {
            camera: f"recording of {camera}: {num} frames were left out, as encoding did not keep up"
            for camera, num in self._recordings.num_skipped.items()
        }
        return skipped | self._recordings.problems

    @property
    def is_service_up(self) -> bool:
        """Whether there is a service to send frames to."""
        return self._link is not None and self._link.is_up

    @property
    def num_outages(self) -> int:
        """How often the service went away."""
        return 0 if self._link is None else self._link.num_outages

    def _camera(self, spec: CameraSpec, link: ServiceLink) -> _Camera:
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before a thread that hung
                loop.call_soon_threadsafe(flow.wake)

        def why_waiting() -> tuple[GapCause, str]:
            return NOT_TAKEN if link.is_up else (GapCause.SERVICE_AWAY, "there was no service")

        mailbox = Mailbox(spec.name, keeps_latest=spec.keeps_latest, wake=wake, why_waiting=why_waiting)
        flow = CameraFlow(spec, mailbox, link, partial(self._deliver, spec))
        reader = Reader(spec, self._open_source, mailbox, clock=self._clock, backoff=Backoff(self._uniform))
        return _Camera(spec, reader, flow, mailbox)

    async def _run(self) -> None:
        """All cameras until their ends; then the mark that ends the iteration."""
        flows = [asyncio.create_task(camera.flow.run()) for camera in self._cameras.values()]
        for camera in self._cameras.values():
            camera.reader.start()
        try:
            await asyncio.gather(*flows)
        finally:
            for flow in flows:
                flow.cancel()
            await asyncio.gather(*flows, return_exceptions=True)
            if self._items is not None and not self._is_over:
                await self._items.put(None)

    async def _deliver(self, spec: CameraSpec, item: StreamItem) -> None:
        if self._items is None:
            return
        if self._recordings is not None and spec.record:
            await self._recordings.add(item, may_skip=spec.keeps_latest)
        await self._items.put(item)
