"""Routers among fake others: whose frames go where, once, and what becomes of them when their owner is dead."""

from __future__ import annotations

import asyncio

import pytest
from ray.exceptions import ActorDiedError
from router_world import PATIENCE_S
from serve_samples import sample_meta

from serve_app import peer_routers
from serve_app.camera_owner import owner
from serve_app.direct_calls import DirectlyCalled
from serve_app.errors import InvalidFrameError, TicketExpiredError, TicketUnknownError
from serve_app.frames import Priority
from serve_app.peer_routers import PeerRouters
from serve_app.results import RouterReport
from serve_app.tickets import ResultsPage

pytestmark = pytest.mark.usefixtures("driven_by_hand")

SELF, OTHER, THIRD = "router-a", "router-b", "router-c"
ROUTERS = (SELF, OTHER, THIRD)


def camera_of(router, routers=ROUTERS):
    """A camera that this router owns."""
    return next(name for name in (f"gate-{number}" for number in range(1000)) if owner(name, routers) == router)


class FakeRouter(DirectlyCalled):
    """Another router's deployment object, which answers what the test wants and notes its calls."""

    def __init__(self, name):
        self.name = name
        self.calls = []
        self.report: RouterReport | None = None
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def own_report(self):
        """What the test says of it."""
        return self.report

    async def serve_here(self, metas, refs):
        """Answers who it is, frame by frame."""
        return await self._answer("serve_here", metas, refs)

    async def tickets_here(self, metas, callback, refs):
        """The same with a callback."""
        return await self._answer("tickets_here", metas, refs, callback)

    async def ticket_result_here(self, ticket_id, wait_s):
        """A result, or an error."""
        self.calls.append(("ticket_result_here", ticket_id, wait_s))
        if self.error is not None:
            raise self.error
        return f"result of {ticket_id} by {self.name}"

    async def ticket_results_here(self, camera, cursor, wait_s):
        """A page."""
        self.calls.append(("ticket_results_here", camera, cursor, wait_s))
        return ResultsPage((), cursor + 1, 0, 0)

    async def status_here(self):
        """Its name, when its gate is open."""
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.name

    async def _answer(self, method, metas, refs, *more):
        if self.error is not None:
            raise self.error
        self.calls.append((method, [meta.frame_id for meta in metas], list(refs), *more))
        return [f"{meta.frame_id}@{self.name}" for meta in metas]


class FakeHandle:
    """The routers' deployment: names the running routers as the test says, with actors that call the fakes."""

    def __init__(self):
        self._named = asyncio.Queue()

    async def running(self):
        """The next round's."""
        return await self._named.get()

    def say(self, actors):
        """These run, by name."""
        self._named.put_nowait(actors)


class FakeActor:
    """A router's actor, as Serve's replica actor looks."""

    def __init__(self, router):
        self.handle_request = self
        self.router = router

    def remote(self, _metadata, packed, refs):
        """Run the method here."""
        return asyncio.get_running_loop().create_task(self.router.call_directly(packed, refs))


class Seen:
    """Router `SELF` with two others that have reported."""

    def __init__(self):
        self.handle = FakeHandle()
        self.peers = PeerRouters(SELF, "node", self.handle, {Priority.NORMAL: 30.0, Priority.CRITICAL: 1.0})
        self.others = {name: FakeRouter(name) for name in (OTHER, THIRD)}
        self.actors = {name: FakeActor(router) for name, router in self.others.items()}
        self.actors[SELF] = FakeActor(FakeRouter(SELF))
        self.here = []

    async def counted(self, *routers, **changes):
        """These routers report; `changes` are fields of the last one's."""
        reports = [RouterReport(name, "node", 1, is_ready=True) for name in routers]
        if changes:
            reports[-1] = RouterReport(routers[-1], "node", 1, **changes)
        for report in reports:
            self.actors[report.router].router.report = report
        self.handle.say({report.router: self.actors[report.router] for report in reports})
        for _ in range(40):
            await asyncio.sleep(0)

    async def serve(self, metas, *arguments):
        """What this router serves itself; the refs are the last argument."""
        self.here.append((list(metas), *arguments))
        return [f"{meta.frame_id}@{SELF}" for meta in metas]


def play(scenario, *routers):
    """Run a scenario with a router that has counted these."""

    async def main():
        seen = Seen()
        seen.peers.start()
        if routers:
            await seen.counted(*routers)
        await asyncio.wait_for(scenario(seen), PATIENCE_S)
        for task in seen.peers._watch._tasks:
            task.cancel()
        await asyncio.gather(*seen.peers._watch._tasks, return_exceptions=True)

    asyncio.run(main())


def test_frames_of_own_cameras_are_served_here():
    """One call, with the very lists that came."""
    mine = [sample_meta("1", camera=camera_of(SELF)), sample_meta("2", camera=camera_of(SELF))]

    async def scenario(seen):
        assert await seen.peers.spread("serve_here", mine, ["x", "y"], seen.serve) == ["1@router-a", "2@router-a"]
        assert seen.here == [(mine, ["x", "y"])]
        assert [router.calls for router in seen.others.values()] == [[], []]

    play(scenario, *ROUTERS)


def test_frames_of_several_cameras_go_to_their_owners_and_come_back_in_order():
    """Each with its own ref, in one call an owner, at the method that does not pass them on."""
    cameras = [camera_of(name) for name in (OTHER, SELF, THIRD, OTHER)]
    metas = [sample_meta(str(number), camera=camera) for number, camera in enumerate(cameras)]

    async def scenario(seen):
        answers = await seen.peers.spread("tickets_here", metas, list("wxyz"), seen.serve, "callback")
        assert answers == ["0@router-b", "1@router-a", "2@router-c", "3@router-b"]
        assert seen.others[OTHER].calls == [("tickets_here", ["0", "3"], ["w", "z"], "callback")]
        assert seen.others[THIRD].calls == [("tickets_here", ["2"], ["y"], "callback")]
        assert seen.here == [([metas[1]], "callback", ["x"])]

    play(scenario, *ROUTERS)


def test_what_belongs_to_a_dead_router_is_served_here_as_a_second_try():
    """The same id, less time; and the dead one owns nothing until it reports again."""
    meta = sample_meta("1", camera=camera_of(OTHER), slo_s=5.0)

    async def scenario(seen):
        seen.others[OTHER].error = ActorDiedError()
        assert await seen.peers.spread("serve_here", [meta], ["x"], seen.serve) == ["1@router-a"]
        (((again,), refs),) = seen.here
        assert (again.frame_id, again.attempt, refs) == ("1", 1, ["x"])
        assert 4.0 < again.slo_s <= 5.0
        assert {door.router for door in seen.peers.doors().doors} == {SELF, THIRD}

        seen.others[OTHER].error = None
        await seen.peers.spread("serve_here", [meta], ["x"], seen.serve)
        assert seen.others[OTHER].calls == []
        await seen.counted(*ROUTERS)
        assert await seen.peers.spread("serve_here", [meta], ["x"], seen.serve) == ["1@router-b"]

    play(scenario, *ROUTERS)


def test_what_an_owner_raises_reaches_the_caller():
    """It is alive, and has said no."""

    async def scenario(seen):
        seen.others[OTHER].error = InvalidFrameError("frame: no")
        with pytest.raises(InvalidFrameError, match="frame: no"):
            await seen.peers.spread("serve_here", [sample_meta("1", camera=camera_of(OTHER))], ["x"], seen.serve)
        assert seen.here == []

    play(scenario, *ROUTERS)


def test_a_router_that_owns_nothing_passes_everything_on():
    """One of an older revision; its own cameras too."""
    metas = [sample_meta("1", camera=camera_of(SELF)), sample_meta("2", camera=camera_of(OTHER))]

    async def scenario(seen):
        await seen.counted(SELF, OTHER, revision=1, is_ready=True)
        answers = await seen.peers.spread("serve_here", metas, ["x", "y"], seen.serve)
        assert answers == ["1@router-b", "2@router-b"]
        assert {(door.router, door.owns) for door in seen.peers.doors().doors} == {(SELF, False), (OTHER, True)}

    play(scenario)


def test_a_camera_of_no_name_belongs_to_somebody():
    """Its owner refuses it."""
    metas = [sample_meta("1", camera=None), sample_meta("2", camera=["gate"]), sample_meta("3", camera="\ud800")]

    async def scenario(seen):
        answers = await seen.peers.spread("serve_here", metas, list("xyz"), seen.serve)
        assert [answer.partition("@")[0] for answer in answers] == ["1", "2", "3"]

    play(scenario, *ROUTERS)


@pytest.mark.parametrize("num_refs", [0, 1, 3])
def test_there_is_one_ref_for_each_frame(num_refs):
    """Else a frame would get another one's pixels."""

    async def scenario(seen):
        with pytest.raises(InvalidFrameError, match=f"got 2 metadata and {num_refs} refs"):
            await seen.peers.spread("serve_here", [sample_meta("1"), sample_meta("2")], ["x"] * num_refs, seen.serve)

    play(scenario, *ROUTERS)


def test_the_first_frames_wait_until_the_routers_have_been_counted():
    """But not for long: a router that nobody answers serves what comes."""
    meta = sample_meta("1", camera=camera_of(OTHER))

    async def scenario(seen):
        first = asyncio.create_task(seen.peers.spread("serve_here", [meta], ["x"], seen.serve))
        await asyncio.sleep(0)
        await seen.counted(*ROUTERS)
        assert await first == ["1@router-b"]

    play(scenario)


def test_a_router_that_cannot_count_the_others_serves_all(monkeypatch):
    """A call is not kept waiting for reports that do not come."""
    monkeypatch.setattr(peer_routers, "FIRST_COUNT_S", 0.01)

    async def scenario(seen):
        meta = sample_meta("1", camera=camera_of(OTHER))
        assert await seen.peers.spread("serve_here", [meta], ["x"], seen.serve) == ["1@router-a"]

    play(scenario)


def test_another_routers_ticket_is_found():
    """Those that do not know it say so, the dead say nothing, and the one that knows it answers."""

    async def scenario(seen):
        seen.others[OTHER].error = TicketUnknownError("ticket: unknown")
        assert await seen.peers.ticket_result("t", 2.0) == "result of t by router-c"
        assert seen.others[THIRD].calls == [("ticket_result_here", "t", 2.0)]
        seen.others[THIRD].error = TicketExpiredError("ticket t: kept no more")
        with pytest.raises(TicketExpiredError, match="kept no more"):
            await seen.peers.ticket_result("t", 2.0)
        seen.others[THIRD].error = ActorDiedError()
        with pytest.raises(TicketUnknownError, match="no router has given out"):
            await seen.peers.ticket_result("t", 2.0)

    play(scenario, *ROUTERS)


def test_the_results_of_a_camera_come_from_its_owner():
    """Also when that is this one, or when it has just died."""

    async def here(_camera, cursor, _wait_s):
        return ResultsPage((), cursor + 10, 0, 0)

    async def scenario(seen):
        theirs, mine = camera_of(OTHER), camera_of(SELF)
        assert (await seen.peers.ticket_results(theirs, 5, 0.0, here)).cursor == 6
        assert (await seen.peers.ticket_results(mine, 5, 0.0, here)).cursor == 15

    play(scenario, *ROUTERS)


def test_silent_and_broken_routers_are_left_out_of_what_all_say(monkeypatch):
    """A status is for looking: it does not fail because a router does."""
    monkeypatch.setattr(peer_routers, "ASK_TIMEOUT_S", 0.01)

    async def scenario(seen):
        assert await seen.peers.ask_others("status_here") == [OTHER, THIRD]
        seen.others[OTHER].gate = asyncio.Event()
        assert await seen.peers.ask_others("status_here") == [THIRD]
        seen.others[THIRD].error = ActorDiedError()
        assert await seen.peers.ask_others("status_here") == []

    play(scenario, *ROUTERS)
