"""Feeds the frames of a spool to the service as any client would, and stores each one's result.

What is fed and when is `feed_queue.py`'s. A frame may be inferred twice, when a process dies between; it is answered
once, since a result is stored only in the place of its record.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol

from engines.detections import Detections
from engines.letterbox import Image
from serve_app.errors import FrameExpiredError, FramelaneError, ServiceUnavailableError
from serve_app.frames import Priority
from serve_app.results import FrameResult
from serve_app.spool import spool_answers
from serve_app.spool.feed_queue import FeedQueue, Next, pause_s
from serve_app.spool.grouped_writes import GroupedWrites
from serve_app.spool.news import set_within
from serve_app.spool.pixels import pixels_of
from serve_app.spool.record import DamagedRecordError, FrameRecord, record_from
from serve_app.spool.result_record import result_bytes
from serve_app.spool.spool import FrameEnd, PendingFrame, SpoolStore
from serve_app.spool.spool_clock import SpoolClock
from serve_app.verdicts import Outcome

logger = logging.getLogger(__name__)

# A fed frame comes back from a pool without replicas after this, and lets frames for other pools pass.
FEED_SLO_S = 60.0
# Another process may have added frames to a store that is shared.
LOOK_INTERVAL_S = 1.0


class FeedLine(Protocol):
    """The service, as a client of it sees it: `serve_app.client.Client` is one."""

    async def submit_async(
        self, image_hwc: Image, *, camera: str, priority: str, slo_s: float | None, frame_id: str | None
    ) -> FrameResult:
        """Serve one frame; raises `ServiceUnavailableError` if the service went away."""
        ...


class SpoolFeeder:
    """Takes frames out of a store, feeds them, and puts their results in."""

    def __init__(
        self,
        store: SpoolStore,
        clock: SpoolClock,
        connect: Callable[[], Awaitable[FeedLine]],
        on_end: Callable[[str, str], None],
        queue: FeedQueue | None = None,
    ) -> None:
        """Take the store, its time, how to reach the service, and whom to tell (frame id, camera) of each end."""
        self._store = store
        self._clock = clock
        self._connect = connect
        self._on_end = on_end
        self._queue = queue or FeedQueue()
        self._line: FeedLine | None = None
        self._connecting = asyncio.Lock()
        self._ends: GroupedWrites[FrameEnd, bool] = GroupedWrites(self._finish, lambda end: len(end.result))
        self._news = asyncio.Event()
        self._run_id = uuid.uuid4().hex[:6]
        self._num_fed = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def num_in_flight(self) -> int:
        """Frames that are at the service now."""
        return self._queue.num_in_flight

    def wake(self) -> None:
        """There may be new frames."""
        self._news.set()

    async def run(self) -> None:
        """Feed until cancelled; what is at the service then is fed again by the next process."""
        num_failed = 0
        try:
            while True:
                try:
                    await self._step()
                    num_failed = 0
                except ServiceUnavailableError as err:  # the store is away
                    num_failed += 1
                    if num_failed == 1:
                        logger.warning("spool: %s", err)
                    await asyncio.sleep(pause_s(num_failed))
                except Exception:  # whatever it is, frames wait here that nobody else will feed
                    num_failed += 1
                    logger.exception("spool: feeding failed, and goes on")
                    await asyncio.sleep(pause_s(num_failed))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _step(self) -> None:
        """Take what is new, start what is due, and wait for the next reason to look."""
        self._news.clear()
        if self._queue.room:
            now_s = self._clock.now_s()
            for frame in await asyncio.to_thread(self._store.take, self._queue.room):
                self._queue.add(frame, now_s)
        now_s = self._clock.now_s()
        for frame in self._queue.expired(now_s):
            self._begin(self._expire(frame, now_s))
        while (started := self._queue.start(now_s)) is not None:
            self._begin(self._feed(started))
        wake_s = self._queue.wake_s(now_s)
        wait_s = LOOK_INTERVAL_S if wake_s is None else min(LOOK_INTERVAL_S, wake_s - now_s)
        await set_within(self._news, max(0.001, wait_s))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception:  # it stays pending, and is fed again by the next process
                logger.exception("spool: a frame could not be fed")

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _feed(self, frame: PendingFrame) -> None:
        """One try of one frame."""
        try:
            data = await asyncio.to_thread(self._store.load, frame.frame_id)
            if data is None:  # somebody else answered it
                self._queue.dropped(frame.frame_id)
                return
            try:
                record, image_hwc = await asyncio.to_thread(_decoded, frame, data)
            except DamagedRecordError as err:
                self._queue.dropped(frame.frame_id)
                await self._set_aside(frame, err)
                return
            result = await self._served(frame, record, image_hwc)
            del data, record, image_hwc  # not held while the result is written
        except ServiceUnavailableError as err:
            self._line = None
            logger.info("spool: the service is away (%s)", err)
            self._queue.away(frame.frame_id, self._clock.now_s())
            self.wake()
            return
        after = self._queue.ended(frame.frame_id, result, self._clock.now_s())
        self.wake()
        if after is Next.COUNTED:
            with contextlib.suppress(ServiceUnavailableError):  # then it has one try more
                await asyncio.to_thread(self._store.tried, frame.frame_id)
        elif after is Next.ANSWER:
            await self._end(frame, result)

    async def _served(self, frame: PendingFrame, record: FrameRecord, image_hwc: Image) -> FrameResult:
        left_s = frame.kept_s + frame.life_s - self._clock.now_s()
        slo_s = max(0.001, min(FEED_SLO_S, left_s))
        try:
            line = await self._connected()
            # An id of its own for each try: a router may still hold the one that a dead process has sent.
            self._num_fed += 1
            fed_id = f"{frame.frame_id}~{self._run_id}-{self._num_fed}"
            result = await line.submit_async(
                image_hwc, camera=record.camera, priority=Priority.NORMAL.value, slo_s=slo_s, frame_id=fed_id
            )
            return replace(result, frame_id=frame.frame_id)
        except ServiceUnavailableError:
            raise
        except FramelaneError as err:  # such as a frame that this plan does not take any more
            error = type(err)(err.message, err.retry_after_s)
            return _unserved(frame, record.size_hw, Outcome.REJECTED, error)

    async def _connected(self) -> FeedLine:
        async with self._connecting:
            if self._line is None:
                self._line = await self._connect()
            return self._line

    async def _expire(self, frame: PendingFrame, now_s: float) -> None:
        """Answer a frame that is too old; its record still knows its size."""
        data = None
        with contextlib.suppress(ServiceUnavailableError):  # the result waits for the store anyway
            data = await asyncio.to_thread(self._store.load, frame.frame_id)
        try:
            size_hw = record_from(data).size_hw if data is not None else (0, 0)
        except DamagedRecordError as err:
            await self._set_aside(frame, err)
            return
        message = (
            f"frame expired: {now_s - frame.kept_s:.0f} s after it was kept in the spool, allowed were "
            f"{frame.life_s:g} s (its own slo_s, else spool.max_age_s in the plan)"
        )
        await self._end(frame, _unserved(frame, size_hw, Outcome.EXPIRED, FrameExpiredError(message)))

    async def _set_aside(self, frame: PendingFrame, err: DamagedRecordError) -> None:
        logger.error("spool: frame %s of camera %r is set aside: %s", frame.frame_id, frame.camera, err)
        reason = f"frame: what the spool kept of it is damaged ({err}); it is set aside, see: framelane spool"
        await self._end(frame, spool_answers.failed(frame.frame_id, frame.camera, reason), str(err))

    async def _end(self, frame: PendingFrame, result: FrameResult, aside_reason: str | None = None) -> None:
        """Store a result, however long the store is away."""
        end = FrameEnd(frame.frame_id, result.outcome, result_bytes(result), aside_reason)
        num_failed = 0
        while True:
            try:
                await self._ends.write(end)
                break
            except ServiceUnavailableError as err:
                num_failed += 1
                logger.warning("spool: the result of frame %s waits: %s", frame.frame_id, err)
                await asyncio.sleep(pause_s(num_failed))
        self._on_end(frame.frame_id, frame.camera)

    def _finish(self, ends: Sequence[FrameEnd]) -> list[bool]:
        return self._store.finish(ends, self._clock.now_s())


def _decoded(frame: PendingFrame, data: bytes) -> tuple[FrameRecord, Image]:
    record = record_from(data)
    if (record.frame_id, record.camera) != (frame.frame_id, frame.camera):
        raise DamagedRecordError(f"record: got frame {record.frame_id!r}, it lies under {frame.frame_id!r}")
    return record, pixels_of(record)


def _unserved(frame: PendingFrame, size_hw: tuple[int, int], outcome: Outcome, error: FramelaneError) -> FrameResult:
    return FrameResult(
        frame.frame_id, frame.camera, size_hw, Priority.NORMAL.value, outcome, Detections.none(), error=error
    )
