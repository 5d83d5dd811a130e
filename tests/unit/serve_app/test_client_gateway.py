"""The real gateway: connects when it must, follows a service that was replaced, and tells the truth of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from fake_gateway import ADMITTED, finished, plan_of
from status_samples import POOLS, STATUS, VIEW

from serve_app.errors import ServiceUnavailableError
from serve_app.http import client_gateway
from serve_app.http.camera_cursor import CameraCursor
from serve_app.http.client_gateway import ClientGateway
from serve_app.http.errors import ParameterError
from serve_app.http.readiness import readiness_of
from serve_app.memory_level import MemoryLevel
from serve_app.plan import Pool
from serve_app.tickets import ResultsPage, Ticket

IMAGE = np.zeros((48, 64, 3), np.uint8)


class FakeClient:
    """A connection that works until it is told not to."""

    def __init__(self, plan):
        self.plan = plan
        self.is_gone = False
        self.spool = self
        self.asked = []

    async def submit_async(self, image_hwc, *, frame_id=None, **asked):
        """See `Client`."""
        self.asked.append((image_hwc.shape, frame_id, asked))
        if self.is_gone:
            raise ServiceUnavailableError("gone")
        return finished()

    async def submit_ticket_async(self, image_hwc, *, camera, **asked):
        """See `Client`."""
        self.asked.append((image_hwc.shape, asked))
        return Ticket("t1", camera, ADMITTED, 60.0)

    async def ask_async(self, method, *arguments, camera=""):
        """See `Client`."""
        self.asked.append((method, arguments, camera))
        return ResultsPage((finished(),), 41, 1, 2) if method == "ticket_results" else finished("of a router")

    async def result(self, ticket_id, wait_s):
        """See `Client`."""
        return finished(f"of the spool: {ticket_id} {wait_s}")

    async def results(self, camera, cursor, wait_s):
        """See `Client`."""
        self.asked.append(("spool", camera, cursor, wait_s))
        return ResultsPage((finished("kept"),), 8, 0, 3)


class World:
    """A gateway whose services come one after the other."""

    def __init__(self, plan):
        self.plan = plan
        self.clients = []
        self.is_there = True
        self.gateway = ClientGateway(plan, self.connect)

    def connect(self):
        """See `ClientGateway`."""
        if not self.is_there:
            raise ServiceUnavailableError("service: none runs")
        self.clients.append(FakeClient(self.plan))
        return self.clients[-1]

    async def detect(self):
        """See `ClientGateway`."""
        return await self.gateway.detect(IMAGE, camera="gate-1", priority="normal", slo_s=1.0, frame_id="f9")


@pytest.fixture
def world(tmp_path):
    """Nothing is connected yet."""
    return World(plan_of(tmp_path))


def test_many_who_come_first_share_one_connection(world):
    """Connecting takes a second; a hundred of them would take the service down."""

    async def scenario():
        return await asyncio.gather(*(world.detect() for _ in range(50)))

    assert len(asyncio.run(scenario())) == 50
    (client,) = world.clients
    asked = {"camera": "gate-1", "priority": "normal", "slo_s": 1.0}
    assert client.asked == [((48, 64, 3), "f9", asked)] * 50


def test_a_service_that_was_replaced_is_found_again(world):
    """The call that noticed fails, the next one is served."""

    async def scenario():
        await world.detect()
        world.clients[0].is_gone = True
        with pytest.raises(ServiceUnavailableError):
            await world.detect()
        return await world.detect()

    assert asyncio.run(scenario()).frame_id == "f1"
    assert len(world.clients) == 2


def test_a_service_that_is_not_there_is_not_asked_for_by_every_call(world):
    """Once a second; the others are told when to come again."""
    world.is_there = False

    async def scenario():
        told = []
        for _ in range(3):
            with pytest.raises(ServiceUnavailableError) as refused:
                await world.detect()
            told.append(refused.value.retry_after_s)
        ready = await world.gateway.readiness()
        return told, ready

    (first, *others), ready = asyncio.run(scenario())
    assert first is None
    assert all(0 < retry_after_s <= 1 for retry_after_s in others)
    assert not ready.is_ready
    assert "service" in ready.reasons[0]


def test_one_look_serves_all_who_ask_for_a_second(world, monkeypatch):
    """Pages and probes look often; a look asks every router."""
    looks = []
    monkeypatch.setattr(client_gateway, "look", lambda client: looks.append(client) or VIEW)

    async def scenario():
        views = await asyncio.gather(*(world.gateway.view() for _ in range(20)))
        return [*views, await world.gateway.view()]

    assert set(map(id, asyncio.run(scenario()))) == {id(VIEW)}
    assert len(looks) == 1


def test_one_who_leaves_does_not_take_the_look_from_the_others(world, monkeypatch):
    """A probe that timed out is cancelled."""
    monkeypatch.setattr(client_gateway, "look", lambda _: VIEW)

    async def scenario():
        first, second = (asyncio.create_task(world.gateway.view()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(scenario()) is VIEW


def test_tickets_of_the_spool_are_asked_there(world):
    """Their ids tell."""

    async def scenario():
        return [await world.gateway.result(ticket_id, 99.0) for ticket_id in ("t1", "durable-t2")]

    assert [result.frame_id for result in asyncio.run(scenario())] == ["of a router", "of the spool: durable-t2 20.0"]
    assert world.clients[0].asked == [("ticket_result", ("t1", 20.0), "")]


def test_results_of_a_durable_camera_come_from_both_places(tmp_path):
    """Each with its own place in the cursor."""
    plan = plan_of(tmp_path)
    durable = World(replace(plan, cameras=(replace(plan.rule_of("x"), pattern="belt-*", durable=True),)))

    async def scenario(world, camera):
        page = await world.gateway.results(camera, "3.5", 2.0)
        return [result.frame_id for result in page.results], page.cursor, page.num_missed, page.num_waiting

    assert asyncio.run(scenario(durable, "belt-1")) == (["kept", "f1"], "41.8", 1, 5)
    assert durable.clients[0].asked == [("spool", "belt-1", 5, 2.0), ("ticket_results", ("belt-1", 3, 0.0), "belt-1")]
    assert asyncio.run(scenario(World(plan), "belt-1")) == (["f1"], "41.0", 1, 2)


def test_a_process_that_ends_waits_for_the_frames_of_its_tickets(world, monkeypatch):
    """It owns their pixels."""
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    async def scenario():
        await world.gateway.submit(IMAGE, camera="belt-1", priority="normal", slo_s=30.0)
        monkeypatch.setattr(client_gateway.asyncio, "sleep", sleep)
        await world.gateway.until_tickets_ended()

    asyncio.run(scenario())
    assert 30 < waits[0] <= 35


@pytest.mark.parametrize("text", ["1", "1.2.3", "a.b", "-1.0", "1.", "9" * 40 + ".0", "²3.0"])
def test_a_cursor_that_nobody_gave_out_is_refused(text):
    """It comes from outside."""
    with pytest.raises(ParameterError):
        CameraCursor.parsed(text)


def test_a_cursor_is_read_as_it_was_written():
    """Empty is the beginning."""
    assert CameraCursor.parsed("") == CameraCursor()
    assert CameraCursor.parsed(str(CameraCursor(17, 4))) == CameraCursor(17, 4)


def pools(*pools):
    """The view of these pools."""
    return replace(VIEW, status=replace(STATUS, pools=pools, routers=(ready_router(),)))


def ready_router():
    """One that has counted its replicas."""
    return replace(STATUS.routers[0], report=replace(STATUS.routers[0].report, is_ready=True))


@pytest.mark.parametrize(
    ("view", "is_ready", "told"),
    [
        (pools(POOLS[0], POOLS[1]), True, []),
        (pools(POOLS[0], POOLS[2]), False, ["pool wide: the routers do not know it yet"]),
        (pools(POOLS[0], replace(POOLS[1], replicas=())), False, ["pool wide: no replica serves"]),
        (pools(POOLS[0], replace(POOLS[1], unhealthy={"wide-5510aa0c": "it is slow"})), False,
         ["pool wide: no replica serves (it is slow)"]),
        (pools(POOLS[0], replace(POOLS[1], memory=MemoryLevel.SHED)), True,
         ["pool wide: its memory is full, normal frames are rejected"]),
        (replace(VIEW, status=replace(STATUS, pools=POOLS[:2])), False,
         ["routers: none is ready yet; replicas are being warmed, or have gone"]),
    ],
    ids=["well", "unknown pool", "no replica", "unhealthy", "full", "no router"],
)  # fmt: skip
def test_readiness_says_what_is_missing(view, is_ready, told):
    """And is what it says."""
    readiness = readiness_of(view, (Pool("near"), Pool("wide")))
    assert readiness.is_ready is is_ready
    assert list(readiness.reasons) == told


def test_a_pool_that_may_shrink_to_nothing_is_no_reason():
    """It grows when frames come."""
    of_plan = (Pool("near"), Pool("archive", num_replicas=0, max_replicas=2))
    assert readiness_of(pools(POOLS[0], POOLS[2]), of_plan).is_ready
