"""The line to the service: how its loss is noticed, and that nothing is connected while calls are on their way."""

from __future__ import annotations

import asyncio

import pytest
from stream_world import FakeClient, frame

from serve_app.errors import InvalidFrameError, ServiceUnavailableError
from serve_app.streams import service_link
from serve_app.streams.backoff import Backoff
from serve_app.streams.service_link import ServiceAwayError, ServiceLink


@pytest.fixture(autouse=True)
def no_long_looks(monkeypatch):
    """Seconds of production are milliseconds here."""
    monkeypatch.setattr(service_link, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(service_link, "SETTLE_S", 0.01)


def link_of(client=None, connect=None):
    """A link that waits for nothing between its attempts."""
    return ServiceLink(client, connect, backoff=Backoff(lambda: 0.0), sleep=lambda _: asyncio.sleep(0))


def sent(link, timeout_s=20.0):
    """A frame of it."""
    return link.submit(frame(), camera="a", priority="normal", slo_s=None, timeout_s=timeout_s)


def test_a_service_that_was_stopped_is_noticed_though_no_call_says_so():
    """Its note is gone: calls on their way are given up, and the next client is connected after they ended."""

    async def scene():
        first, second = FakeClient(gate=asyncio.Event()), FakeClient()
        clients, in_flight = iter([first, second]), []

        def connect():
            in_flight.append(first.in_flight)
            return next(clients)

        link = link_of(connect=connect)
        await link.start()
        calls = [asyncio.create_task(sent(link)) for _ in range(3)]
        assert await asyncio.to_thread(first.called.acquire, timeout=20)
        first.stands = False
        gone = await asyncio.gather(*calls, return_exceptions=True)
        await link.wait_up()
        result = await sent(link)
        await link.close()
        return gone, in_flight, result.outcome.value, link.num_outages

    gone, in_flight, outcome, num_outages = asyncio.run(scene())
    assert [str(err) for err in gone] == ["service: it went away (it was stopped)"] * 3
    assert (in_flight, outcome, num_outages) == ([0, 0], "finished", 1)


def test_a_service_that_does_not_answer_is_away():
    """After a time that no deadline reaches; a client that was given is asked again."""

    async def scene():
        client = FakeClient(gate=asyncio.Event())
        link = link_of(client)
        await link.start()
        with pytest.raises(ServiceAwayError, match="no answer within 0 s"):
            await sent(link, timeout_s=0.01)
        client.gate.set()
        await link.wait_up()
        result = await sent(link)
        await link.close()
        return result.outcome.value, client.in_flight

    assert asyncio.run(scene()) == ("finished", 0)


@pytest.mark.parametrize("error", [RuntimeError("Ray's\nown"), ServiceUnavailableError("still starting"), KeyError()])
def test_whatever_connecting_raises_it_is_tried_again(error):
    """Ray's libraries raise anything while a cluster comes and goes."""

    async def scene():
        first = FakeClient(error=ServiceUnavailableError("gone"))
        answers = iter([first, error, error, FakeClient()])

        def connect():
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        link = link_of(connect=connect)
        await link.start()
        with pytest.raises(ServiceAwayError, match="gone"):
            await sent(link)
        with pytest.raises(ServiceAwayError, match="it is away"):
            await sent(link)
        await link.wait_up()
        result = await sent(link)
        await link.close()
        return result.outcome.value, link.num_outages

    assert asyncio.run(scene()) == ("finished", 1)


def test_one_frames_error_is_no_loss_of_the_service():
    """It is raised as it is."""

    async def scene():
        link = link_of(FakeClient(error=InvalidFrameError("no frame")))
        await link.start()
        with pytest.raises(InvalidFrameError):
            await sent(link)
        is_up = link.is_up
        await link.close()
        return is_up

    assert asyncio.run(scene())


def test_the_first_connection_is_not_tried_twice():
    """A user who typed a command wants to know at once."""

    def connect():
        raise ServiceUnavailableError("none runs")

    async def scene():
        with pytest.raises(ServiceUnavailableError, match="none runs"):
            await link_of(connect=connect).start()

    asyncio.run(scene())
