"""The ticket desk: who waits for results is woken by them, on a clock that only the test moves, and nobody is twice."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest

from engines.detections import Detections
from serve_app import ticket_desk
from serve_app.errors import InvalidFrameError, TicketExpiredError, TicketUnknownError, TooManyTicketsError
from serve_app.results import FrameResult
from serve_app.ticket_desk import MAX_WAIT_S, TicketDesk
from serve_app.tickets import Ticket, TicketBook
from serve_app.verdicts import Outcome, Verdict, VerdictKind

ADMITTED = Verdict(VerdictKind.ADMIT, "room")
# Nothing in here waits so long unless it hangs.
PATIENCE_S = 30.0
# So many turns of the loop let all that can run come to rest.
NUM_TURNS = 20


class Desk:
    """A desk with its book and clock, and the frames that tickets were given for."""

    def __init__(self, *, max_tickets=10, ttl_s=10.0):
        self.now_s = 100.0
        self.desk = TicketDesk(TicketBook(max_tickets=max_tickets, ttl_s=ttl_s), lambda: self.now_s)
        self.answers = {}

    def give(self, frame_id, camera="gate-1", callback=None) -> Ticket:
        """A ticket for a frame that was admitted."""
        self.desk.open(frame_id, camera)
        answer = self.answers[frame_id] = asyncio.get_running_loop().create_future()
        if callback is not None:
            self.desk.call_back(callback, answer)
        return self.desk.given(frame_id, camera, ADMITTED, answer)

    def end(self, *frame_ids, camera="gate-1", outcome=Outcome.FINISHED):
        """Frames end, in this order; gives the results."""
        results = [FrameResult(name, camera, (480, 640), "normal", outcome, Detections.none()) for name in frame_ids]
        for result in results:
            self.answers[result.frame_id].set_result(result)
        return results


class Callback:
    """Notes what it was called with, and answers as a handle does: with something to await."""

    def __init__(self, error=None):
        self.results = []
        self._error = error

    def remote(self, result):
        """One call."""
        self.results.append(result)
        return self._answer()

    async def _answer(self):
        if self._error is not None:
            raise self._error


async def settle():
    """Let everything run that can."""
    for _ in range(NUM_TURNS):
        await asyncio.sleep(0)


def run(scenario):
    """Run a scenario; one that hangs fails."""
    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def frame_ids(page):
    """The frames of a page."""
    return [result.frame_id for result in page.results]


def with_wait_for(monkeypatch, wait_for):
    """Let the desk, and nobody else, wait with this instead of `asyncio.wait_for`."""
    names = {name: getattr(asyncio, name) for name in ("Event", "TimeoutError", "get_running_loop")}
    monkeypatch.setattr(ticket_desk, "asyncio", SimpleNamespace(wait_for=wait_for, **names))


@pytest.fixture
def timeouts(monkeypatch):
    """The seconds of each wait, none of which passes: it ends when it is woken, or never."""
    waits = []

    async def wait_for(awaitable, timeout_s):
        waits.append(timeout_s)
        return await awaitable

    with_wait_for(monkeypatch, wait_for)
    return waits


def test_a_ticket_says_what_it_is_for():
    """Its id is the frame's, and its result is kept as long as the book keeps any."""

    async def scenario():
        desk = Desk(ttl_s=7.0)
        assert desk.give("a", "gate-2") == Ticket("a", "gate-2", ADMITTED, 7.0)

    run(scenario)


def test_asking_without_waiting_answers_at_once():
    """None before the frame has ended, its result after, again too."""

    async def scenario():
        desk = Desk()
        desk.give("a")
        assert await desk.desk.result("a", 0.0) is None
        (result,) = desk.end("a")
        await settle()
        assert await desk.desk.result("a", 0.0) is result
        assert await desk.desk.result("a", 0.0) is result

    run(scenario)


def test_all_who_wait_for_a_frame_are_woken_by_its_end():
    """And by no other's."""

    async def scenario():
        desk = Desk()
        desk.give("a")
        desk.give("b")
        waiting = [asyncio.create_task(desk.desk.result("a", 5.0)) for _ in range(3)]
        await settle()
        desk.end("b")
        await settle()
        assert not any(task.done() for task in waiting)
        (result,) = desk.end("a")
        assert await asyncio.gather(*waiting) == [result] * 3

    run(scenario)


@pytest.mark.parametrize("wait_s", [0.5, 1e9], ids=["short", "for ever"])
def test_nobody_waits_longer_than_a_call_may(timeouts, wait_s):
    """A client that wants to wait longer asks again: so it notices a service that went away."""

    async def scenario():
        desk = Desk()
        desk.give("a")
        waiting = [
            asyncio.ensure_future(desk.desk.result("a", wait_s)),
            asyncio.ensure_future(desk.desk.results("gate-1", 0, wait_s)),
        ]
        await settle()
        assert timeouts == [min(wait_s, MAX_WAIT_S)] * 2
        desk.end("a")
        await asyncio.gather(*waiting)

    run(scenario)


def test_a_wait_that_was_for_nothing_ends_as_none(monkeypatch):
    """When its time is over, with the frame still on its way; the ticket is as good as before."""

    async def scenario():
        desk = Desk()
        desk.give("a")
        with_wait_for(monkeypatch, expire)
        assert await desk.desk.result("a", 3.0) is None
        page = await desk.desk.results("gate-1", 0, 3.0)
        assert (page.results, page.num_dropped, page.num_waiting) == ((), 0, 1)
        monkeypatch.undo()
        (result,) = desk.end("a")
        await settle()
        assert await desk.desk.result("a", 0.0) is result

    async def expire(awaitable, _):
        awaitable.cancel()
        raise asyncio.TimeoutError

    run(scenario)


def test_a_waiter_that_gives_up_harms_no_other():
    """Cancel one of three; the other two get the result."""

    async def scenario():
        desk = Desk()
        desk.give("a")
        first, second, third = (asyncio.create_task(desk.desk.result("a", 5.0)) for _ in range(3))
        await settle()
        second.cancel()
        await settle()
        (result,) = desk.end("a")
        assert await asyncio.gather(first, third) == [result] * 2
        assert second.cancelled()

    run(scenario)


def test_unknown_and_expired_tickets_are_told():
    """Also when the time to live passed while nobody asked; a caller that would wait is told at once."""

    async def scenario():
        desk = Desk(ttl_s=10.0)
        desk.give("a")
        desk.end("a", outcome=Outcome.EXPIRED)
        await settle()
        desk.now_s += 10.0
        with pytest.raises(TicketExpiredError, match="ended as expired"):
            await desk.desk.result("a", 5.0)
        with pytest.raises(TicketUnknownError, match="nope"):
            await desk.desk.result("nope", 5.0)

    run(scenario)


def test_a_result_is_kept_from_the_frames_end_on():
    """The injected clock at the moment of the end counts, not the one of the ticket."""

    async def scenario():
        desk = Desk(ttl_s=10.0)
        desk.give("a")
        desk.now_s += 50.0
        (result,) = desk.end("a")
        await settle()
        desk.now_s += 9.0
        assert await desk.desk.result("a", 0.0) is result

    run(scenario)


def test_a_withdrawn_ticket_is_none():
    """Its frame was refused: nothing is known of it, and its place is free."""

    async def scenario():
        desk = Desk(max_tickets=1)
        desk.desk.open("a", "gate-1")
        desk.desk.withdrawn("a")
        with pytest.raises(TicketUnknownError):
            await desk.desk.result("a", 5.0)
        desk.give("b")

    run(scenario)


def test_a_full_book_and_a_known_id_are_refused():
    """As the book says; those that are out are not harmed."""

    async def scenario():
        desk = Desk(max_tickets=1)
        desk.give("a")
        with pytest.raises(InvalidFrameError):
            desk.desk.open("a", "gate-1")
        with pytest.raises(TooManyTicketsError):
            desk.desk.open("b", "gate-1")
        (result,) = desk.end("a")
        await settle()
        assert await desk.desk.result("a", 0.0) is result

    run(scenario)


def test_results_of_a_camera_come_in_the_order_of_ending():
    """Page after page, nothing twice, nothing lost, and nothing of other cameras."""

    async def scenario():
        desk = Desk()
        for name in "abc":
            desk.give(name)
        desk.give("x", "gate-2")
        desk.end("c", "a")
        desk.end("x", camera="gate-2")
        await settle()
        first = await desk.desk.results("gate-1", 0, 5.0)
        desk.end("b")
        await settle()
        second = await desk.desk.results("gate-1", first.cursor, 5.0)
        third = await desk.desk.results("gate-1", second.cursor, 0.0)
        assert [frame_ids(page) for page in (first, second, third)] == [["c", "a"], ["b"], []]

    run(scenario)


def test_all_readers_of_a_camera_are_woken_by_its_next_end():
    """Also of one that had nothing yet; an end elsewhere wakes nobody."""

    async def scenario():
        desk = Desk()
        readers = [asyncio.create_task(desk.desk.results("gate-1", 0, 5.0)) for _ in range(2)]
        await settle()
        desk.give("x", "gate-2")
        desk.give("a")
        desk.end("x", camera="gate-2")
        await settle()
        assert not any(reader.done() for reader in readers)
        desk.end("a")
        assert [frame_ids(page) for page in await asyncio.gather(*readers)] == [["a"]] * 2

    run(scenario)


def test_a_page_is_no_larger_than_one_may_be(monkeypatch):
    """The rest comes with the next one."""
    monkeypatch.setattr(ticket_desk, "MAX_PAGE", 2)

    async def scenario():
        desk = Desk()
        for name in "abc":
            desk.give(name)
        desk.end(*"abc")
        await settle()
        first = await desk.desk.results("gate-1", 0, 5.0)
        second = await desk.desk.results("gate-1", first.cursor, 5.0)
        assert [frame_ids(first), frame_ids(second)] == [["a", "b"], ["c"]]

    run(scenario)


def test_missing_results_are_told_at_once():
    """A reader that is behind does not wait for the next end to learn of it."""

    async def scenario():
        desk = Desk(ttl_s=10.0)
        for name in "abc":
            desk.give(name)
        desk.end("a")
        await settle()
        first = await desk.desk.results("gate-1", 0, 5.0)
        desk.end("b", "c")
        await settle()
        desk.now_s += 10.0
        second = await desk.desk.results("gate-1", first.cursor, 5.0)
        assert (second.results, second.num_dropped) == ((), 2)

    run(scenario)


def test_a_callback_is_called_once_with_the_result():
    """Whatever the outcome, and after the ticket has its result: who asks on the call finds it."""

    async def scenario():
        desk = Desk()
        callback = Callback()
        desk.give("a", callback=callback)
        desk.give("b", callback=callback)
        await settle()
        assert callback.results == []
        (expired,) = desk.end("b", outcome=Outcome.EXPIRED)
        (finished,) = desk.end("a")
        await settle()
        assert callback.results == [expired, finished]
        assert await desk.desk.result("a", 0.0) is finished

    run(scenario)


@pytest.mark.parametrize("callback", [Callback(ValueError("no paper")), object()], ids=["fails", "cannot be called"])
def test_a_failing_callback_is_logged_and_harms_nobody(caplog, callback):
    """The result stays with the ticket; the log names the frame and what happened."""

    async def scenario():
        desk = Desk()
        desk.give("a", callback=callback)
        (result,) = desk.end("a")
        await settle()
        assert await desk.desk.result("a", 0.0) is result

    with caplog.at_level(logging.WARNING):
        run(scenario)
    (record,) = caplog.records
    assert "frame a: its callback failed" in record.getMessage()


def test_calls_under_way_are_held_until_they_end():
    """The event loop itself holds tasks weakly; an ended one is let go."""

    async def scenario():
        desk = Desk()
        desk.give("a", callback=Callback())
        desk.end("a")
        await asyncio.sleep(0)
        assert len(desk.desk._calls) == 1
        await settle()
        assert not desk.desk._calls

    run(scenario)


def test_waiting_leaves_nothing_behind_when_the_frame_ends():
    """Tickets are many: what their waiters waited for goes with the end."""

    async def scenario():
        desk = Desk()
        desk.give("a")
        waiting = [
            asyncio.create_task(desk.desk.result("a", 5.0)),
            asyncio.create_task(desk.desk.results("gate-1", 0, 5.0)),
        ]
        await settle()
        desk.end("a")
        await asyncio.gather(*waiting)
        assert not desk.desk._waiters

    run(scenario)


def test_nothing_is_remembered_of_names_that_nobody_waits_for():
    """Callers choose them: asking for a thousand cameras that do not exist must not fill the memory."""

    async def scenario():
        desk = Desk()
        for number in range(20):
            await desk.desk.results(f"camera-{number}", 0, 1e-6)
        assert not desk.desk._waiters

    run(scenario)


def test_an_answer_that_was_cancelled_closes_nothing():
    """The router's own end cancels what is due; the book goes with it."""

    async def scenario():
        desk = Desk()
        desk.give("a")
        desk.answers["a"].cancel()
        await settle()
        assert await desk.desk.result("a", 0.0) is None

    run(scenario)
