"""Counting replicas while an update is under way: only the own revision counts, and what Serve stops may stay."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle

import pytest
from ray.exceptions import ActorDiedError
from router_world import PATIENCE_S, report

from serve_app.lingering import Lingering
from serve_app.replica_watch import STAY_S, ReplicaWatch

pytestmark = pytest.mark.usefixtures("driven_by_hand")

OWN, NEWER = 1, 2


class Actor:
    """A replica: reports, stays, or has died."""

    def __init__(self, said):
        self.handle_request = self
        self.said = said
        self.is_dead = False
        self.calls = []

    def remote(self, _metadata, packed, _refs):
        """One call."""
        method, arguments = pickle.loads(packed)  # noqa: S301 (our own)
        self.calls.append((method, arguments))
        return self._answer(method)

    async def _answer(self, method):
        if self.is_dead:
            raise ActorDiedError
        if method == "stay":
            await asyncio.get_running_loop().create_future()
        return pickle.dumps(self.said)


class Named:
    """A deployment of which the test says who runs."""

    def __init__(self):
        self.rounds = asyncio.Queue()

    async def running(self):
        """The next round's."""
        return await self.rounds.get()


def of(revision, name):
    """A report of a revision."""
    return dataclasses.replace(report(name), revision=revision)


def play(scenario):
    """Run a scenario with one pool whose replica `a` was announced once, with an actor of the test."""

    async def main():
        pool, told, actor = Named(), [], Actor(of(OWN, "a"))
        actors = {"a": actor}
        watch = ReplicaWatch(
            {"near": pool}, lambda _, reports: told.append([each.replica for each in reports]), revision=OWN,
            lingering={"near": Lingering(keeps_last=True)},
        )  # fmt: skip
        watch.start()

        async def rounds(*reports):
            for each in reports:
                actors.setdefault(each.replica, Actor(each))
            pool.rounds.put_nowait({each.replica: actors[each.replica] for each in reports})
            for _ in range(40):
                await asyncio.sleep(0)
            return told[-1]

        assert await rounds(of(OWN, "a")) == ["a"]
        await asyncio.wait_for(scenario(watch, actor, rounds), PATIENCE_S)
        watch.leave()
        for task in watch._tasks:
            task.cancel()
        await asyncio.gather(*watch._tasks, return_exceptions=True)
        for _ in range(10):
            await asyncio.sleep(0)
        assert watch._stays == set()

    asyncio.run(main())


def test_replicas_of_other_revisions_do_not_count_but_are_known():
    """They have loaded other models; the new router compares how many there are of each."""

    async def scenario(watch, _, rounds):
        assert await rounds(of(OWN, "a"), of(NEWER, "b"), of(NEWER - 2, "c")) == ["a"]
        assert watch.num_others("near") == 2
        assert watch.line("near", "b") is None

    play(scenario)


def test_the_replaced_replica_is_told_to_stay_and_keeps_its_line():
    """Serve announces the new one only; the old one answers those who call it directly."""

    async def scenario(watch, actor, rounds):
        line = watch.line("near", "a")
        assert await rounds(of(NEWER, "b")) == ["a"]
        assert await rounds(of(NEWER, "b")) == ["a"]
        assert watch.line("near", "a") is line
        assert [call for call in actor.calls if call[0] == "stay"] == [("stay", (STAY_S,))] * 2

    play(scenario)


def test_a_replaced_replica_that_has_died_counts_no_more():
    """What was to stay may end all the same."""

    async def scenario(_, actor, rounds):
        actor.is_dead = True
        assert await rounds(of(NEWER, "b")) == []

    play(scenario)


def test_when_the_router_leaves_them_nothing_holds_them():
    """It has handed over; the calls that Serve waits for are cancelled."""

    async def scenario(watch, actor, rounds):
        await rounds(of(NEWER, "b"))
        assert len(watch._stays) == 1
        watch.leave()
        assert await rounds(of(NEWER, "b")) == []
        assert watch._stays == set()
        assert [method for method, _ in actor.calls].count("stay") == 1

    play(scenario)


def test_without_an_update_a_replica_that_leaves_is_let_go():
    """Scaling down: another one of the own revision is announced."""

    async def scenario(_, actor, rounds):
        await rounds(of(OWN, "a"), of(OWN, "b"))
        assert await rounds(of(OWN, "b")) == ["b"]
        assert "stay" not in [method for method, _ in actor.calls]

    play(scenario)
