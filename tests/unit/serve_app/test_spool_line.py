"""How callers, and the router for those without our client, reach the spool."""

from __future__ import annotations

import asyncio

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from router_world import Ref, play, with_replica
from serve_samples import sample_meta, sample_plan

from engines.detections import Detections
from serve_app.errors import InvalidFrameError, ServiceUnavailableError, SpoolFullError, TicketUnknownError
from serve_app.plan import CameraRule
from serve_app.spool import spool_line
from serve_app.spool.merged import merged
from serve_app.spool.spool_line import SpoolLine
from serve_app.tickets import Ticket, durable_ticket_id, frame_of_ticket, is_durable_ticket
from serve_app.verdicts import Verdict, VerdictKind

KEPT = Verdict(VerdictKind.DEFER, "kept")


class Response:
    """What a handle's call gives: awaitable, or waited for."""

    def __init__(self, answer):
        self._answer = answer

    def result(self, timeout_s):
        """Wait."""
        assert timeout_s > 0
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def __await__(self):
        """Await."""
        yield from asyncio.sleep(0).__await__()
        return self.result(1)


class Handle:
    """The deployment's handle: each method answers what the test gave, one after the other."""

    def __init__(self, **answers):
        self.answers = answers
        self.calls = []

    def __getattr__(self, method):
        """A method of the deployment."""
        handle = self

        class Method:
            @staticmethod
            def remote(*arguments):
                """Note the call."""
                handle.calls.append((method, *arguments))
                answer = handle.answers[method].pop(0)
                return Response(answer(*arguments) if callable(answer) else answer)

        return Method


def tickets(metas, _):
    """A ticket for each."""
    return [Ticket(durable_ticket_id(meta.frame_id), meta.camera, KEPT, 9.0) for meta in metas]


@pytest.fixture
def no_pause(monkeypatch):
    """Between tries."""
    monkeypatch.setattr(spool_line, "RETRY_INTERVAL_S", 0.0)


@pytest.mark.usefixtures("no_pause")
def test_a_frame_is_given_again_to_a_spool_that_died():
    """With the same id, so that it is taken once whatever the dead one did."""
    handle = Handle(keep=[ActorDiedError(), TimeoutError(), tickets])
    ticket = SpoolLine(handle).keep_and_wait(sample_meta("f"), "ref")
    assert ticket.is_durable
    assert [call[1][0].frame_id for call in handle.calls] == ["f"] * 3


@pytest.mark.usefixtures("no_pause")
def test_a_spool_that_stays_away_is_told_in_the_end():
    """After the caller's patience."""
    handle = Handle(keep=[ActorDiedError()] * 10_000)
    with pytest.raises(ServiceUnavailableError, match="ActorDiedError"):
        SpoolLine(handle).keep_and_wait(sample_meta("f"), "ref", timeout_s=0.05)


def test_a_refusal_is_raised_and_not_tried_again():
    """It is an answer."""
    handle = Handle(keep=[[SpoolFullError("spool is full", 5.0)]])
    with pytest.raises(SpoolFullError) as caught:
        SpoolLine(handle).keep_and_wait(sample_meta("f"), "ref")
    assert (caught.value.retry_after_s, len(handle.calls)) == (5.0, 1)


def test_errors_of_ours_arrive_as_they_were():
    """Ray wraps what an actor raises."""
    wrapped = RayTaskError("ticket_result", "traceback", TicketUnknownError("ticket: unknown"))
    with pytest.raises(TicketUnknownError, match="unknown"):
        SpoolLine(Handle(ticket_result=[wrapped])).result_and_wait("durable-f", 0)


def test_a_ticket_tells_who_is_to_be_asked():
    """By its prefix, whatever the frame's id is."""
    assert is_durable_ticket(durable_ticket_id("f"))
    assert not is_durable_ticket("f")
    for frame_id in ("f", "durable-f", ""):
        assert frame_of_ticket(durable_ticket_id(frame_id)) == frame_id


DURABLE = sample_plan(cameras=(CameraRule("night-*", durable=True),))


@pytest.mark.usefixtures("driven_by_hand")
def test_the_router_hands_durable_frames_on():
    """In one call with others: each gets its ticket in its place; critical ones are the router's own."""

    async def scenario(world):
        handle = Handle(keep=[tickets], ticket_result=[None])
        world.router._spool = SpoolLine(handle)
        await with_replica(world)
        metas = [
            sample_meta("a", camera="night-1"), sample_meta("b", camera="gate"),
            sample_meta("c", camera="night-1", priority="critical"), sample_meta("d", camera="night-2"),
        ]  # fmt: skip
        refs = [Ref() for _ in metas]
        world.num_submitted += 2

        given = await world.router.submit_tickets(metas, None, refs)

        assert [ticket.ticket_id for ticket in given] == ["durable-a", "b", "c", "durable-d"]
        assert handle.calls == [("keep", [metas[0], metas[3]], [refs[0], refs[3]])]
        assert await world.router.ticket_result("durable-a", 0) is None
        assert handle.calls[-1] == ("ticket_result", "durable-a", 0)
        for _ in range(2):
            (await world.near.next_call()).answer((Detections.none(), ()))
        for ticket_id in "bc":
            assert (await world.router.ticket_result(ticket_id, 10)).frame_id == ticket_id

    play(scenario, DURABLE)


@pytest.mark.usefixtures("driven_by_hand")
def test_the_router_takes_the_spools_own_frames():
    """`submit` is for those who wait, and the spool is one: no frame goes round in a circle."""

    async def scenario(world):
        await with_replica(world)
        call = world.submit(sample_meta("a", camera="night-1"))
        (await world.near.next_call()).answer((Detections.none(), ()))
        assert (await call)[0].frame_id == "a"

    play(scenario, DURABLE)


@pytest.mark.usefixtures("driven_by_hand")
def test_a_callback_of_a_durable_frame_is_refused():
    """Before anything was taken."""

    async def scenario(world):
        world.router._spool = SpoolLine(Handle())
        metas = [sample_meta("a", camera="gate"), sample_meta("b", camera="night-1")]
        with pytest.raises(InvalidFrameError, match="for a durable camera, allowed is None"):
            await world.router.submit_tickets(metas, print, [Ref(), Ref()])

    play(scenario, DURABLE)


@pytest.mark.usefixtures("driven_by_hand")
def test_a_spool_that_is_away_refuses_for_the_router():
    """As values, one a frame; the others of the call get their tickets."""

    async def scenario(world):
        world.router._spool = SpoolLine(Handle(keep=[ActorDiedError()]))
        await with_replica(world)
        world.num_submitted += 1
        metas = [sample_meta("a", camera="night-1"), sample_meta("b", camera="gate")]
        refused, given = await world.router.submit_tickets(metas, None, [Ref(), Ref()])
        assert isinstance(refused, ServiceUnavailableError)
        assert given.ticket_id == "b"
        (await world.near.next_call()).answer((Detections.none(), ()))
        await world.router.ticket_result("b", 10)

    play(scenario, DURABLE)


def test_generators_are_merged_in_their_own_orders():
    """Each item as soon as it is there; an error ends all of them; nothing is left behind."""
    closed = []

    async def source(name, events):
        try:
            for number, event in enumerate(events):
                await event.wait()
                yield f"{name}{number}"
        finally:
            closed.append(name)

    async def scenario():
        events = {name: [asyncio.Event() for _ in range(3)] for name in "ab"}
        both = merged([source(name, events[name]) for name in "ab"])
        seen = []
        for name, number in (("b", 0), ("a", 0), ("b", 1), ("a", 1)):
            events[name][number].set()
            seen.append(await anext(both))
        await both.aclose()
        assert seen == ["b0", "a0", "b1", "a1"]
        assert sorted(closed) == ["a", "b"]
        assert len(asyncio.all_tasks()) == 1

    async def failing():
        yield 1
        raise OSError("gone")

    async def error():
        with pytest.raises(OSError, match="gone"):
            async for _ in merged([failing(), source("c", [asyncio.Event()])]):
                pass
        assert closed[-1] == "c"
        assert [item async for item in merged([])] == []

    asyncio.run(scenario())
    asyncio.run(error())
