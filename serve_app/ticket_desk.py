"""Where callers wait for the results of frames that they hold tickets for; the book itself is `tickets.py`'s."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serve_app.errors import FramelaneError
from serve_app.results import FrameResult
from serve_app.tickets import ResultsPage, Ticket, TicketBook
from serve_app.verdicts import Verdict

logger = logging.getLogger(__name__)

# One page of results crosses the network in one piece.
MAX_PAGE = 256
# A call that waits longer is asked again by its client: so a service that went away is noticed.
MAX_WAIT_S = 20.0


class TicketDesk:
    """Gives out tickets, keeps results, wakes those who wait for them, and calls back."""

    def __init__(self, book: TicketBook, clock_s: Callable[[], float], router: str = "") -> None:
        """Take the book, the clock that its seconds come from, and whose desk it is."""
        self._book = book
        self._router = router
        self._clock_s = clock_s
        self._waiters: dict[str, set[asyncio.Future[bool]]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def is_calling(self) -> bool:
        """Whether a callback is under way."""
        return bool(self._calls)

    def open(self, frame_id: str, camera: str) -> None:
        """Begin a ticket; then either `given` or `withdrawn`. Raises what `TicketBook.open` raises."""
        self._book.open(frame_id, camera, self._clock_s())

    def withdrawn(self, frame_id: str) -> None:
        """The frame was refused: its caller gets no ticket."""
        self._book.withdraw(frame_id)

    def given(self, frame_id: str, camera: str, verdict: Verdict, answer: asyncio.Future[FrameResult]) -> Ticket:
        """The ticket of an admitted frame, whose result `answer` will hold."""
        answer.add_done_callback(self._ended)
        return self.ticket(frame_id, camera, verdict)

    def ticket(self, frame_id: str, camera: str, verdict: Verdict) -> Ticket:
        """The ticket of a frame that has been given one: now, or before to a caller who asks once more."""
        return Ticket(frame_id, camera, verdict, self._book.ttl_s, self._router)

    def hand_over(self) -> tuple[dict[str, str], list[tuple[str, FrameResult]]]:
        """What another desk is to `adopt`, see `TicketBook.hand_over`; nobody waits here for news any more."""
        for what in list(self._waiters):
            self._wake(what, has_news=False)
        return self._book.hand_over(self._clock_s())

    def adopt(self, waiting: Mapping[str, str], unread: Sequence[tuple[str, FrameResult]]) -> int:
        """Take over the tickets of another desk, as far as there is room; how many found none."""
        num_refused = 0
        for ticket_id, camera in [*((name, result.camera) for name, result in unread), *waiting.items()]:
            try:
                self._book.open(ticket_id, camera, self._clock_s())
            except FramelaneError:
                num_refused += 1
        for _, result in unread:
            self.ended(result)
        return num_refused

    def ended(self, result: FrameResult) -> None:
        """A frame with a ticket has ended."""
        self._book.close(result.frame_id, result, self._clock_s())
        for what in (f"ticket {result.frame_id}", f"camera {result.camera}"):
            self._wake(what, has_news=True)

    def call_back(self, callback: Any, answer: asyncio.Future[FrameResult]) -> None:
        """Call `callback.remote(result)` once, when the frame has ended; a handle, or an actor's method."""
        answer.add_done_callback(lambda done: self._start_call(callback, done.result()))

    async def result(self, ticket_id: str, wait_s: float) -> FrameResult | None:
        """How the frame ended; None if it has not within `wait_s`.

        Raises:
            TicketUnknownError, TicketExpiredError: see `TicketAnswer.unless_gone`.
        """
        until_s = self._clock_s() + min(wait_s, MAX_WAIT_S)
        while True:
            result = self._book.result(ticket_id, self._clock_s()).unless_gone()
            if result is not None or not await self._until_changed(f"ticket {ticket_id}", until_s):
                return result

    async def results(self, camera: str, cursor: int, wait_s: float) -> ResultsPage:
        """The next results of a camera after a cursor; an empty page if there are none within `wait_s`."""
        until_s = self._clock_s() + min(wait_s, MAX_WAIT_S)
        while True:
            page = self._book.results_after(camera, cursor, self._clock_s(), MAX_PAGE)
            if page.results or page.num_dropped or not await self._until_changed(f"camera {camera}", until_s):
                return page

    async def _until_changed(self, what: str, until_s: float) -> bool:
        """Wait for news of a ticket or a camera; False if there are none in time, or none to come."""
        left_s = until_s - self._clock_s()
        if left_s <= 0:
            return False
        changed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(what, set()).add(changed)
        try:
            return await asyncio.wait_for(changed, left_s)
        except asyncio.TimeoutError:
            return False
        finally:
            # Callers choose the names: none is remembered that nobody waits for.
            waiters = self._waiters.get(what, set())
            waiters.discard(changed)
            if not waiters:
                self._waiters.pop(what, None)

    def _wake(self, what: str, *, has_news: bool) -> None:
        for waiter in self._waiters.pop(what, ()):
            if not waiter.done():
                waiter.set_result(has_news)

    def _ended(self, answer: asyncio.Future[FrameResult]) -> None:
        if answer.cancelled():
            return
        self.ended(answer.result())

    def _start_call(self, callback: Any, result: FrameResult) -> None:
        task = asyncio.get_running_loop().create_task(_call(callback, result))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)


async def _call(callback: Any, result: FrameResult) -> None:
    """Hand a result to whoever asked to be called; its failure is its own, the result stays with the ticket."""
    try:
        await callback.remote(result)
    except Exception as err:
        logger.warning("frame %s: its callback failed: %s: %s", result.frame_id, type(err).__name__, err)
