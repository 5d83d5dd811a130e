"""Two real routers of two revisions among fakes: the old one's frames go to the new one, every caller hears once."""

from __future__ import annotations

import asyncio

import pytest
from ray.exceptions import ActorDiedError
from router_world import PATIENCE_S, FakePool, Ref, brief, found, quick_table, report
from serve_samples import sample_meta, sample_plan

from serve_app import direct_calls, handover, router
from serve_app.errors import TicketUnknownError
from serve_app.replica_watch import REPORT_TIMEOUT_S
from serve_app.router import Router

pytestmark = pytest.mark.usefixtures("driven_by_hand")

OLD, NEW = 1, 2


class Actor:
    """A router's actor: runs what it is called with, in this loop, as Serve would; or is dead."""

    def __init__(self, target):
        self.handle_request = self
        self.target = target
        self.is_dead = False
        self.methods = []

    def remote(self, _metadata, packed, refs):
        """One call."""
        if self.is_dead:
            raise ActorDiedError
        method, _ = direct_calls.pickle.loads(packed)
        self.methods.append(method)
        return asyncio.ensure_future(self.target.call_directly(packed, refs))


class Announced:
    """What the new router sees of its deployment: the routers that Serve announces."""

    def __init__(self, *routers):
        self.routers = list(routers)
        self.num_silent = 0
        self._called = None

    def broadcast(self, method, *arguments):
        """Call all."""
        self._called = method, arguments
        return self

    async def results_async(self, *, timeout_s, return_exceptions):
        """Their answers; or none in time."""
        assert timeout_s > 0
        assert return_exceptions
        if self.num_silent:
            self.num_silent -= 1
            raise TimeoutError
        if not self.routers:
            raise RuntimeError("no replica is announced")
        method, arguments = self._called
        return [await getattr(each, method)(*arguments) for each in self.routers]


class Pair:
    """An old router with one replica, and a new one that has none yet."""

    def __init__(self):
        plan = sample_plan()
        self.pools = {name: {pool.name: FakePool() for pool in plan.pools} for name in ("old", "new")}
        self.announced = Announced()
        self.old = Router(plan, self.pools["old"], None, quick_table(), revision=OLD, routers=lambda: self.announced)
        self.new = Router(plan, self.pools["new"], None, quick_table(), revision=NEW, routers=lambda: self.announced)
        self.announced.routers = [self.old]
        self.actors = {each: Actor(each) for each in (self.old, self.new)}

    async def has_replica(self, which, num_replicas=1, *, revision, pools=("near", "far")):
        """So many replicas of a revision report in a router's pools."""
        for name in pools:
            reports = [report(f"{name}-{revision}-{number}") for number in range(num_replicas)]
            self.pools[which][name].say([_of_revision(each, revision) for each in reports])
        await settle()

    async def take_over(self):
        """The new router becomes ready and takes the old one's frames."""
        health = asyncio.ensure_future(self.new.check_health())
        await settle()
        await self.has_replica("new", revision=NEW)
        await asyncio.wait_for(health, PATIENCE_S)
        await settle()


def _of_revision(each, revision):
    return direct_calls.pickle.loads(direct_calls.pickle.dumps(each)).__class__(
        **{name: getattr(each, name) for name in each.__slots__} | {"revision": revision}
    )


async def settle():
    """Let everything run that can."""
    for _ in range(60):
        await asyncio.sleep(0)


@pytest.fixture
def play(monkeypatch):
    """Runs a scenario with a pair; each router knows its own actor."""
    monkeypatch.setattr(router, "SETTLED_INTERVAL_S", 0.0)
    monkeypatch.setattr(handover, "READY_INTERVAL_S", 0.0)
    current = {}
    monkeypatch.setattr(handover, "own_actor", lambda: current["pair"].actors[current["pair"].new])
    monkeypatch.setattr(router, "own_actor", lambda: current["pair"].actors[current["pair"].old])

    def run(scenario):
        async def main():
            pair = current["pair"] = Pair()
            pair.old._replicas.start()
            await pair.has_replica("old", revision=OLD)
            try:
                await asyncio.wait_for(scenario(pair), PATIENCE_S)
            finally:
                tasks = [*pair.old._replicas._tasks, *pair.new._replicas._tasks]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await settle()
            assert len(pair.old._book) == 0
            assert len(pair.new._book) == 0
            assert pair.old._tasks == set(), "the old router has not ended"

        asyncio.run(main())

    return run


def submit(to, *names, **changes):
    """Callers, one a frame."""
    return [
        asyncio.ensure_future(to.submit_many([sample_meta(name, slo_s=60.0, **changes)], [Ref()])) for name in names
    ]


def test_what_waits_goes_over_what_runs_stays_and_each_caller_is_answered_once(play):
    """The old router had two batches at its replica and three more frames in its lanes."""

    async def scenario(pair):
        callers = submit(pair.old, "a")
        running = [await pair.pools["old"]["near"].next_call()]
        callers += submit(pair.old, "b")
        await settle()
        waiting = submit(pair.old, "w", "x", "y", size_hw=(736, 1280))
        await settle()
        while not pair.pools["old"]["near"].calls.empty():
            running.append(pair.pools["old"]["near"].calls.get_nowait())
        num_before = sum(len(call.refs) for call in running)
        assert num_before < 5, "nothing waits: the test shows nothing"

        await pair.take_over()
        sent = await pair.pools["new"]["near"].next_call()
        num_over = 0
        while True:
            num_over += len(sent.refs)
            sent.answer(*[found(0.9)] * len(sent.refs))
            await settle()
            if pair.pools["new"]["near"].calls.empty():
                break
            sent = pair.pools["new"]["near"].calls.get_nowait()
        for call in running:
            call.answer(*[found(0.1)] * len(call.refs))
        results = [(await caller)[0] for caller in callers + waiting]

        assert num_before + num_over == 5
        assert {each.outcome.value for each in results} == {"finished"}
        by_new = [each.frame_id for each in results if each.revision == NEW]
        assert len(by_new) == num_over
        assert sorted(brief(results)) == sorted(
            (each.frame_id, "finished", 0.9 if each.frame_id in by_new else 0.1) for each in results
        )
        assert pair.old._handover.num_frames == num_over
        assert pair.new._book.outcomes.total() + pair.old._book.outcomes.total() == 5

    play(scenario)


def test_what_comes_late_is_forwarded_and_says_who_answered(play):
    """A client that does not know of the update yet learns of it by the answer."""

    async def scenario(pair):
        await pair.take_over()
        (caller,) = submit(pair.old, "late")
        (await pair.pools["new"]["near"].next_call()).answer(found(0.5))
        (result,) = await caller

        assert (result.outcome.value, result.revision) == ("finished", NEW)
        assert pair.pools["old"]["near"].num_calls == 0

    play(scenario)


def test_a_frame_goes_over_with_the_time_that_it_has_left(play):
    """Never with its deadline anew: the new router's clock has nothing to do with the old one's."""

    async def scenario(pair):
        pair.pools["old"]["near"].say([])
        await settle()
        (caller,) = submit(pair.old, "a")
        await settle()
        entry = pair.old._book.entry("a")
        left_s = entry.frame.deadline_s - asyncio.get_running_loop().time()
        await pair.take_over()
        arrived = pair.new._book.entry("a").frame

        assert 0 < arrived.deadline_s - arrived.arrived_s <= left_s
        (await pair.pools["new"]["near"].next_call()).answer(found(0.5))
        await caller

    play(scenario)


def test_the_new_router_waits_until_it_has_as_many_replicas_as_the_old_one(play):
    """Else it would take a load that it cannot bear; and a pool without any would lose its frames."""

    async def scenario(pair):
        health = asyncio.ensure_future(pair.new.check_health())
        await settle()
        near = [_of_revision(report("near-new"), NEW), *(_of_revision(report(f"near-old-{n}"), OLD) for n in (1, 2))]
        pair.pools["new"]["near"].say(near)
        await pair.has_replica("new", revision=NEW, pools=["far"])
        assert not health.done()
        assert [each.replica for each in pair.new._replicas.reports("near")] == ["near-new"], "took an old replica"

        await pair.has_replica("new", revision=NEW, pools=["near"])
        await asyncio.wait_for(health, PATIENCE_S)
        assert pair.old._handover.has_begun

    play(scenario)


def test_a_first_router_is_ready_at_once(play):
    """Nobody is there to hand over; frames may wait for the replicas."""

    async def scenario(pair):
        pair.announced.routers = []
        await asyncio.wait_for(pair.new.check_health(), PATIENCE_S)

    play(scenario)


def test_routers_of_the_same_or_a_newer_revision_hand_nothing_over(play):
    """Not to each other; and not backwards, when one of an old revision starts late."""

    async def scenario(pair):
        pair.announced.routers = [pair.new]
        await asyncio.wait_for(pair.old.check_health(), PATIENCE_S)
        await pair.new.hand_over(OLD, pair.actors[pair.old])
        await pair.new.hand_over(NEW, pair.actors[pair.old])

        assert not pair.new._handover.has_begun

    play(scenario)


def test_an_old_router_that_is_silent_for_a_while_is_asked_again(play):
    """Its frames are not given up for one slow answer."""

    async def scenario(pair):
        pair.announced.num_silent = 3
        await pair.take_over()
        assert pair.old._handover.has_begun

    play(scenario)


def test_frames_come_back_when_the_new_router_dies(play):
    """They are served by the old replicas, which wait for that; their callers notice nothing."""

    async def scenario(pair):
        await pair.take_over()
        pair.actors[pair.new].is_dead = True
        callers = submit(pair.old, "a", "b")
        await settle()
        for _ in range(2):
            if all(caller.done() for caller in callers):
                break
            call = await pair.pools["old"]["near"].next_call()
            call.answer(*[found(0.3)] * len(call.refs))
            await settle()
        results = [(await caller)[0] for caller in callers]

        assert sorted(brief(results)) == [("a", "finished", 0.3), ("b", "finished", 0.3)]
        assert not pair.old._handover.has_begun

    play(scenario)


class Callback:
    """Notes what it was called with."""

    results: list = []  # noqa: RUF012 (pickled by name: one for all)

    def remote(self, result):
        """One call."""
        Callback.results.append(result.frame_id)
        return settle()


def test_tickets_and_unread_results_go_over(play):
    """One ticket has its result, one was read, one runs, one waits: the new router answers for all but the read one."""

    async def scenario(pair):
        near = pair.pools["old"]["near"]
        for name in ("unread", "read"):
            await pair.old.submit_tickets([sample_meta(name, slo_s=60.0)], None, [Ref()])
            (await near.next_call()).answer(found(0.1))
            await settle()
        assert (await pair.old.ticket_result("read", 0.0)).frame_id == "read"
        await pair.old.submit_tickets([sample_meta("runs", slo_s=60.0)], Callback(), [Ref()])
        runs = await near.next_call()
        near.say([])
        await settle()
        await pair.old.submit_tickets([sample_meta("waits", slo_s=60.0)], Callback(), [Ref()])
        asking = asyncio.ensure_future(pair.old.ticket_result("waits", 15.0))
        await pair.take_over()

        assert (await pair.new.ticket_result("unread", 0.0)).frame_id == "unread"
        assert await pair.new.ticket_result("runs", 0.0) is None
        runs.answer(found(0.2))
        (await pair.pools["new"]["near"].next_call()).answer(found(0.3))
        assert (await asking).frame_id == "waits"
        assert (await pair.new.ticket_result("runs", 5.0)).frame_id == "runs"
        with pytest.raises(TicketUnknownError):
            await pair.new.ticket_result("read", 0.0)
        page = await pair.new.ticket_results("gate-1", 0, 0.0)
        assert [each.frame_id for each in page.results] == ["unread", "waits", "runs"] or [
            each.frame_id for each in page.results
        ] == ["unread", "runs", "waits"]
        # An old client still asks the old router, and gets each result once all the same.
        assert (await pair.old.ticket_result("runs", 0.0)).frame_id == "runs"
        (late,) = await pair.old.submit_tickets([sample_meta("late", slo_s=60.0)], None, [Ref()])
        assert late.ticket_id == "late"
        (await pair.pools["new"]["near"].next_call()).answer(found(0.4))
        await settle()
        assert (await pair.new.ticket_result("late", 5.0)).frame_id == "late"
        assert sorted(Callback.results) == ["runs", "waits"]

    Callback.results.clear()
    play(scenario)


def test_the_old_router_stays_until_nothing_is_left_and_then_lets_its_replicas_go(play, monkeypatch):
    """Serve ends a router without calls under way: so it calls itself until then."""
    left = []
    monkeypatch.setattr(router.ReplicaWatch, "leave", lambda watch: left.append(watch))  # noqa: PLW0108 (a method)

    async def scenario(pair):
        (caller,) = submit(pair.old, "a")
        runs = await pair.pools["old"]["near"].next_call()
        await pair.take_over()
        assert pair.actors[pair.old].methods == ["settled"]
        assert left == []
        runs.answer(found(0.1))
        await caller
        await settle()
        assert left == [pair.old._replicas]

    play(scenario)


def test_a_timeout_of_reports_is_shorter_than_silence():
    """A pool's round of reports must not make an old router look dead."""
    assert handover.ANSWER_TIMEOUT_S * handover.MAX_SILENT_ROUNDS > 2 * REPORT_TIMEOUT_S
