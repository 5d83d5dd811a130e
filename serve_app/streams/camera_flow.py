"""One camera on the event loop: takes frames from its thread, has them answered, and gives items in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serve_app.errors import FramelaneError
from serve_app.streams.camera_spec import CameraSpec
from serve_app.streams.mailbox import Mailbox
from serve_app.streams.service_link import ANSWER_GRACE_S, ServiceAwayError, ServiceLink
from serve_app.streams.source_address import without_secret
from serve_app.streams.stream_values import CAUSE_OF_OUTCOME, Answer, Gap, GapCause, StreamFrame, StreamItem
from serve_app.verdicts import Outcome

# Without a clock: one frame runs, one is on its way, so that neither service nor source waits for the other.
UNPACED_IN_FLIGHT = 2
# With one: so many frames of a camera may be unanswered, or answered and not taken, before newer ones replace those
# that wait. At 25 frames a second that is a third of a second of service, and 50 MB of full HD.
PACED_IN_FLIGHT = 8
# Without a clock nothing is late; this only ends a wait for a service that is gone.
UNPACED_SLO_S = 120.0
# The longest deadline that a plan's default is assumed to have.
ASSUMED_SLO_S = 60.0
# A file's frame is sent again when the service went away; one that takes the service with it must not do so for ever.
MAX_SENDS = 3
STOPPED = "the stream was stopped before it was answered"


@dataclass(slots=True)
class _Answered:
    """What became of one item: itself, with the outage that it waited for, 0 if none."""

    item: StreamItem
    outage: int = 0
    reason: str = ""


class CameraFlow:
    """Frames of one camera: sent side by side, given in order, never more at once than `num_in_flight`.

    The bound counts frames from when they leave the mailbox until `deliver` has taken them, so a consumer that does not
    keep up holds the camera up (`keep: all`) or costs it frames that are reported as superseded (`keep: latest`).
    """

    def __init__(
        self,
        spec: CameraSpec,
        mailbox: Mailbox,
        link: ServiceLink,
        deliver: Callable[[StreamItem], Awaitable[None]],
    ) -> None:
        """Take whose frames, where they come from, who answers, and who takes the items; one call at a time."""
        self._spec = spec
        self._mailbox = mailbox
        self._link = link
        self._deliver = deliver
        self._is_paced = spec.has_clock
        self.num_in_flight = PACED_IN_FLIGHT if self._is_paced else UNPACED_IN_FLIGHT
        self._room = asyncio.Semaphore(self.num_in_flight)
        self._order: asyncio.Queue[asyncio.Task[_Answered] | _Answered | None] = asyncio.Queue()
        self._awake = asyncio.Event()
        self._given_up = asyncio.Event()
        self._sending: set[asyncio.Task[_Answered]] = set()
        self._outage_told = 0

    def wake(self) -> None:
        """There is something in the mailbox; from the event loop's thread."""
        self._awake.set()

    def give_up(self) -> None:
        """Wait for no answer any more: what has none is a gap."""
        self._given_up.set()
        for sending in self._sending:
            sending.cancel()

    async def run(self) -> None:
        """Until the mailbox is exhausted and all is delivered. Cancelling it cancels what is on its way."""
        delivering = asyncio.create_task(self._deliver_in_order())
        try:
            await self._take_all()
            await self._order.put(None)
            await delivering
        finally:
            delivering.cancel()
            while not self._order.empty():
                waiting = self._order.get_nowait()
                if isinstance(waiting, asyncio.Task):
                    waiting.cancel()
            await asyncio.gather(delivering, return_exceptions=True)

    async def _take_all(self) -> None:
        while True:
            await self._room.acquire()
            item = await self._next_item()
            if item is None:
                return
            if isinstance(item, Gap):
                self._order.put_nowait(_Answered(item))
            elif self._given_up.is_set():
                self._order.put_nowait(_Answered(_gap(item, GapCause.STOPPED, STOPPED)))
            else:
                sending = asyncio.create_task(self._answered(item))
                self._sending.add(sending)
                sending.add_done_callback(self._sending.discard)
                self._order.put_nowait(sending)

    async def _next_item(self) -> StreamFrame | Gap | None:
        """The next one of the mailbox, while there is a service; None at the end."""
        while True:
            self._awake.clear()
            if not (self._link.is_up or self._mailbox.is_exhausted or self._given_up.is_set()):
                await self._wait_up()
            item = self._mailbox.take()
            if item is not None:
                return item
            if self._mailbox.is_exhausted:
                return None
            await self._awake.wait()

    async def _wait_up(self) -> None:
        """Until there is a service, or nobody waits for one any more; frames stay where they are."""
        waits = [asyncio.ensure_future(self._link.wait_up()), asyncio.ensure_future(self._given_up.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _answered(self, frame: StreamFrame) -> _Answered:
        """The answer to a frame, or the gap that it leaves. Raises nothing but its cancellation."""
        try:
            return await self._resent(frame)
        except asyncio.CancelledError:
            if not self._given_up.is_set():
                raise
            return _Answered(_gap(frame, GapCause.STOPPED, STOPPED))

    async def _resent(self, frame: StreamFrame) -> _Answered:
        """The answer, after as many attempts as its camera may have while the service comes and goes."""
        outages, reason = self._link.num_outages, ""
        num_sends = 1 if self._spec.keeps_latest else MAX_SENDS
        for _ in range(num_sends):
            try:
                item = await self._sent(frame)
            except ServiceAwayError as err:
                reason = str(err)
                if num_sends > 1:
                    await self._link.wait_up()
                continue
            return _Answered(item, self._link.num_outages if self._link.num_outages > outages else 0, reason)
        return _Answered(Gap(frame.camera, frame.number, 1, GapCause.SERVICE_AWAY, reason))

    async def _sent(self, frame: StreamFrame) -> StreamItem:
        spec = self._spec
        slo_s = UNPACED_SLO_S if spec.slo_s is None and not self._is_paced else spec.slo_s
        sent_s = time.monotonic()
        try:
            result = await self._link.submit(
                frame.image_hwc, camera=spec.name, priority=spec.priority, slo_s=slo_s,
                timeout_s=(ASSUMED_SLO_S if slo_s is None else slo_s) + ANSWER_GRACE_S,
            )  # fmt: skip
        except ServiceAwayError:
            raise
        except FramelaneError as err:
            return _gap(frame, GapCause.FAILED, str(err))
        except Exception as err:
            # One frame's trouble, whatever it is, is that frame's.
            return _gap(frame, GapCause.FAILED, f"{type(err).__name__}: {without_secret(str(err))[:200]}")
        if result.outcome is Outcome.FINISHED and result.error is None:
            return Answer(frame, result, time.monotonic() - sent_s)
        cause = CAUSE_OF_OUTCOME.get(result.outcome, GapCause.FAILED)
        reason = str(result.error) if result.error is not None else result.outcome.value
        return Gap(frame.camera, frame.number, 1, cause, reason, result)

    async def _deliver_in_order(self) -> None:
        while True:
            waiting = await self._order.get()
            if waiting is None:
                return
            answered = await waiting if isinstance(waiting, asyncio.Task) else waiting
            if answered.outage > self._outage_told:
                self._outage_told = answered.outage
                first = answered.item.frame.number if isinstance(answered.item, Answer) else answered.item.first_number
                await self._deliver(Gap(self._spec.name, first, 0, GapCause.SERVICE_AWAY, answered.reason))
            await self._deliver(answered.item)
            self._room.release()


def _gap(frame: StreamFrame, cause: GapCause, reason: str) -> Gap:
    return Gap(frame.camera, frame.number, 1, cause, reason)
