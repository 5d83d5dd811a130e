"""Counting replicas while an update is under way: only the own revision counts, and what Serve stops may stay."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle

import pytest
from ray.exceptions import ActorDiedError
from router_world import PATIENCE_S, FakePool, report

from serve_app.lingering import Lingering
from serve_app.replica_watch import STAY_S, ReplicaWatch

pytestmark = pytest.mark.usefixtures("driven_by_hand")

OWN, NEWER = 1, 2


class StayingActor:
    """A replica that Serve announces no more, and that its router still calls; or that has died."""

    def __init__(self):
        self.handle_request = self
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
        return pickle.dumps(of(OWN, "a"))


def of(revision, name):
    """A report of a revision."""
    return dataclasses.replace(report(name), revision=revision)


def play(scenario):
    """Run a scenario with one pool whose replica `a` was announced once, with an actor of the test."""

    async def main():
        pool, told, actor = FakePool(), [], StayingActor()
        watch = ReplicaWatch(
            {"near": pool}, lambda _, reports: told.append([each.replica for each in reports]), revision=OWN,
            lingering={"near": Lingering(keeps_last=True)},
        )  # fmt: skip
        watch.start()

        async def rounds(*answers):
            pool._answers.put_nowait(list(answers))
            for _ in range(40):
                await asyncio.sleep(0)
            return told[-1]

        assert await rounds((of(OWN, "a"), actor)) == ["a"]
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

    async def scenario(watch, actor, rounds):
        assert await rounds((of(OWN, "a"), actor), (of(NEWER, "b"), actor), (of(NEWER - 2, "c"), actor)) == ["a"]
        assert watch.num_others("near") == 2
        assert watch.line("near", "b") is None

    play(scenario)


def test_the_replaced_replica_is_told_to_stay_and_keeps_its_line():
    """Serve announces the new one only; the old one answers those who call it directly."""

    async def scenario(watch, actor, rounds):
        line = watch.line("near", "a")
        assert await rounds((of(NEWER, "b"), actor)) == ["a"]
        assert await rounds((of(NEWER, "b"), actor)) == ["a"]
        assert watch.line("near", "a") is line
        assert actor.calls == [("stay", (STAY_S,)), ("own_report", ())] * 2

    play(scenario)


def test_a_replaced_replica_that_has_died_counts_no_more():
    """What was to stay may end all the same."""

    async def scenario(_, actor, rounds):
        actor.is_dead = True
        assert await rounds((of(NEWER, "b"), actor)) == []

    play(scenario)


def test_when_the_router_leaves_them_nothing_holds_them():
    """It has handed over; the calls that Serve waits for are cancelled."""

    async def scenario(watch, actor, rounds):
        await rounds((of(NEWER, "b"), actor))
        assert len(watch._stays) == 1
        watch.leave()
        assert await rounds((of(NEWER, "b"), actor)) == []
        assert watch._stays == set()
        assert len(actor.calls) == 2

    play(scenario)


def test_without_an_update_a_replica_that_leaves_is_let_go():
    """Scaling down: another one of the own revision is announced."""

    async def scenario(_, actor, rounds):
        await rounds((of(OWN, "a"), actor), (of(OWN, "b"), actor))
        assert await rounds((of(OWN, "b"), actor)) == ["b"]
        assert actor.calls == []

    play(scenario)
