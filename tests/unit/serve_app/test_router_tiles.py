"""Frames that the router serves as tiles: many calls to several replicas, one answer in px of the frame."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import pytest
from ray.exceptions import RayActorError
from router_world import (
    WIDE_HW,
    Ref,
    brief,
    found,
    play,
    score_of,
    tile_plan,
    with_replica,
)
from serve_samples import VGA, sample_meta

from engines.tiles import Window
from serve_app.admission import DEFERRED
from serve_app.errors import FrameFailedError, FrameLostError
from serve_app.frame_log import FrameLog
from serve_app.results import BatchRequest
from serve_app.verdicts import Outcome

pytestmark = pytest.mark.usefixtures("driven_by_hand")

# The windows of a frame of `WIDE_HW`: 480x640 each, 64 px shared at least, evenly spread.
STARTS_PX = (0, 533, 1066, 1600)
WINDOWS = tuple(Window(0, start_px, *VGA) for start_px in STARTS_PX)
# A box in the middle of a window, where no other window sees it.
INSIDE_XYXY = (300, 50, 340, 90)


def wide(frame_id: str, **changes):
    """What a client says of a frame that makes four tiles."""
    return sample_meta(frame_id, size_hw=WIDE_HW, **changes)


def number_of(call) -> int:
    """Which tile a call of one piece is about."""
    (window,) = call.request.windows
    return WINDOWS.index(window)


def moved(box_xyxy, number: int) -> list[float]:
    """A box of a tile in px of the frame."""
    x_min, y_min, x_max, y_max = box_xyxy
    return [x_min + STARTS_PX[number], y_min, x_max + STARTS_PX[number], y_max]


async def calls(world, num_calls: int):
    """The next calls, by the number of their tile; there are no more of them."""
    got = {}
    for _ in range(num_calls):
        call = await world.near.next_call()
        got[number_of(call)] = call
    await world.settle()
    assert world.near.calls.empty()
    return got


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)], ids=str)
def test_tiles_answered_in_any_order_make_one_result(order):
    """Each box is moved by its own window, wherever and whenever it was found; best score first."""

    async def scenario(world):
        await with_replica(world, 3)
        ref = Ref()
        caller = world.submit(wide("w"), refs=[ref])
        tiles = await calls(world, 4)
        for number, call in tiles.items():
            assert call.request == BatchRequest("vga", VGA, False, (WIDE_HW,), (WINDOWS[number],))
            assert call.refs == [ref]
        assert len({call.replica for call in tiles.values()}) == 3

        for number in order:
            assert not caller.done()
            tiles[number].answer(found(0.9 - number / 10, INSIDE_XYXY))
            await world.settle()
        (result,) = await caller

        assert result.detections.boxes_xyxy.tolist() == [moved(INSIDE_XYXY, number) for number in range(4)]
        assert result.detections.scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
        assert result.class_names == ("thing",) * 4
        assert (result.outcome, result.error, result.verdict) == (Outcome.FINISHED, None, DEFERRED)
        assert (result.size_hw, result.canvas, result.batch_size) == (WIDE_HW, VGA, 1)
        assert (result.num_tiles, result.rung, result.padding_fraction) == (4, 0, 0.0)
        assert result.replica == tiles[order[-1]].replica
        assert (await world.router.status()).outcomes == {"finished": 1}

    play(scenario, tile_plan())


def test_an_object_on_a_seam_is_one_box():
    """Two tiles saw its halves; the caller sees the object, once, and none of a tile that saw nothing."""
    nothing = found(0.5)[0].none(), ()

    async def scenario(world):
        await with_replica(world, 3)
        caller = world.submit(wide("w"))
        tiles = await calls(world, 4)
        tiles[0].answer(found(0.8, (500, 100, 640, 200), "crack"))
        tiles[1].answer(found(0.6, (0, 100, 167, 200), "crack"))
        tiles[2].answer(nothing)
        tiles[3].answer(nothing)
        (result,) = await caller

        assert result.detections.boxes_xyxy.tolist() == [[500, 100, 700, 200]]
        assert (score_of(result), result.class_names) == (0.8, ("crack",))

    play(scenario, tile_plan())


def test_tiles_of_one_frame_share_calls_with_each_other_and_with_other_frames():
    """A batch of two: the answers go to the tile and the frame that they belong to."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(wide("w"), wide("x"))
        seen = []
        for _ in range(4):
            call = await world.near.next_call()
            assert (len(call.refs), call.request.sizes_hw) == (2, (WIDE_HW, WIDE_HW))
            numbers = [WINDOWS.index(window) for window in call.request.windows]
            seen += numbers
            call.answer(*(found(0.5, (300, 50 + number, 340, 90)) for number in numbers))
        results = await caller

        assert sorted(seen) == [0, 0, 1, 1, 2, 2, 3, 3]
        for result in results:
            assert (result.batch_size, result.num_tiles) == (2, 4)
            boxes = sorted(result.detections.boxes_xyxy.tolist())
            assert boxes == [moved((300, 50 + number, 340, 90), number) for number in range(4)]

    play(scenario, tile_plan(1, 2))


def test_a_failed_tile_fails_its_frame_once():
    """At once and with the tile's error; what waits of it is never sent, what still runs is answered to nobody."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(wide("w"), wide("x"))
        first, second = await world.near.next_call(), await world.near.next_call()
        lost = FrameLostError("frame: its pixels cannot be fetched")
        first.answer(lost)
        third = await world.near.next_call()
        assert (await world.router.status()).outcomes == {"failed": 1}
        second.answer(FrameLostError("frame: its pixels cannot be fetched either"))
        third.answer(found(0.4, INSIDE_XYXY))
        for _ in range(3):
            (await world.near.next_call()).answer(found(0.4, INSIDE_XYXY))
        results = await caller

        assert brief(results) == [("w", "failed", None), ("x", "finished", 0.4)]
        assert (type(results[0].error), results[0].error.args) == (type(lost), lost.args)
        assert (results[0].num_tiles, results[0].replica, results[0].canvas) == (4, "near-0", VGA)
        assert (world.near.num_calls, len(results[1].detections)) == (6, 4)

    play(scenario, tile_plan())


def test_two_tiles_that_fail_in_one_call_fail_their_frame_once():
    """The last error is the frame's."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(wide("w"))
        call = await world.near.next_call()
        call.answer(FrameLostError("first"), FrameLostError("second"))
        (result,) = await caller
        assert (result.outcome, str(result.error)) == (Outcome.FAILED, "second")
        while not world.near.calls.empty():  # what was staged runs on
            world.near.calls.get_nowait().answer(found(0.1), found(0.2))
        await world.settle()

    play(scenario, tile_plan(1, 2))


def test_a_call_that_fails_fails_the_frame_of_its_tile_once():
    """The same for whatever else Ray or the replica raises."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(wide("w"))
        first, second = await world.near.next_call(), await world.near.next_call()
        first.fail(ValueError("cut"))
        (result,) = await caller
        second.fail(ValueError("cut again"))
        assert isinstance(result.error, FrameFailedError)
        assert str(result.error) == "frame: the call to its replica failed (ValueError: cut)"

    play(scenario, tile_plan())


def test_a_caller_that_gives_up_while_a_tile_runs_frees_the_others():
    """The tiles that wait are never sent, the running one is answered to nobody, the next frame has the replica."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(wide("w"))
        first, second = await world.near.next_call(), await world.near.next_call()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert (await world.router.status()).outcomes == {"cancelled": 1}
        again = world.submit(sample_meta("w"))  # its id is free again
        await world.settle()
        first.answer(found(0.1))
        second.answer(FrameLostError("gone"))
        (await world.near.next_call()).answer(found(0.7))

        assert brief(await again) == [("w", "finished", 0.7)]
        assert (await world.router.status()).outcomes == {"cancelled": 1, "finished": 1}
        assert world.near.num_calls == 3

    play(scenario, tile_plan())


def test_a_frame_whose_last_tiles_run_is_finished_though_its_caller_gave_up():
    """Nothing of it waits: the time is spent already, and the record says what became of it."""

    async def scenario(world):
        await with_replica(world, 3)
        caller = world.submit(wide("w"))
        tiles = await calls(world, 4)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        for call in tiles.values():
            assert (await world.router.status()).outcomes == {}
            call.answer(found(0.1))
            await world.settle()
        assert (await world.router.status()).outcomes == {"finished": 1}

    play(scenario, tile_plan())


@pytest.mark.parametrize("num_tiles", [1, 2])
def test_the_tiles_of_a_dead_replica_are_sent_to_another(num_tiles):
    """One death is one loss, however many tiles it held; the boxes of the others stay as they were answered."""

    async def scenario(world):
        await with_replica(world, 3)
        caller = world.submit(wide("w"))
        tiles = await calls(world, 4)
        held = Counter(call.replica for call in tiles.values())
        dead = next(replica for replica, num_held in held.items() if num_held == num_tiles)
        lost = [number for number, call in tiles.items() if call.replica == dead]
        for number in lost:
            tiles[number].fail(RayActorError())
            await world.settle()
        assert (await world.router.status()).outcomes == {}
        for number in sorted({0, 1, 2, 3} - set(lost)):
            tiles[number].answer(found(0.5, INSIDE_XYXY))
        for number in lost:
            call = await world.near.next_call()
            assert call.replica != dead
            assert number_of(call) == number
            call.answer(found(0.8, INSIDE_XYXY))
        (result,) = await caller

        assert sorted(result.detections.boxes_xyxy.tolist()) == [moved(INSIDE_XYXY, number) for number in range(4)]
        assert (score_of(result), result.num_tiles, world.near.num_calls) == (0.8, 4, 4 + num_tiles)

    play(scenario, tile_plan())


def test_a_tile_that_is_sent_in_the_instant_in_which_its_frame_fails_keeps_no_credit():
    """Two replicas answer at once: the first answer sends the next tile, the second one ends the frame."""

    async def scenario(world):
        await with_replica(world, 2)
        caller = world.submit(wide("w"))
        tiles = await calls(world, 3)
        first, second = (tiles[number] for number in (0, 1))
        first.answer(found(0.1))
        second.answer(FrameLostError("gone"))
        (result,) = await caller
        assert (result.outcome, str(result.error)) == (Outcome.FAILED, "gone")
        await world.settle()
        for call in [tiles[2], *(world.near.calls.get_nowait() for _ in range(world.near.calls.qsize()))]:
            call.answer(found(0.2))
        await world.settle()
        assert (await world.router.status()).pools[0].num_running == 0

    play(scenario, tile_plan())


def test_a_frame_that_shares_a_call_with_one_that_fails_in_that_instant_is_answered():
    """What became of its neighbour between the decision and the call is not its affair."""

    async def scenario(world):
        await with_replica(world, 2)
        blocker = world.submit(sample_meta("blocker"))
        held = await world.near.next_call()
        both = world.submit(sample_meta("w", size_hw=(480, 4096)), wide("x"))
        first, second = await world.near.next_call(), await world.near.next_call()
        assert [len(call.refs) for call in (first, second)] == [3, 3]  # six of the seven tiles of w
        first.answer(found(0.1), found(0.1), found(0.1))
        second.answer(*(FrameLostError("gone") for _ in second.refs))
        await world.settle()
        held.answer(found(0.3))
        shared = await world.near.next_call()
        shared.answer(*(found(0.2) for _ in shared.refs))
        rest = await world.near.next_call()
        rest.answer(*(found(0.2) for _ in rest.refs))

        assert brief(await both) == [("w", "failed", None), ("x", "finished", 0.2)]
        assert brief(await blocker) == [("blocker", "finished", 0.3)]

    play(scenario, tile_plan(1, 2, 3))


def test_a_frame_of_which_a_tile_has_run_expires_at_its_deadline_only(clock):
    """The time spent on it may still pay; its record says how far it was cut."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(wide("w", slo_s=2.0))
        first, second = await world.near.next_call(), await world.near.next_call()
        first.answer(found(0.1))
        second.answer(found(0.2))
        third, fourth = await world.near.next_call(), await world.near.next_call()
        fourth.answer(found(0.4))
        world.near.say([])  # the replica of the third one is gone ...
        await world.settle()
        third.fail(RayActorError())
        await world.settle()
        clock.pass_s(2.0 - 1e-3)
        world.near.say([])
        await world.settle()
        assert (await world.router.status()).outcomes == {}
        clock.pass_s(1e-3)
        world.near.say([])
        (result,) = await caller

        assert (result.outcome, result.num_tiles, result.rung) == (Outcome.EXPIRED, 4, 0)
        assert result.times.total_s == pytest.approx(2.0)

    play(scenario, tile_plan())


def test_the_stages_of_tiles_are_their_sums(clock):
    """Device time is what was spent on the frame; waiting is the rest, and never below nothing."""
    seconds = {"fetch_s": 0.001, "preprocess_s": 0.002, "staged_s": 0.01, "infer_s": 0.02, "postprocess_s": 0.003}

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(wide("w"))
        for _ in range(4):
            await world.settle()
            clock.pass_s(0.05)
            (await world.near.next_call()).answer(found(0.1), **seconds)
        (result,) = await caller

        times = result.times
        assert times.total_s == pytest.approx(0.2)
        assert (times.preprocess_s, times.infer_s, times.postprocess_s) == pytest.approx((0.008, 0.08, 0.012))
        # Sent at 0, 0, 50 and 100 ms, answered at 50, 100, 150 and 200: 350 ms at the replica, of which 35 each known.
        assert times.transfer_s == pytest.approx(0.35 - 4 * 0.035)
        assert times.queue_s == 0.0

    play(scenario, tile_plan())


def test_the_record_of_a_tiled_frame_says_so(tmp_path, clock):
    """One line for the whole frame, with the number of its tiles and what it was given to finish."""
    log = FrameLog(tmp_path / "frames.jsonl")

    async def scenario(world):
        await with_replica(world)
        clock.pass_s(0.5)
        caller = world.submit(wide("w", slo_s=5.0))
        for _ in range(4):
            (await world.near.next_call()).answer(found(0.1, INSIDE_XYXY))
        await caller

    play(scenario, tile_plan(), log)
    log.close()
    (record,) = map(json.loads, (tmp_path / "frames.jsonl").read_text().splitlines())
    assert (record["at_s"], record["slo_s"], record["num_tiles"], record["rung"]) == (1000.5, 5.0, 4, 0)
    assert (record["verdict"], record["num_detections"], record["outcome"]) == ("defer", 4, "finished")


async def answer_somehow(world, chance):
    """A replica that answers most pieces, fails some, and dies now and then; another one comes at once."""
    while True:
        call = await world.near.next_call()
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        draw = chance.random()
        if draw < 0.1:
            call.fail(RayActorError())
            world.near.has_replicas(3)
        elif draw < 0.15:
            call.fail(OSError("cut"))
        else:
            call.answer(*(FrameLostError("gone") if chance.random() < 0.1 else found(0.5) for _ in call.refs))


@pytest.mark.parametrize("seed", range(6))
def test_tiles_survive_a_storm(seed):
    """Frames of one and of four pieces, errors, deaths and callers that give up: `World.close` counts what is left."""
    chance = random.Random(seed)

    async def scenario(world):
        hands = [asyncio.create_task(answer_somehow(world, chance)) for _ in range(4)]
        world.near.has_replicas(3)
        callers = []
        for number in range(60):
            size_hw = chance.choice([(480, 640), WIDE_HW, (900, 1200)])
            priority = chance.choice(["normal", "critical"])
            callers.append(world.submit(sample_meta(f"{number}", size_hw=size_hw, priority=priority)))
            await asyncio.sleep(0)  # so that it has begun: else there is nothing to give up
            if chance.random() < 0.3:
                chance.choice(callers).cancel()
        answers = await asyncio.gather(*callers, return_exceptions=True)
        while (await world.router.status()).pools[0].num_running:  # of callers that gave up
            await world.settle()
        for hand in hands:
            hand.cancel()
        await asyncio.gather(*hands, return_exceptions=True)
        kinds = Counter(type(answer) for answer in answers)
        assert kinds[list] + kinds[asyncio.CancelledError] == len(callers)
        assert kinds[list] >= 30

    play(scenario, tile_plan(1, 2))
