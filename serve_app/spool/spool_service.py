"""The spool among its callers: takes durable frames, answers their tickets, and keeps the feeder going.

It starts whether or not its store can be reached, refuses frames until it can, and says why. No Ray but the refs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from engines.errors import FrameArrayError
from engines.frame_array import check_frame
from serve_app.errors import FramelaneError, FrameLostError, InvalidFrameError, ServiceUnavailableError
from serve_app.frames import FrameMeta, Priority, check_meta
from serve_app.plan import Plan
from serve_app.results import FrameResult
from serve_app.spool.feed_queue import pause_s
from serve_app.spool.grouped_writes import GroupedWrites
from serve_app.spool.news import News, set_within
from serve_app.spool.pixels import encoded
from serve_app.spool.record import FrameRecord, record_bytes
from serve_app.spool.spool import AsideFrame, NewFrame, Spool
from serve_app.spool.spool_clock import MARK_INTERVAL_S, ClockReading, SpoolClock
from serve_app.spool.spool_feeder import FeedLine, SpoolFeeder
from serve_app.spool.spool_status import SpoolStatus
from serve_app.ticket_desk import MAX_PAGE, MAX_WAIT_S
from serve_app.tickets import ResultsPage, Ticket, durable_ticket_id, frame_of_ticket
from serve_app.verdicts import Verdict, VerdictKind

logger = logging.getLogger(__name__)

# A service that is updated has its spool back within seconds: callers wait so long before they are refused.
OPEN_WAIT_S = 10.0
# Pixels and their encoded copy of so many frames are in memory at once; encoding takes a core each.
MAX_KEEPS = 8
# A name is a key in stores; nobody calls a camera a book.
MAX_NAME_BYTES = 512
# A store that several processes share may have a result that this one did not write.
LOOK_INTERVAL_S = 2.0
REFUSED_RETRY_S = 5.0

T = TypeVar("T")


class SpoolService:
    """Durable frames of one plan. `start` it within an event loop, `stop` it there."""

    def __init__(
        self,
        plan: Plan,
        place: str,
        node: str,
        *,
        open_store: Callable[[], Spool],
        read_clocks: Callable[[], ClockReading],
        connect: Callable[[], Awaitable[FeedLine]],
        open_wait_s: float = OPEN_WAIT_S,
    ) -> None:
        """Take the plan, what to call place and machine, and how to reach the store, the clocks and the service."""
        self._plan = plan
        self._rules = plan.spool
        self._place = place
        self._node = node
        self._open_store = open_store
        self._read_clocks = read_clocks
        self._connect = connect
        self._open_wait_s = open_wait_s
        self._problem: str | None = "it is opening its store"
        self._opened = asyncio.Event()
        self._news = News()
        self._keeps = asyncio.Semaphore(MAX_KEEPS)
        self._writes: GroupedWrites[NewFrame, FramelaneError | None] = GroupedWrites(
            self._keep_group, lambda frame: len(frame.record)
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._store: Spool
        self._clock: SpoolClock
        self._feeder: SpoolFeeder

    def start(self) -> None:
        """Open the store, however long that takes, and begin to feed."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._run()))

    async def stop(self) -> None:
        """Stop feeding and let go of the store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._opened.is_set():
            self._opened.clear()
            self._problem = "it was stopped"
            await asyncio.to_thread(self._store.close)

    async def keep(self, metas: Sequence[FrameMeta], refs: Sequence[Any]) -> list[Ticket | FramelaneError]:
        """Take frames: when this returns they lie in the store, each with a ticket, or are refused.

        A frame id that the store has seen before gets the same ticket, and is not taken twice.

        Args:
            metas: what the caller says of them. `slo_s` is the age up to which a frame is worth an answer.
            refs: one ref to the pixels of each, nested so that Ray does not fetch them all at once.
        """
        if len(metas) != len(refs):
            return [InvalidFrameError(f"frames: got {len(metas)} metadata and {len(refs)} refs, allowed is one each")]
        return list(await asyncio.gather(*(self._kept(meta, ref) for meta, ref in zip(metas, refs, strict=True))))

    async def ticket_result(self, ticket_id: str, wait_s: float) -> FrameResult | None:
        """How the frame of a ticket ended; None if it has not within `wait_s`.

        Raises:
            TicketUnknownError, TicketExpiredError: see `TicketAnswer.unless_gone`.
            ServiceUnavailableError: the store cannot be reached.
        """
        await self._until_open()
        frame_id = frame_of_ticket(ticket_id)

        async def look() -> FrameResult | None:
            answer = await asyncio.to_thread(self._store.answer, frame_id, self._clock.now_s())
            return answer.unless_gone()

        return await self._until(f"ticket {frame_id}", wait_s, look, lambda result: result is not None)

    async def ticket_results(self, camera: str, cursor: int, wait_s: float) -> ResultsPage:
        """The results of a camera's durable tickets after a cursor; an empty page if there are none in time."""
        await self._until_open()

        async def look() -> ResultsPage:
            return await asyncio.to_thread(self._store.results_after, camera, cursor, MAX_PAGE, self._clock.now_s())

        return await self._until(
            f"camera {camera}", wait_s, look, lambda page: bool(page.results) or page.num_dropped != 0
        )

    async def status(self) -> SpoolStatus:
        """The spool at a glance, also while its store is away."""
        if not self._opened.is_set():
            return SpoolStatus(self._place, self._node, self._problem, max_bytes=self._rules.max_bytes)
        try:
            usage = await asyncio.to_thread(self._store.usage)
        except ServiceUnavailableError as err:
            return SpoolStatus(self._place, self._node, err.message, max_bytes=self._rules.max_bytes)
        oldest_s = usage.oldest_kept_s
        return SpoolStatus(
            self._place,
            self._node,
            None,
            usage.num_pending,
            self._feeder.num_in_flight,
            usage.num_done,
            usage.num_aside,
            usage.num_bytes,
            self._rules.max_bytes,
            None if oldest_s is None else max(0.0, self._clock.now_s() - oldest_s),
            usage.warnings,
        )

    async def aside(self) -> list[AsideFrame]:
        """The records that were set aside, oldest first."""
        await self._until_open()
        return await asyncio.to_thread(self._store.aside)

    async def drop_aside(self, frame_id: str) -> bytes | None:
        """Remove a record that was set aside, and return what lay there; None if there is none."""
        await self._until_open()
        return await asyncio.to_thread(self._store.drop_aside, frame_id)

    async def _kept(self, meta: FrameMeta, ref: Any) -> Ticket | FramelaneError:
        try:
            self._check(meta)
            async with self._keeps:
                await self._until_open()
                frame = await self._new_frame(meta, ref)
                refusal = await self._writes.write(frame)
        except FramelaneError as err:
            # A fresh error: the traceback of this one holds the frame's pixels.
            return type(err)(err.message, err.retry_after_s)
        if refusal is not None:
            return refusal
        self._feeder.wake()
        verdict = Verdict(VerdictKind.DEFER, "kept in the spool until it is answered")
        return Ticket(durable_ticket_id(meta.frame_id), meta.camera, verdict, self._rules.result_ttl_s)

    def _check(self, meta: FrameMeta) -> None:
        priority = check_meta(meta, max_frame_px=self._plan.limits.max_frame_px)
        if priority is Priority.CRITICAL:
            raise InvalidFrameError("priority: got 'critical', allowed is 'normal' in the spool; send it to the router")
        for what, name in (("frame_id", meta.frame_id), ("camera", meta.camera)):
            try:
                num_bytes = len(name.encode())
            except UnicodeEncodeError as err:
                raise InvalidFrameError(f"{what}: got {name!r:.80}, allowed is Unicode text") from err
            if num_bytes > MAX_NAME_BYTES:
                raise InvalidFrameError(f"{what}: got {num_bytes} bytes, allowed are {MAX_NAME_BYTES}")

    async def _new_frame(self, meta: FrameMeta, ref: Any) -> NewFrame:
        """Fetch and encode the pixels; they are let go of when this returns."""
        try:
            image_hwc = await ref
        except Exception as err:  # Ray raises one of many classes
            raise FrameLostError(f"frame: its pixels cannot be fetched ({type(err).__name__}); send it again") from err
        try:
            image_hwc = check_frame(image_hwc, max_frame_px=self._plan.limits.max_frame_px)
        except FrameArrayError as err:
            raise InvalidFrameError(str(err)) from err
        size_hw = (int(meta.size_hw[0]), int(meta.size_hw[1]))
        if image_hwc.shape[:2] != size_hw:
            raise InvalidFrameError(f"frame: got {image_hwc.shape[:2]} px, announced were {size_hw}")
        life_s = self._rules.max_age_s if meta.slo_s is None else min(float(meta.slo_s), self._rules.max_age_s)

        def recorded() -> bytes:
            encoding, image = encoded(image_hwc, self._rules.jpeg_quality)
            return record_bytes(FrameRecord(meta.frame_id, meta.camera, size_hw, encoding, image))

        return NewFrame(meta.frame_id, meta.camera, life_s, await asyncio.to_thread(recorded))

    def _keep_group(self, frames: Sequence[NewFrame]) -> list[FramelaneError | None]:
        return self._store.keep(frames, self._clock.now_s())

    async def _run(self) -> None:
        """Open the store, however often that fails; then feed and tidy."""
        num_failed = 0
        while True:
            try:
                self._store = await self._open()
                break
            except FramelaneError as err:
                self._problem = err.message
                reason: object = err
            except Exception as err:  # it must say so rather than die: what lies there waits for it
                logger.exception("spool %s: cannot be opened", self._place)
                self._problem = f"{type(err).__name__}: {err}"
                reason = self._problem
            num_failed += 1
            if num_failed == 1:
                logger.error("spool %s: takes no frames: %s", self._place, reason)
            await asyncio.sleep(pause_s(num_failed))
        self._clock = SpoolClock(self._read_clocks, self._store.last_mark)
        self._feeder = SpoolFeeder(self._store, self._clock, self._connect, self._tell)
        self._problem = None
        self._opened.set()
        await asyncio.gather(self._feeder.run(), self._tidy())

    async def _open(self) -> Spool:
        """Open the store; if this is cancelled, close what comes of it after all."""
        opening = asyncio.ensure_future(asyncio.to_thread(self._open_store))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with suppress(Exception):
                (await opening).close()
            raise

    async def _tidy(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._store.tidy, self._clock.mark())
            except ServiceUnavailableError as err:
                logger.info("spool %s: is tidied later: %s", self._place, err)
            except Exception:  # results that are kept for too long harm nobody
                logger.exception("spool %s: cannot be tidied", self._place)
            await asyncio.sleep(MARK_INTERVAL_S)

    async def _until_open(self) -> None:
        """Wait a moment for a store that is opening; raises `ServiceUnavailableError` if it does not come."""
        if not self._opened.is_set() and not await set_within(self._opened, self._open_wait_s):
            raise ServiceUnavailableError(
                f"spool {self._place}: takes no frames now: {self._problem}; try again in {REFUSED_RETRY_S:g} s",
                REFUSED_RETRY_S,
            )

    async def _until(self, name: str, wait_s: float, look: Callable[[], Awaitable[T]], is_it: Callable[[T], bool]) -> T:
        """Look until it is what is waited for, or the time is over: at each news of this name, and now and then."""
        until_s = asyncio.get_running_loop().time() + min(wait_s, MAX_WAIT_S)
        with self._news.watched(name) as changed:
            while True:
                changed.clear()
                found = await look()
                left_s = until_s - asyncio.get_running_loop().time()
                if is_it(found) or left_s <= 0:
                    return found
                await set_within(changed, min(left_s, LOOK_INTERVAL_S))

    def _tell(self, frame_id: str, camera: str) -> None:
        self._news.tell(f"ticket {frame_id}", f"camera {camera}")
