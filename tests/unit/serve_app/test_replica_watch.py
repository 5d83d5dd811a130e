"""Counting replicas by asking them: who is ready, by which line, and who has gone. Starts no Ray."""

from __future__ import annotations

import asyncio
import logging

import pytest
import ray
from ray.exceptions import RayActorError
from router_world import PATIENCE_S, Clock, FakePool, Silent, report

from serve_app import replica_watch
from serve_app.direct_calls import ReplicaLine
from serve_app.replica_watch import ReplicaWatch

pytestmark = pytest.mark.usefixtures("driven_by_hand")


class Watched:
    """A watch over two fake pools, and what it told."""

    def __init__(self):
        self.pools = {"near": FakePool(), "far": FakePool()}
        self.told: list[tuple[str, list[str]]] = []
        self.watch = ReplicaWatch(self.pools, self._tell)

    def _tell(self, pool, reports):
        self.told.append((pool, [each.replica for each in reports]))

    async def round(self, answers, pool="near") -> list[str]:
        """One round of reports of a pool; who is ready after it."""
        self.pools[pool].say(answers)
        await self.settle()
        return self.names(pool)

    async def settle(self) -> None:
        """Let the watchers run until they wait for reports."""
        for _ in range(20):
            await asyncio.sleep(0)

    def names(self, pool="near") -> list[str]:
        """Who is ready."""
        return [each.replica for each in self.watch.reports(pool)]


def play(scenario) -> None:
    """Run a scenario with a watch that has begun, and end its watchers, which must all still be there."""

    async def main():
        watched = Watched()
        watched.watch.start()
        await asyncio.wait_for(scenario(watched), PATIENCE_S)
        watchers = watched.watch._tasks
        assert [task.done() for task in watchers] == [False, False], "a watcher has died"
        for task in watchers:
            task.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    asyncio.run(main())


def test_replicas_that_report_are_ready_by_name():
    """In alphabetical order, told every round, each pool for itself."""

    async def scenario(watched):
        assert await watched.round([report("b"), report("a")]) == ["a", "b"]
        assert await watched.round([report("c")], "far") == ["c"]
        assert await watched.round([report("a")]) == ["a"]
        assert watched.told == [("near", ["a", "b"]), ("far", ["c"]), ("near", ["a"])]

    play(scenario)


def test_starting_again_begins_nothing_new():
    """The router starts it with every call."""

    async def scenario(watched):
        before = list(watched.watch._tasks)
        watched.watch.start()
        assert watched.watch._tasks == before

    play(scenario)


def test_a_line_is_kept_as_long_as_its_replica_reports():
    """Each report brings the actor's handle anew; the open line, with its pickled metadata, goes on."""

    async def scenario(watched):
        await watched.round([report("a"), report("b")])
        line_a, line_b = (watched.watch.line("near", name) for name in "ab")
        assert isinstance(line_a, ReplicaLine)
        assert line_a is not line_b
        await watched.round([report("a"), report("b")])
        assert watched.watch.line("near", "a") is line_a
        await watched.round([report("b")])
        assert watched.watch.line("near", "a") is None
        assert watched.watch.line("near", "b") is line_b
        assert watched.watch.line("far", "b") is None

    play(scenario)


def test_a_line_leads_to_its_replica():
    """Not to any other of the pool."""

    async def scenario(watched):
        await watched.round([report("a"), report("b")])
        caller = asyncio.create_task(watched.watch.line("near", "b").call("infer", "request", refs=[]))
        call = await watched.pools["near"].next_call()
        assert (call.replica, call.request) == ("b", "request")
        call.response.set_result("reply")
        assert await caller == "reply"

    play(scenario)


def test_a_dead_replica_counts_no_more_until_it_reports_again():
    """It is told at once; the others stay."""

    async def scenario(watched):
        await watched.round([report("a"), report("b")])
        watched.watch.died("near", "a")
        assert (watched.names(), watched.told[-1]) == (["b"], ("near", ["b"]))
        watched.watch.died("near", "never seen")
        assert watched.names() == ["b"]
        assert await watched.round([report("a"), report("b")]) == ["a", "b"]

    play(scenario)


@pytest.mark.parametrize(
    "answers",
    [[RayActorError(), report("b")], [None, report("b")], ["odd", report("b")]],
    ids=["dead", "none", "odd"],
)
def test_answers_that_are_no_reports_count_for_nothing(answers):
    """Broadcasts bring errors as values."""

    async def scenario(watched):
        assert await watched.round(answers) == ["b"]

    play(scenario)


def test_a_silent_replica_holds_up_nobody_and_counts_no_more_after_a_while(monkeypatch, caplog):
    """The others are counted every round; it keeps its place for `REPORT_TIMEOUT_S` of silence, then loses it."""
    clock = Clock()
    monkeypatch.setattr(replica_watch, "time", clock)
    monkeypatch.setattr(replica_watch, "ROUND_S", 0.01)

    async def scenario(watched):
        async def later(answers):
            watched.pools["near"].say(answers)
            await asyncio.sleep(0.05)
            return watched.names(), [each.replica for each in watched.watch.fresh("near")]

        await watched.round([report("a"), report("b")])
        line = watched.watch.line("near", "a")
        # The fake's names are those of the reports; a silent one is told by the name that it had.
        silent = Silent("a")
        assert await later([silent, report("b")]) == (["a", "b"], ["b"])
        clock.pass_s(replica_watch.REPORT_TIMEOUT_S - 0.001)
        assert await later([silent, report("b"), report("new")]) == (["a", "b", "new"], ["b", "new"])
        assert watched.watch.line("near", "a") is line
        clock.pass_s(0.001)
        assert await later([silent, report("b")]) == (["b"], ["b"])
        assert watched.watch.line("near", "a") is None
        assert watched.pools["near"].num_questions["a"] == 2, "a question that is out is not asked again"
        watched.pools["near"].wake("a", report("a"))
        assert await later([report("a"), report("b")]) == (["a", "b"], ["a", "b"])

    with caplog.at_level(logging.WARNING):
        play(scenario)
    assert caplog.messages == ["pool near: a is silent for 5 s"]


def test_replicas_that_serve_has_stopped_are_not_asked_any_more():
    """A question that is still out is given up."""

    async def scenario(watched):
        watched.pools["near"].say([Silent("a")])
        await asyncio.sleep(0.05)
        assert await watched.round([report("b")]) == ["b"]
        assert watched.pools["near"].questions["a"].cancelled()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica_watch, "ROUND_S", 0.01)
        patch.setattr(ray, "cancel", lambda _, **__: None)
        play(scenario)


def test_that_serve_cannot_name_replicas_changes_nothing(caplog):
    """Its controller may be away for a moment: those that were counted go on."""

    async def scenario(watched):
        await watched.round([report("a")])
        assert await watched.round(RuntimeError("away")) == ["a"]

    with caplog.at_level(logging.WARNING):
        play(scenario)
    assert caplog.messages == ["pool near: Serve does not name its replicas (away)"]


def test_only_losing_the_replicas_there_were_is_news(caplog):
    """Before the first one is up there is none."""

    async def scenario(watched):
        assert await watched.round([]) == []
        assert await watched.round([report("a")]) == ["a"]
        assert await watched.round([]) == []
        assert await watched.round([]) == []

    with caplog.at_level(logging.WARNING):
        play(scenario)
    assert caplog.messages == ["pool near: no replica is left"]


def test_who_waits_for_the_first_count_waits_for_every_pool():
    """And once counted, never again."""

    async def scenario(watched):
        waiting = asyncio.create_task(watched.watch.counted())
        await watched.round([report("a")])
        assert not waiting.done()
        await watched.round([], "far")
        await waiting
        await watched.watch.counted()

    play(scenario)


def test_a_pool_that_never_answers_does_not_hold_up_the_count_for_ever(monkeypatch):
    """After the time of one round what is known is told."""
    monkeypatch.setattr(replica_watch, "REPORT_TIMEOUT_S", 0.01)

    async def scenario(watched):
        await watched.watch.counted()
        assert watched.told == []

    play(scenario)
