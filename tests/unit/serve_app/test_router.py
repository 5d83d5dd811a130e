"""The router among fake pools: every frame that comes in is answered once, whatever happens to it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import weakref

import numpy as np
import pytest
import ray
from ray.exceptions import ActorDiedError, RayActorError
from router_world import Ref, brief, brief_pool, found, play, report, score_of, with_replica
from serve_samples import HD, UHD, VGA, sample_limits, sample_meta, sample_plan

from serve_app import replica_watch
from serve_app.admission import ADMITTED
from serve_app.errors import (
    FrameCancelledError,
    FrameExpiredError,
    FrameFailedError,
    FrameLostError,
    FrameRejectedError,
    InvalidFrameError,
)
from serve_app.frame_log import FrameLog
from serve_app.results import BatchRequest, StageTimes
from serve_app.routes import CALL_COST_S
from serve_app.verdicts import Outcome, Verdict, VerdictKind

pytestmark = pytest.mark.usefixtures("driven_by_hand")


def metas(*names, **changes):
    """VGA frames of these ids."""
    return [sample_meta(name, **changes) for name in names]


def test_frames_of_one_canvas_make_one_call_and_each_gets_its_own_answer():
    """The refs travel in the order of the frames, and so do the answers: most urgent first, not first come."""

    async def scenario(world):
        await with_replica(world)
        refs = {name: Ref() for name in "abcd"}
        slos_s = {"a": 40.0, "b": 20.0, "c": 30.0, "d": 10.0}
        caller = world.submit(
            *(sample_meta(name, slo_s=slos_s[name], size_hw=(480 - at, 640)) for at, name in enumerate("abcd")),
            refs=list(refs.values()),
        )
        call = await world.near.next_call()

        assert call.request == BatchRequest(
            "vga", VGA, urgent=False, windows=(None,) * 4, sizes_hw=((477, 640), (479, 640), (478, 640), (480, 640))
        )
        assert call.refs == [refs[name] for name in "dbca"]
        call.answer(found(0.4), found(0.2), found(0.3), found(0.1))
        assert brief(await caller) == [
            ("a", "finished", 0.1), ("b", "finished", 0.2), ("c", "finished", 0.3), ("d", "finished", 0.4)
        ]  # fmt: skip
        assert world.near.num_calls == 1

    play(scenario, sample_plan())


def test_a_result_says_who_served_the_frame_and_how():
    """Every field of an answered frame."""

    async def scenario(world):
        world.near.say([report("near-9")])
        caller = world.submit(*metas("a", "b", size_hw=(470, 640), camera="gate-7", priority="critical"))
        call = await world.near.next_call()
        assert call.request.urgent
        call.answer(found(0.1), found(0.2))
        result = (await caller)[1]

        assert (result.frame_id, result.camera, result.size_hw, result.priority) == (
            "b", "gate-7", (470, 640), "critical"
        )  # fmt: skip
        assert (result.outcome, result.error, result.verdict) == (Outcome.FINISHED, None, ADMITTED)
        assert (result.bucket, result.pool, result.replica, result.model) == ("vga", "near", "near-9", "full")
        assert (result.canvas, result.batch_size, result.rung, result.num_tiles) == (VGA, 2, 0, 0)
        assert result.padding_fraction == pytest.approx(10 / 480)
        assert result.detections.boxes_xyxy.tolist() == [[1, 2, 3, 4]]
        assert result.class_names == ("thing",)
        assert result.unless_failed() is result

    play(scenario, sample_plan())


def test_one_frame_is_submitted_alone():
    """`submit` is the same for one frame."""

    async def scenario(world):
        await with_replica(world)
        world.num_submitted += 1
        caller = asyncio.create_task(world.router.submit(sample_meta("a"), [Ref()]))
        (await world.near.next_call()).answer(found(0.5))
        assert brief([await caller]) == [("a", "finished", 0.5)]

    play(scenario, sample_plan())


def test_the_error_of_one_frame_is_its_own():
    """Its neighbours in the batch are answered; the error arrives as the replica made it."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(*metas("a", "b", "c", "d"))
        lost = FrameLostError("frame: its pixels cannot be fetched")
        (await world.near.next_call()).answer(found(0.1), lost, found(0.3), found(0.4))
        results = await caller

        assert brief(results) == [
            ("a", "finished", 0.1), ("b", "failed", None), ("c", "finished", 0.3), ("d", "finished", 0.4)
        ]  # fmt: skip
        assert (type(results[1].error), results[1].error.args) == (FrameLostError, lost.args)
        assert (results[1].replica, results[1].batch_size) == ("near-0", 4)

    play(scenario, sample_plan())


@pytest.mark.parametrize(
    "changes",
    [
        {"priority": "urgent"},
        {"priority": ["critical"]},
        {"slo_s": 0},
        {"slo_s": float("nan")},
        {"slo_s": "soon"},
        {"slo_s": 10**400},
        {"camera": ""},
        {"camera": None},
        {"size_hw": (0, 5)},
        {"size_hw": (30_000, 30_000)},
        {"size_hw": (float("nan"), float("nan"))},
        {"size_hw": (480.5, 640.5)},
        {"size_hw": None},
        {"size_hw": 7},
        {"frame_id": None},
        {"frame_id": ["a"]},
    ],
    ids=lambda changes: "-".join(f"{key}={value!s:.20}" for key, value in changes.items()),
)
def test_an_invalid_frame_is_a_result_and_harms_no_neighbour(changes, tmp_path):
    """What one client says wrongly of one frame: that frame is rejected and recorded, the others are served."""
    log = FrameLog(tmp_path / "frames.jsonl")

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("a"), sample_meta(**({"frame_id": "bad"} | changes)), sample_meta("c"))
        (await world.near.next_call()).answer(found(0.1), found(0.3))
        first, bad, third = await caller

        assert brief([first, third]) == [("a", "finished", 0.1), ("c", "finished", 0.3)]
        assert (bad.outcome, bad.verdict, bad.batch_size) == (Outcome.REJECTED, None, 0)
        with pytest.raises(InvalidFrameError, match=f"{next(iter(changes))}|frame: got"):
            bad.unless_failed()

    play(scenario, sample_plan(), log)
    log.close()
    outcomes = [json.loads(line)["outcome"] for line in (tmp_path / "frames.jsonl").read_text().splitlines()]
    assert (outcomes, log.num_lost) == (["rejected", "finished", "finished"], 0)


def test_a_frame_without_room_is_rejected_with_a_time_to_come_back():
    """The budget counts what is here; the rejected caller is answered at once, the others later."""

    async def scenario(world):
        waiting = world.submit(*metas("a", "b", priority="critical"))
        await world.settle()
        (rejected,) = await world.submit(sample_meta("c", priority="critical"))

        assert rejected.outcome is Outcome.REJECTED
        assert rejected.verdict == Verdict(VerdictKind.REJECT, "2 frames are here, allowed are 2", 0.25)
        assert isinstance(rejected.error, FrameRejectedError)
        assert (str(rejected.error), rejected.error.retry_after_s) == (
            "frame rejected: 2 frames are here, allowed are 2; try again in 0.25 s", 0.25
        )  # fmt: skip
        await with_replica(world)
        (await world.near.next_call()).answer(found(0.1), found(0.2))
        assert brief(await waiting) == [("a", "finished", 0.1), ("b", "finished", 0.2)]

    play(scenario, sample_plan(limits=sample_limits(frames=2)))


def test_the_byte_budget_counts_three_bytes_a_pixel():
    """What the pixels hold in the object store."""

    async def scenario(world):
        caller = world.submit(*metas("a", "b"))
        await world.settle()
        await with_replica(world)
        (await world.near.next_call()).answer(found(0.1))
        assert brief(await caller) == [("a", "finished", 0.1), ("b", "rejected", None)]

    play(scenario, sample_plan(limits=sample_limits(num_bytes=2 * 480 * 640 * 3 - 1)))


def test_frames_expire_in_time_though_no_replica_is_there():
    """The router's own timer answers each by its deadline; nobody has to ask."""

    async def scenario(world):
        slos_s = {"a": 0.04, "b": 0.02, "c": 0.03}
        results = await world.submit(*(sample_meta(name, slo_s=slo_s) for name, slo_s in slos_s.items()))

        assert brief(results) == [("a", "expired", None), ("b", "expired", None), ("c", "expired", None)]
        for result, slo_s in zip(results, slos_s.values(), strict=True):
            assert isinstance(result.error, FrameExpiredError)
            assert str(result.error) == (
                f"frame expired: after {result.times.total_s:.3f} s of waiting it could not be finished within its "
                f"{slo_s:.3f} s"
            )
            assert result.times.total_s == result.times.queue_s > 0
            assert (result.verdict, result.replica, result.batch_size) == (ADMITTED, None, 0)
        assert world.near.num_calls == 0

    play(scenario, sample_plan())


def test_a_frame_expires_as_soon_as_it_cannot_be_finished_in_time(clock):
    """Its own time, 13 ms (3 on the device, 10 around it), is kept back and a margin: later not even luck helps."""

    async def scenario(world):
        caller = world.submit(*metas("a", "b"), sample_meta("later", slo_s=40.0))
        await world.settle()
        kept_back_s = clock.now_s + 30.0 - world.router._scheduler.next_wake_s()
        assert 0.013 <= kept_back_s < 0.026
        clock.pass_s(30.0 - kept_back_s - 1e-6)
        await with_replica(world, 0)
        assert (await world.router.status()).outcomes == {}
        clock.pass_s(2e-6)
        await with_replica(world)
        call = await world.near.next_call()
        assert len(call.refs) == 1
        call.answer(found(0.3))
        results = await caller

        assert brief(results) == [("a", "expired", None), ("b", "expired", None), ("later", "finished", 0.3)]
        expired, waited_s = results[0], clock.now_s - 1000.0
        assert str(expired.error) == (
            f"frame expired: after {waited_s:.3f} s of waiting it could not be finished within its 30.000 s"
        )
        assert expired.times == StageTimes(queue_s=waited_s, total_s=waited_s)
        assert (expired.bucket, expired.pool, expired.model, expired.canvas) == ("vga", "near", "full", VGA)
        assert expired.verdict == ADMITTED

    play(scenario, sample_plan())


def test_a_frame_without_a_deadline_has_that_of_its_class():
    """The plan's default, by priority."""

    async def scenario(world):
        results = await world.submit(*metas("a", priority="critical", slo_s=None), *metas("b", slo_s=None))
        assert [str(each.error).rpartition(" within its ")[2] for each in results] == ["0.015 s", "0.020 s"]

    critical, normal = sample_plan().slo_s
    play(scenario, sample_plan(slo_s={critical: 0.015, normal: 0.02}))


def test_of_three_waiting_callers_one_gives_up_and_the_others_get_their_results():
    """The cancelled frame leaves the batch before it is formed; nobody hangs."""

    async def scenario(world):
        callers = {name: world.submit(sample_meta(name)) for name in "abc"}
        await world.settle()
        callers["b"].cancel()
        with pytest.raises(asyncio.CancelledError):
            await callers["b"]
        await with_replica(world)
        call = await world.near.next_call()
        assert len(call.refs) == 2
        call.answer(found(0.1), found(0.3))

        assert brief(await callers["a"] + await callers["c"]) == [("a", "finished", 0.1), ("c", "finished", 0.3)]
        assert (await world.router.status()).outcomes == {"cancelled": 1, "finished": 2}

    play(scenario, sample_plan())


def test_a_caller_that_gives_up_while_its_frame_runs_harms_no_neighbour():
    """The batch runs on: the neighbour is answered, the frame is recorded as what it was, and its id is free again."""

    async def scenario(world):
        first, second = world.submit(sample_meta("a")), world.submit(sample_meta("b"))
        await with_replica(world)
        call = await world.near.next_call()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await world.router.status()).num_in_flight == 2
        call.answer(found(0.1), found(0.2))

        assert brief(await second) == [("b", "finished", 0.2)]
        assert (await world.router.status()).outcomes == {"finished": 2}
        again = world.submit(sample_meta("a"))
        (await world.near.next_call()).answer(found(0.7))
        assert brief(await again) == [("a", "finished", 0.7)]

    play(scenario, sample_plan())


def test_a_caller_of_many_frames_cancels_those_that_wait():
    """One frame runs and is answered to nobody; the others leave their lanes."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("runs"))
        call = await world.near.next_call()
        blocker = world.submit(sample_meta("stays", size_hw=(720, 1280)))
        staged = await world.near.next_call()
        many = world.submit(*metas("a", "b"), sample_meta("c", size_hw=(720, 1280)))
        await world.settle()
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many
        assert (await world.router.status()).outcomes == {"cancelled": 3}
        call.answer(found(0.1))
        staged.answer(found(0.2))
        assert brief(await caller + await blocker) == [("runs", "finished", 0.1), ("stays", "finished", 0.2)]
        assert world.near.num_calls == 2

    play(scenario, sample_plan())


def test_a_cancelled_frame_is_recorded_with_its_reason(tmp_path):
    """Nothing disappears silently: the log has a line for it too."""
    log = FrameLog(tmp_path / "frames.jsonl")

    async def scenario(world):
        caller = world.submit(sample_meta("a"))
        await world.settle()
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)

    play(scenario, sample_plan(), log)
    log.close()
    (record,) = map(json.loads, (tmp_path / "frames.jsonl").read_text().splitlines())
    assert (record["outcome"], record["error"]) == ("cancelled", "frame cancelled by its caller while it waited")
    assert FrameCancelledError.http_status == 499


def test_an_id_that_is_in_flight_is_refused_and_the_first_frame_is_served():
    """The same id twice, in one call and in two."""

    async def scenario(world):
        first = world.submit(sample_meta("a"), sample_meta("a"))
        await world.settle()
        (second,) = await world.submit(sample_meta("a"))
        await with_replica(world)
        call = await world.near.next_call()
        (third,) = await world.submit(sample_meta("a"))
        call.answer(found(0.1))

        assert brief(await first) == [("a", "finished", 0.1), ("a", "rejected", None)]
        for refused in (second, third):
            assert isinstance(refused.error, InvalidFrameError)
            assert str(refused.error) == "frame_id: got 'a', which is in flight; give every frame its own id"

    play(scenario, sample_plan())


def test_a_caller_cannot_cancel_the_frame_of_another():
    """A refused duplicate in a call that is given up leaves the first caller's frame where it waits."""

    async def scenario(world):
        first = world.submit(sample_meta("a"))
        await world.settle()
        second = world.submit(sample_meta("a"), sample_meta("b"))
        await world.settle()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        await with_replica(world)
        (await world.near.next_call()).answer(found(0.1))

        assert brief(await first) == [("a", "finished", 0.1)]
        assert (await world.router.status()).outcomes == {"rejected": 1, "cancelled": 1, "finished": 1}

    play(scenario, sample_plan())


@pytest.mark.parametrize("error", [RayActorError(), ActorDiedError()], ids=lambda error: type(error).__name__)
def test_frames_of_a_dead_replica_go_to_the_next_one(error):
    """Its batch is sent once more and every caller is answered once."""

    async def scenario(world):
        await with_replica(world)
        refs = [Ref(), Ref()]
        caller = world.submit(*metas("a", "b"), refs=refs)
        (await world.near.next_call()).fail(error)
        await world.settle()
        assert world.near.num_calls == 1  # until they are counted again, the dead one gets no second batch
        world.near.say([report("near-2")])
        retried = await world.near.next_call()
        assert (retried.replica, retried.refs) == ("near-2", refs)
        retried.answer(found(0.1), found(0.2))
        results = await caller

        assert brief(results) == [("a", "finished", 0.1), ("b", "finished", 0.2)]
        assert [each.replica for each in results] == ["near-2", "near-2"]
        assert world.near.num_calls == 2

    play(scenario, sample_plan())


def test_frames_that_three_replicas_died_with_are_given_up():
    """Three attempts, then an answer that says so."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(*metas("a", "b"))
        for number in (1, 2):
            (await world.near.next_call()).fail(RayActorError())
            world.near.say([report(f"near-{number}")])
        (await world.near.next_call()).fail(RayActorError())
        results = await caller

        assert brief(results) == [("a", "failed", None), ("b", "failed", None)]
        assert [str(each.error) for each in results] == [
            "frame: its replica died, and no time or attempt was left for another one"
        ] * 2
        assert world.near.num_calls == 3

    play(scenario, sample_plan())


def test_frames_that_the_device_had_no_memory_for_go_in_smaller_batches():
    """Two at once did not fit: one after the other they do, and no caller hears of it."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(*metas("a", "b"))
        (await world.near.next_call()).has_no_memory()
        for score in (0.1, 0.2):
            (await world.near.next_call()).answer(found(score))
        results = await caller

        assert brief(results) == [("a", "finished", 0.1), ("b", "finished", 0.2)]
        assert [result.batch_size for result in results] == [1, 1]
        assert world.near.num_calls == 3

    play(scenario, sample_plan())


def test_a_frame_that_the_device_has_no_memory_for_alone_fails_and_says_so():
    """Without a ladder nothing smaller is left; it is not tried for ever."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(*metas("a"))
        (await world.near.next_call()).has_no_memory()
        (result,) = await caller

        assert brief([result]) == [("a", "failed", None)]
        assert "has no memory for canvas 480x640" in str(result.error)
        assert "give the plan a ladder" in str(result.error)
        assert world.near.num_calls == 1

    play(scenario, sample_plan())


def test_frames_of_a_dead_replica_wait_for_another_and_expire_if_none_comes(clock):
    """Without a replica a lost frame is in its lane like any other."""

    async def scenario(world):
        early, late = world.submit(sample_meta("a", slo_s=1.0)), world.submit(sample_meta("b"))
        await with_replica(world)
        call = await world.near.next_call()
        world.near.say([])
        await world.settle()
        call.fail(RayActorError())
        await world.settle()
        assert brief_pool((await world.router.status()).pools[0]) == ("near", 2, 0, [])
        clock.pass_s(1.0)
        world.near.say([])
        assert brief(await early) == [("a", "expired", None)]
        assert brief_pool((await world.router.status()).pools[0]) == ("near", 1, 0, [])
        await with_replica(world)
        (await world.near.next_call()).answer(found(0.2))

        assert brief(await late) == [("b", "finished", 0.2)]

    play(scenario, sample_plan())


def test_any_other_error_of_a_call_fails_its_frames_and_no_others():
    """Nobody is left waiting, the credit is free again, and the error's words reach the callers."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(*metas("a", "b"))
        (await world.near.next_call()).fail(ValueError("no such bucket"))
        results = await caller

        assert brief(results) == [("a", "failed", None), ("b", "failed", None)]
        for result in results:
            with pytest.raises(FrameFailedError) as caught:
                result.unless_failed()
            assert str(caught.value) == "frame: the call to its replica failed (ValueError: no such bucket)"
        again = world.submit(sample_meta("c"))
        (await world.near.next_call()).answer(found(0.3))
        assert brief(await again) == [("c", "finished", 0.3)]

    play(scenario, sample_plan())


@pytest.mark.parametrize("answers", [(), (found(0.1),), (found(0.1),) * 3], ids=["none", "too few", "too many"])
def test_a_reply_of_another_length_fails_its_frames(answers):
    """It cannot be said whose answers they are: nobody gets them, and nobody waits for ever."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(*metas("a", "b"))
        (await world.near.next_call()).answer(*answers)

        results = await caller
        assert brief(results) == [("a", "failed", None), ("b", "failed", None)]
        assert f"answered {len(answers)} frames of 2" in str(results[0].error)

    play(scenario, sample_plan())


def test_a_line_that_raises_at_once_is_no_different():
    """Ray may refuse a call before there is anything to wait for: arguments that cannot be sent, say."""

    async def scenario(world):
        await with_replica(world)
        world.near.refusal = RuntimeError("no route")
        (result,) = await world.submit(sample_meta("a"))
        assert str(result.error) == "frame: the call to its replica failed (RuntimeError: no route)"

    play(scenario, sample_plan())


@pytest.mark.parametrize(("num_metas", "num_refs"), [(1, 0), (0, 1), (2, 1), (1, 3)])
def test_metadata_and_refs_come_in_pairs(num_metas, num_refs):
    """A call that is wrong as a whole raises; none of its frames was seen."""

    async def scenario(world):
        wrong = metas(*map(str, range(num_metas)))
        with pytest.raises(InvalidFrameError) as caught:
            await world.router.submit_many(wrong, [Ref() for _ in range(num_refs)])
        assert str(caught.value) == (
            f"frames: got {num_metas} metadata and {num_refs} refs, allowed is one ref a frame"
        )
        assert (await world.router.status()).outcomes == {}

    play(scenario, sample_plan())


def test_a_call_of_no_frames_is_answered():
    """Nothing asked, nothing answered, nothing awaited."""

    async def scenario(world):
        assert await world.submit() == []

    play(scenario, sample_plan())


def test_stages_add_up_to_the_total():
    """For a frame that finished, where its time went is all of its time."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(*metas("a", "b", "c"))
        seconds = {"fetch_s": 1e-4, "preprocess_s": 2e-4, "staged_s": 3e-4, "infer_s": 4e-4, "postprocess_s": 5e-4}
        (await world.near.next_call()).answer(found(0.1), found(0.2), **seconds)
        (await world.near.next_call()).answer(found(0.3), **seconds)
        for result in await caller:
            times = result.times
            assert (times.preprocess_s, times.infer_s, times.postprocess_s) == (2e-4, 4e-4, 5e-4)
            assert times.queue_s >= 3e-4
            stages_s = times.queue_s + times.transfer_s + times.preprocess_s + times.infer_s + times.postprocess_s
            assert stages_s == pytest.approx(times.total_s, abs=1e-3)

    play(scenario, sample_plan())


def test_pixels_are_let_go_of_when_their_frame_has_ended():
    """However it ended: a ref that is kept would keep an image in the object store."""
    seen = {}

    def remember(refs):
        seen.update({len(seen) + at: weakref.ref(ref) for at, ref in enumerate(refs)})
        return refs

    async def scenario(world):
        finished = world.submit(*metas("a", "b"), refs=remember([Ref(), Ref()]))
        expired = world.submit(sample_meta("e", slo_s=0.01, size_hw=(1080, 1920)), refs=remember([Ref()]))
        cancelled = world.submit(sample_meta("c", size_hw=(1080, 1920)), refs=remember([Ref()]))
        refused = world.submit(sample_meta("r", camera=""), refs=remember([Ref()]))
        await world.settle()
        await with_replica(world)
        (await world.near.next_call()).answer(found(0.1), FrameLostError("gone"))
        cancelled.cancel()
        await asyncio.gather(finished, expired, cancelled, refused, return_exceptions=True)
        del finished, expired, cancelled, refused
        await world.settle()
        gc.collect()
        assert {number: ref() for number, ref in seen.items()} == dict.fromkeys(range(5))

    play(scenario, sample_plan())


def test_each_pool_is_asked_for_its_own_batches():
    """Frames go to the pool of their bucket."""

    async def scenario(world):
        world.pools["far"].has_replicas(1)
        await with_replica(world)
        caller = world.submit(
            sample_meta("v"), sample_meta("u", size_hw=(1080, 1920)), *metas("h", size_hw=(720, 1280))
        )
        far = await world.pools["far"].next_call()
        near = [await world.near.next_call() for _ in range(2)]
        assert far.request == BatchRequest("uhd", UHD, False, ((1080, 1920),), (None,))
        assert {call.request for call in near} == {
            BatchRequest("vga", VGA, False, ((480, 640),), (None,)),
            BatchRequest("hd", HD, False, ((720, 1280),), (None,)),
        }
        for call in (far, *near):
            call.answer(found(0.5))
        assert [each.pool for each in await caller] == ["near", "far", "near"]

    play(scenario, sample_plan())


def test_no_more_batches_than_credits_are_at_the_replicas():
    """Two a replica; the third goes when one has ended."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(*metas(*"abcdefghijkl"))
        first, second = await world.near.next_call(), await world.near.next_call()
        await world.settle()
        assert (len(first.refs), len(second.refs), world.near.num_calls) == (4, 4, 2)
        first.answer(*(found(0.1) for _ in range(4)))
        third = await world.near.next_call()
        second.answer(*(found(0.2) for _ in range(4)))
        third.answer(*(found(0.3) for _ in range(4)))
        assert [score_of(each) for each in await caller] == [0.1] * 4 + [0.2] * 4 + [0.3] * 4

    play(scenario, sample_plan())


@pytest.mark.parametrize(
    "reports",
    [[], TimeoutError("Timed out waiting for broadcast results."), [RayActorError()], [None, "odd"]],
    ids=["no replica", "no answer", "dead replica", "odd answers"],
)
def test_replicas_that_do_not_report_get_no_batches(reports, caplog):
    """Frames wait until one reports; whatever a question for reports raises does not stop the asking."""

    async def scenario(world):
        world.near.say(reports)
        caller = world.submit(sample_meta("a"))
        await world.settle()
        assert world.near.num_calls == 0
        assert brief_pool((await world.router.status()).pools[0]) == ("near", 1, 0, [])
        world.near.say([RayActorError(), report("near-2")])
        (await world.near.next_call()).answer(found(0.1))
        assert brief(await caller) == [("a", "finished", 0.1)]

    with caplog.at_level(logging.ERROR):
        play(scenario, sample_plan())
    assert caplog.records == []


def test_one_silent_replica_does_not_stop_its_pool():
    """A round of reports that times out says nothing of the replicas that were counted before."""

    async def scenario(world):
        await with_replica(world)
        world.near.say(TimeoutError("Timed out waiting for broadcast results."))
        await world.settle()
        caller = world.submit(sample_meta("a"))
        (await world.near.next_call()).answer(found(0.1))
        assert brief(await caller) == [("a", "finished", 0.1)]

    play(scenario, sample_plan())


def test_the_status_shows_each_pool_and_what_became_of_the_frames():
    """Frames waiting, batches running, replicas by name, outcomes and frames in flight."""

    async def scenario(world):
        world.near.say([report("near-2"), report("near-1")])
        await world.router.status()
        await world.settle()
        caller = world.submit(*metas("a", "b"), sample_meta("u", size_hw=(1080, 1920)), sample_meta("bad", camera=""))
        call = await world.near.next_call()
        status = await world.router.status()

        assert [brief_pool(pool) for pool in status.pools] == [("near", 0, 1, ["near-1", "near-2"]), ("far", 1, 0, [])]
        assert status.pools[0].replicas == (report("near-1"), report("near-2"))
        assert [pool.backlog_s for pool in status.pools] == pytest.approx([0.0, 0.008 + CALL_COST_S])
        assert [pool.rung for pool in status.pools] == [0, 0]
        assert (status.outcomes, status.num_in_flight) == ({"rejected": 1}, 3)
        assert status.uptime_s >= 0
        world.pools["far"].has_replicas(1)
        (await world.pools["far"].next_call()).answer(found(0.1))
        call.answer(found(0.1), found(0.2))
        await caller
        assert (await world.router.status()).outcomes == {"rejected": 1, "finished": 3}

    play(scenario, sample_plan())


def test_the_first_status_waits_for_the_first_count():
    """A service that has just come up does not say that it has no replica before it has asked."""

    async def scenario(world):
        asked = asyncio.create_task(world.router.status())
        await world.settle()
        assert not asked.done()
        world.near.has_replicas(1)
        await world.settle()
        assert not asked.done()
        world.pools["far"].has_replicas(0)
        assert [*map(brief_pool, (await asked).pools)] == [("near", 0, 0, ["near-0"]), ("far", 0, 0, [])]

    play(scenario, sample_plan(), counted=False)


def test_a_status_comes_though_replicas_do_not_answer(monkeypatch):
    """After the time that is given to replicas, what is known is told."""
    monkeypatch.setattr(replica_watch, "REPORT_TIMEOUT_S", 0.01)

    async def scenario(world):
        assert [*map(brief_pool, (await world.router.status()).pools)] == [("near", 0, 0, []), ("far", 0, 0, [])]

    play(scenario, sample_plan(), counted=False)


def test_the_router_tells_its_plan():
    """Clients size their timeouts by it."""
    plan = sample_plan()

    async def scenario(world):
        assert await world.router.plan() is plan

    play(scenario, plan)


def test_a_plain_array_is_served_without_the_client_library(monkeypatch):
    """Upstream services call the handle with numpy; the answer is a result, and what did not finish raises."""
    stored = []
    monkeypatch.setattr(ray, "put", lambda image: stored.append(image) or Ref())

    async def scenario(world):
        await with_replica(world)
        image_hwc = np.zeros((470, 640, 3), np.uint8)
        world.num_submitted += 2
        caller = asyncio.create_task(world.router(image_hwc, camera="gate-2", priority="critical", slo_s=30))
        call = await world.near.next_call()
        assert call.request.sizes_hw == ((470, 640),)
        call.answer(found(0.6))
        result = await caller
        assert (result.camera, result.priority, score_of(result)) == ("gate-2", "critical", 0.6)
        assert len(stored) == 1
        assert stored[0] is image_hwc

        failing = asyncio.create_task(world.router(image_hwc))
        (await world.near.next_call()).answer(FrameLostError("frame: gone"))
        with pytest.raises(FrameLostError, match="frame: gone"):
            await failing

    play(scenario, sample_plan())


@pytest.mark.parametrize(
    ("image", "kwargs", "message"),
    [
        (None, {}, "frame: got NoneType"),
        (np.zeros((480, 640), np.uint8), {}, "frame: got grey"),
        (np.zeros((480, 640, 3), np.float32), {}, "frame: got dtype float32"),
        (np.zeros((0, 640, 3), np.uint8), {}, "frame: got 0×640"),
        (np.zeros((480, 640, 3), np.uint8), {"priority": "urgent"}, "priority: got 'urgent'"),
    ],
    ids=["none", "grey", "float", "empty", "priority"],
)
def test_a_plain_call_with_no_frame_raises(image, kwargs, message, monkeypatch):
    """The same words as in the client library."""
    monkeypatch.setattr(ray, "put", lambda _: Ref())

    async def scenario(world):
        world.num_submitted += 1  # refused, and recorded like any other
        with pytest.raises(InvalidFrameError, match=message):
            await world.router(image, **kwargs)

    play(scenario, sample_plan())


def test_a_router_survives_a_storm():
    """Many callers, sizes and ends at once, deaths and errors among them; see what `World.close` asserts."""
    sizes_hw = [(480, 640), (640, 480), (720, 1280), (1080, 1920)]

    async def scenario(world):
        async def replica(pool):
            number = 0
            while True:
                call = await pool.next_call()
                number += 1
                await asyncio.sleep(0)
                match number % 7:
                    case 3:
                        call.fail(RayActorError())
                        pool.has_replicas(2)
                    case 5:
                        call.fail(OSError("cut"))
                    case _:
                        call.answer(*(found(0.1) for _ in call.refs))

        replicas = [asyncio.create_task(replica(pool)) for pool in world.pools.values()]
        for pool in world.pools.values():
            pool.has_replicas(2)
        callers = [
            world.submit(
                *(
                    sample_meta(
                        f"{caller}-{number}",
                        size_hw=sizes_hw[(caller + number) % 4],
                        priority=("normal", "critical")[number % 2],
                        slo_s=(0.01, 30.0)[number % 5 > 0],
                    )
                    for number in range(6)
                )
            )
            for caller in range(40)
        ]
        for caller in callers[::5]:
            await asyncio.sleep(0)
            caller.cancel()
        answers = await asyncio.gather(*callers, return_exceptions=True)
        for task in replicas:
            task.cancel()
        await asyncio.gather(*replicas, return_exceptions=True)
        answered = [each for each in answers if not isinstance(each, asyncio.CancelledError)]
        assert [len(each) for each in answered] == [6] * len(answered)
        assert len(answered) >= 32

    play(scenario, sample_plan(limits=sample_limits(frames=100)))
