"""Memory pressure as callers see it: levels climb and come back on what replicas report, and nobody is restarted."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from router_world import DEVICE_FACTS, brief, found, play, report
from serve_samples import HD, VGA, ladder_plan, sample_meta, sample_plan

from serve_app.errors import FrameFailedError, FrameRejectedError
from serve_app.memory_level import MemoryLevel, MemoryMarks
from serve_app.verdicts import Outcome

pytestmark = pytest.mark.usefixtures("driven_by_hand")

NORMAL, HIGH, CRITICAL, SHED = MemoryLevel
MARKS = MemoryMarks(0.8, 0.9, 0.95, calm_s=5.0)
BROKEN = (("vga", "no memory"),)


def using(number: int, percent: float, broken=()):
    """What replica `near-N` reports while its GPU is so full."""
    device = dataclasses.replace(DEVICE_FACTS, total_bytes=100, used_bytes=percent, uuid=f"GPU-{number}")
    return dataclasses.replace(report(f"near-{number}"), device=device, broken=broken)


async def told(world, *reports) -> MemoryLevel:
    """Let the near pool report this; its level then."""
    world.near.say(list(reports))
    await world.router.status()
    await world.settle()
    (near, *_) = (await world.router.status()).pools
    return near.memory


async def served(world, frame_id: str, *, size_hw=HD, priority="normal"):
    """The model, canvas and replica that a frame is sent to; it is answered. Or why it is rejected."""
    task = world.submit(sample_meta(frame_id, size_hw=tuple(size_hw), priority=priority))
    await world.settle()
    if task.done():
        (result,) = await task
        assert isinstance(result.error, FrameRejectedError)
        return result
    call = await world.near.next_call()
    call.answer(found(0.5))
    (result,) = await task
    return result.model, result.canvas, result.replica


def test_levels_climb_and_come_back(clock, caplog):
    """Normal frames go down the ladder and are rejected at last; critical ones keep model and size at every level."""

    async def scenario(world):
        seen = []
        for second, percent in enumerate([10, 85, 92, 99, *[10] * 17]):
            clock.now_s = 1000.0 + second
            level = await told(world, using(0, percent))
            normal = await served(world, f"n{second}")
            assert await served(world, f"c{second}", priority="critical") == ("full", HD, "near-0")
            seen.append((level, normal if isinstance(normal, tuple) else normal.outcome))
        steps = [entry for number, entry in enumerate(seen) if not number or seen[number - 1] != entry]
        up = [(NORMAL, ("full", HD, "near-0")), (HIGH, ("full", VGA, "near-0")), (CRITICAL, ("light", VGA, "near-0"))]
        assert steps == [*up, (SHED, Outcome.REJECTED), *reversed(up)]

    with caplog.at_level(logging.WARNING):
        play(scenario, ladder_plan(memory=MARKS))
    assert [record.getMessage() for record in caplog.records if "memory level" in record.getMessage()][:2] == [
        "pool near: memory level high, was normal; replica near-0: 85% of its device's memory",
        "pool near: memory level critical, was high; replica near-0: 92% of its device's memory",
    ]


def test_a_rejection_for_memory_says_so(clock):
    """It names memory and pool, and says when to come back: no level falls sooner."""
    assert clock

    async def scenario(world):
        await told(world, using(0, 99))
        result = await served(world, "n")
        assert result.verdict.reason == "the memory of pool near is nearly full: critical frames only"
        assert result.error.retry_after_s == MARKS.calm_s

    play(scenario, ladder_plan(memory=MARKS))


def test_one_full_device_degrades_nobody(clock):
    """Normal frames go to the other replica as they are; the full one is there for critical frames."""
    assert clock

    async def scenario(world):
        assert await told(world, using(0, 99), using(1, 10)) is NORMAL
        for number in range(3):
            assert await served(world, f"n{number}") == ("full", HD, "near-1")
        held = world.submit(sample_meta("held", size_hw=tuple(HD)))
        call = await world.near.next_call()
        assert call.replica == "near-1"
        assert await served(world, "c", priority="critical") == ("full", HD, "near-0")
        call.answer(found(0.5))
        await held

    play(scenario, ladder_plan(memory=MARKS))


def test_a_frame_alone_without_memory_goes_to_a_replica_that_has_some(clock):
    """The broken one is left out at once, the frame keeps its model, and nothing is limited for the others."""
    assert clock

    async def scenario(world):
        await told(world, using(0, 10), using(1, 10))
        task = world.submit(sample_meta("c", priority="critical"))
        first = await world.near.next_call()
        first.has_no_memory(is_broken=True)
        second = await world.near.next_call()
        second.answer(found(0.5))
        (result,) = await task
        assert (first.replica, second.replica) == ("near-0", "near-1")
        assert (result.model, result.canvas, result.outcome) == ("full", VGA, Outcome.FINISHED)

        await told(world, using(0, 10, BROKEN), using(1, 10))
        tasks = [world.submit(sample_meta(f"n{number}")) for number in range(4)]
        while not all(task.done() for task in tasks):
            call = await world.near.next_call()
            assert call.replica == "near-1"
            call.answer(*[found(0.5)] * len(call.refs))
            await world.settle()

        await told(world, using(0, 10), using(1, 99))
        assert await served(world, "back", size_hw=VGA) == ("full", VGA, "near-0")

    play(scenario, ladder_plan(memory=MARKS))


def test_a_frame_rather_waits_than_goes_back_to_a_broken_replica(clock):
    """The other one is busy, the broken one idle: what is broken is left alone before it has reported."""
    assert clock

    async def scenario(world):
        await told(world, using(0, 10), using(1, 10))
        tasks = [world.submit(sample_meta(name, priority="critical")) for name in ("a", "b")]
        calls = {call.replica: call for call in [await world.near.next_call(), await world.near.next_call()]}
        calls["near-0"].has_no_memory(is_broken=True)
        again = await world.near.next_call()
        assert again.replica == "near-1"
        for call in (calls["near-1"], again):
            call.answer(found(0.5))
        for task in tasks:
            assert [result.model for result in await task] == ["full"]

    play(scenario, ladder_plan(memory=MARKS))


def test_a_critical_frame_alone_without_memory_takes_its_next_rung(clock):
    """When no replica is left that could: there is no other way."""
    assert clock

    async def scenario(world):
        await told(world, using(0, 99))
        task = world.submit(sample_meta("c", priority="critical"))
        (await world.near.next_call()).has_no_memory(is_broken=True)
        call = await world.near.next_call()
        call.answer(found(0.5))
        (result,) = await task
        assert (result.model, result.replica, result.outcome) == ("light", "near-0", Outcome.FINISHED)

    play(scenario, ladder_plan(memory=MARKS))


def test_without_another_way_a_frame_fails_with_its_reason(clock):
    """The other frames of the pool go on; no replica is lost."""
    assert clock

    async def scenario(world):
        await told(world, using(0, 10))
        task = world.submit(sample_meta("a"))
        (await world.near.next_call()).has_no_memory(is_broken=True)
        (result,) = await task
        assert (result.outcome, type(result.error)) == (Outcome.FAILED, FrameFailedError)
        assert "the device of pool near has no memory for canvas 480x640" in str(result.error)
        await told(world, using(0, 10, BROKEN))
        assert brief(await answered(world, "b")) == [("b", "finished", 0.5)]

    play(scenario, sample_plan(memory=MARKS))


async def answered(world, frame_id):
    """The result of a frame that the near pool answers."""
    task = world.submit(sample_meta(frame_id, size_hw=tuple(HD)))
    (await world.near.next_call()).answer(found(0.5))
    return await task
