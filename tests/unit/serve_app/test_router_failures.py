"""Replicas that hang, come back, are slow or are stopped, as the router sees them. Starts no Ray."""

from __future__ import annotations

import asyncio
import re

import pytest
from ray.exceptions import RayActorError
from router_world import PATIENCE_S, WIDE_HW, Clock, Silent, brief, found, play, report, tile_plan, with_replica
from serve_samples import VGA, sample_meta, sample_plan

from engines.spec import WarmShape
from serve_app import slow_probes
from serve_app.errors import FrameFailedError, FrameLostError, ReplicaLeavingError
from serve_app.overdue import LATE_GRACE_S, OVERDUE_FLOOR_S, STALL_S
from serve_app.slow_probes import PROBE_INTERVAL_S, REPLACE_AFTER_S

# Far from the seams of tiles, where boxes of two tiles become one.
INSIDE_XYXY = (200, 200, 240, 240)

pytestmark = pytest.mark.usefixtures("driven_by_hand")


async def overdue(world, clock) -> None:
    """Let so much time pass that what runs is overdue, and the router notice it."""
    clock.pass_s(OVERDUE_FLOOR_S + 0.1)
    world.router._pump()
    clock.pass_s(STALL_S)
    world.router._pump()
    await world.settle()


@pytest.mark.parametrize("first", ["late", "second"])
def test_a_frame_of_a_hung_replica_is_answered_by_another_and_once(first, clock):
    """Whoever answers first; the other answer is dropped, and the counts are right (`World.close` looks)."""

    async def scenario(world):
        await with_replica(world, 2)
        caller = world.submit(sample_meta("a"))
        late = await world.near.next_call()
        await overdue(world, clock)
        second = await world.near.next_call()
        assert second.replica != late.replica
        unhealthy = (await world.router.status()).pools[0].unhealthy
        assert list(unhealthy) == [late.replica]
        assert "silent: a batch is overdue" in unhealthy[late.replica]
        answers = {"late": (late, 0.1), "second": (second, 0.2)}
        call, score = answers.pop(first)
        call.answer(found(score))
        assert brief(await caller) == [("a", "finished", score)]
        ((call, score),) = answers.values()
        call.answer(found(score))
        await world.settle()
        assert (await world.router.status()).outcomes == {"finished": 1}
        assert (await world.router.status()).pools[0].unhealthy == {}

    play(scenario, sample_plan())


def test_a_timer_finds_out_that_a_replica_hangs():
    """Nothing else happens: no frame comes, no report."""

    async def scenario(world):
        await with_replica(world, 2)
        caller = world.submit(sample_meta("a"))
        late = await world.near.next_call()
        second = await asyncio.wait_for(world.near.next_call(), PATIENCE_S)
        second.answer(found(0.2))
        assert brief(await caller) == [("a", "finished", 0.2)]
        late.fail(RayActorError())

    play(scenario, sample_plan())


def test_nobody_waits_for_ever_for_a_lone_hung_replica(clock):
    """The frame fails soon after its deadline, and says why; the late answer finds nobody."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("a", slo_s=0.5))
        late = await world.near.next_call()
        await overdue(world, clock)
        assert not caller.done()
        clock.pass_s(LATE_GRACE_S)
        world.router._pump()
        (result,) = await caller
        assert isinstance(result.error, FrameFailedError)
        assert str(result.error) == (
            "frame: its replica has not answered, and no time or attempt was left for another one"
        )
        late.answer(found(0.1))
        await world.settle()

    play(scenario, sample_plan())


def test_a_late_answer_without_the_pixels_leaves_the_frame_to_the_other_replica(clock):
    """An error of the late copy is not the frame's end."""

    async def scenario(world):
        await with_replica(world, 2)
        caller = world.submit(sample_meta("a"))
        late = await world.near.next_call()
        await overdue(world, clock)
        second = await world.near.next_call()
        late.answer(FrameLostError("gone"))
        await world.settle()
        assert not caller.done()
        second.answer(found(0.2))
        assert brief(await caller) == [("a", "finished", 0.2)]

    play(scenario, sample_plan())


def test_a_late_failure_of_a_frame_without_another_chance_is_its_end(clock):
    """Its only attempt has failed, if late: the caller gets the reason."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("a", slo_s=0.5))
        late = await world.near.next_call()
        await overdue(world, clock)
        late.answer(FrameLostError("gone"))
        (result,) = await caller
        assert brief([result]) == [("a", "failed", None)]
        assert str(result.error) == "gone"

    play(scenario, sample_plan())


def test_a_tile_that_was_answered_late_is_not_spoilt_by_the_second_copy(clock):
    """The first answer of each piece counts, also where the second says that it failed."""

    async def scenario(world):
        await with_replica(world, 2)
        caller = world.submit(sample_meta("w", size_hw=WIDE_HW))
        held = []
        for _ in range(4):  # tiles of one batch each: those of the second replica are answered as they come
            call = await world.near.next_call()
            if call.replica == "near-0":
                held.append(call)
            else:
                call.answer(found(0.3))
                await world.settle()
        await overdue(world, clock)
        copies = [await world.near.next_call() for _ in held]
        assert len(held) == 2
        assert {call.replica for call in copies} == {"near-1"}
        windows = [copy.request.windows for copy in copies]
        held[0].answer(found(0.8, INSIDE_XYXY))
        await world.settle()
        copies[windows.index(held[0].request.windows)].answer(FrameLostError("gone"))
        await world.settle()
        assert not caller.done()
        copies[windows.index(held[1].request.windows)].answer(found(0.5))
        assert brief(await caller) == [("w", "finished", 0.8)]
        held[1].answer(found(0.9))

    play(scenario, tile_plan())


def test_a_report_that_the_engine_is_not_stuck_clears_a_suspect(clock):
    """A batch that hangs at its pixels must not cost the whole replica; one that runs too long does."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("a"))
        late = await world.near.next_call()
        await overdue(world, clock)
        world.near.say([report("near-0", busy_s=OVERDUE_FLOOR_S)])
        await world.settle()
        assert world.near.num_calls == 1
        world.near.say([report("near-0", busy_s=0.1)])
        second = await world.near.next_call()
        second.answer(found(0.2))
        assert brief(await caller) == [("a", "finished", 0.2)]
        late.answer(found(0.1))

    play(scenario, sample_plan())


def test_an_old_report_of_a_silent_replica_clears_nothing(clock, monkeypatch):
    """It is counted for a while yet, but what it said before is no sign of life."""
    monkeypatch.setattr("serve_app.replica_watch.ROUND_S", 0.01)

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("a"))
        late = await world.near.next_call()
        await overdue(world, clock)
        world.near.say([Silent("near-0")])
        await asyncio.sleep(0.05)
        assert [each.replica for each in (await world.router.status()).pools[0].replicas] == ["near-0"]
        assert world.near.num_calls == 1
        late.answer(found(0.1))
        assert brief(await caller) == [("a", "finished", 0.1)]
        world.near.wake("near-0", report("near-0"))

    play(scenario, sample_plan())


def test_a_batch_that_a_leaving_replica_refuses_costs_no_attempt():
    """Twice refused, then lost with a replica that dies: it is tried once more all the same."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("a"))
        for number, error in enumerate((ReplicaLeavingError("x"), ReplicaLeavingError("x"), RayActorError()), 1):
            (await world.near.next_call()).fail(error)
            world.near.say([report(f"near-{number}")])
        call = await world.near.next_call()
        assert call.replica == "near-3"
        call.answer(found(0.1))
        assert brief(await caller) == [("a", "finished", 0.1)]

    play(scenario, sample_plan())


async def made_slow(world) -> None:
    """Let `near-0` of two replicas answer ten times slower than predicted."""
    await with_replica(world, 2)
    number = 0
    while not world.router._scheduler.slow_replicas("near"):
        callers = [world.submit(sample_meta(f"{number}{side}")) for side in "ab"]
        for _ in range(2):
            call = await world.near.next_call()
            call.answer(found(0.1), infer_s=0.03 if call.replica == "near-0" else 0.003)
            await world.settle()
        await asyncio.gather(*callers)
        number += 1


@pytest.mark.usefixtures("clock")
def test_a_slow_replica_is_set_aside_probed_and_comes_back(monkeypatch):
    """No frame goes there meanwhile; the status says why."""
    own_clock = Clock()
    monkeypatch.setattr(slow_probes, "time", own_clock)

    async def scenario(world):
        await made_slow(world)
        reason = (await world.router.status()).pools[0].unhealthy["near-0"]
        assert re.match(r"slow: (9|10)\.\d times", reason)
        world.near.answers["probe"] = ("vga", WarmShape(VGA, 1), 0.0031)
        while world.router._scheduler.slow_replicas("near"):
            caller = world.submit(sample_meta("x"))
            call = await world.near.next_call()
            assert call.replica == "near-1"
            call.answer(found(0.1), infer_s=0.003)
            await caller
            world.near.has_replicas(2)
            await world.settle()
            own_clock.pass_s(PROBE_INTERVAL_S)
        assert world.near.asked_for == [("near-0", "probe")] * 3
        assert (await world.router.status()).pools[0].unhealthy == {}

    play(scenario, sample_plan())


@pytest.mark.usefixtures("clock")
def test_a_replica_that_stays_slow_is_told_to_end_and_not_every_minute(monkeypatch):
    """Its successor on the same machine may be as slow: replacing it over and over costs more than it brings."""
    own_clock = Clock()
    monkeypatch.setattr(slow_probes, "time", own_clock)

    async def scenario(world):
        await made_slow(world)
        world.near.answers |= {"probe": ("vga", WarmShape(VGA, 1), 0.03), "retire": None}
        for _ in range(int(3 * REPLACE_AFTER_S / PROBE_INTERVAL_S)):
            world.near.has_replicas(2)
            await world.settle()
            own_clock.pass_s(PROBE_INTERVAL_S)
        asked = [method for _, method in world.near.asked_for]
        assert asked.count("retire") == 1
        assert asked.index("retire") == pytest.approx(REPLACE_AFTER_S / PROBE_INTERVAL_S, abs=2)

    play(scenario, sample_plan())
