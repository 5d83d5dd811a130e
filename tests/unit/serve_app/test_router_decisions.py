"""What the scheduler decides beyond plain admission, as callers, replicas and records see it."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from router_world import QUICK_S, Ref, brief, found, play, quick_table, report, score_of, with_replica
from serve_samples import HD, LIGHT_BUCKET, PORTRAIT, VGA, ladder_plan, sample_meta, sample_plan, sample_table

from engines.spec import WarmShape
from serve_app.admission import ADMITTED
from serve_app.errors import FrameFailedError, FrameRejectedError, FrameSupersededError, InvalidFrameError
from serve_app.frame_log import FrameLog
from serve_app.latency import LatencyTable, Origin
from serve_app.plan import Rung
from serve_app.verdicts import Outcome, VerdictKind

pytestmark = pytest.mark.usefixtures("driven_by_hand")

# The full model takes five seconds, the light one none to speak of.
SLOW_S = QUICK_S | dict.fromkeys([("full", VGA), ("full", PORTRAIT)], (5.0, 9.0, 17.0))
# Its only rung below the first is the light model.
ONE_RUNG = {"ladder": (Rung("light"),)}
NOTHING_KNOWN = LatencyTable("the tests' machine", Origin.MEASURED, {})


def records(path) -> dict[str, dict]:
    """The lines of a frame log, by frame."""
    return {record["frame_id"]: record for record in map(json.loads, path.read_text().splitlines())}


@pytest.fixture
def log(tmp_path):
    """A frame log, which is closed at the end."""
    made = FrameLog(tmp_path / "frames.jsonl")
    yield made
    made.close()


@pytest.fixture
def log_path(tmp_path):
    """Where it is."""
    return tmp_path / "frames.jsonl"


def test_a_newer_frame_takes_the_place_of_one_that_waits(log, log_path, clock):
    """With `keep: latest` the older one is answered at once, as what it is, and recorded; the newer one is served."""

    async def scenario(world):
        older = world.submit(sample_meta("a", camera="latest-1"))
        await world.settle()
        clock.pass_s(2.0)
        newer = world.submit(sample_meta("b", camera="latest-1"), sample_meta("c", camera="latest-2"))
        (superseded,) = await older

        assert (superseded.outcome, superseded.verdict) == (Outcome.SUPERSEDED, ADMITTED)
        assert (superseded.replica, superseded.batch_size) == (None, 0)
        assert superseded.times.total_s == superseded.times.queue_s == 2.0
        with pytest.raises(FrameSupersededError, match="superseded: a newer one of its camera came"):
            superseded.unless_failed()
        await with_replica(world)
        (await world.near.next_call()).answer(found(0.2), found(0.3))
        assert brief(await newer) == [("b", "finished", 0.2), ("c", "finished", 0.3)]
        assert (await world.router.status()).outcomes == {"superseded": 1, "finished": 2}

    play(scenario, ladder_plan(ladder=()), log)
    line = records(log_path)["a"]
    assert (line["outcome"], line["at_s"], line["slo_s"]) == ("superseded", 1000.0, 30.0)
    assert line["error"] == "frame superseded: a newer one of its camera came while it waited"


def test_of_frames_in_one_call_the_newest_is_kept():
    """The older ones are answered in their places."""

    async def scenario(world):
        caller = world.submit(*(sample_meta(name, camera="latest-1") for name in "abc"))
        await with_replica(world)
        (await world.near.next_call()).answer(found(0.3))
        assert brief(await caller) == [("a", "superseded", None), ("b", "superseded", None), ("c", "finished", 0.3)]

    play(scenario, ladder_plan(ladder=()))


@pytest.mark.parametrize(
    "newer",
    [{"camera": "gate-1"}, {"camera": "latest-2"}, {"camera": "latest-1", "priority": "critical"}],
    ids=["keeps all", "another camera", "another priority"],
)
def test_no_other_frame_takes_its_place(newer):
    """Only one of the same camera and priority."""

    async def scenario(world):
        callers = [world.submit(sample_meta("a", camera="latest-1")), world.submit(sample_meta("b", **newer))]
        await with_replica(world)
        first = await world.near.next_call()
        for call in [first] if len(first.refs) == 2 else [first, await world.near.next_call()]:
            call.answer(*(found(0.5) for _ in call.refs))
        assert [(await caller)[0].outcome for caller in callers] == [Outcome.FINISHED] * 2

    play(scenario, ladder_plan(ladder=()))


def test_a_frame_that_runs_is_not_superseded():
    """It is with a replica: both are answered."""

    async def scenario(world):
        await with_replica(world)
        older = world.submit(sample_meta("a", camera="latest-1"))
        call = await world.near.next_call()
        newer = world.submit(sample_meta("b", camera="latest-1"))
        (await world.near.next_call()).answer(found(0.2))
        call.answer(found(0.1))
        assert brief(await older + await newer) == [("a", "finished", 0.1), ("b", "finished", 0.2)]

    play(scenario, ladder_plan(ladder=()))


def test_a_degraded_frame_says_and_records_its_rung(log, log_path, clock):
    """Its own model would be late: the light one serves it, and nobody is left in the dark."""

    async def scenario(world):
        await with_replica(world)
        clock.pass_s(1.0)
        caller = world.submit(sample_meta("a", slo_s=2.0))
        call = await world.near.next_call()
        assert (call.request.bucket, call.request.canvas) == ("light", VGA)
        call.answer(found(0.4))
        (result,) = await caller

        assert (result.outcome, score_of(result)) == (Outcome.FINISHED, 0.4)
        assert (result.rung, result.model, result.bucket) == (1, "light", "light")
        assert (result.verdict.kind, result.verdict.rung) == (VerdictKind.DEGRADE, 1)
        assert result.verdict.reason == "rung 1: light on 480x640 instead of full on 480x640"

    play(scenario, ladder_plan(**ONE_RUNG), log, sample_table(SLOW_S))
    line = records(log_path)["a"]
    assert (line["verdict"], line["rung"], line["num_tiles"], line["model"]) == ("degrade", 1, 0, "light")
    assert (line["at_s"], line["slo_s"]) == (1001.0, 2.0)


def test_a_camera_that_must_not_be_degraded_is_served_by_its_own_model(clock):
    """Though it will be late."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("a", camera="firm-1", slo_s=2.0))
        call = await world.near.next_call()
        assert call.request.bucket == "vga"
        clock.pass_s(5.0)
        call.answer(found(0.4))
        (result,) = await caller
        assert (result.outcome, result.rung, result.model) == (Outcome.FINISHED, 0, "full")
        assert result.verdict.kind is VerdictKind.ADMIT

    play(scenario, ladder_plan(**ONE_RUNG), latency=sample_table(SLOW_S))


def test_a_frame_that_waited_too_long_for_its_own_model_is_served_lower(log, log_path, clock):
    """The verdict stays what it was at arrival; model and rung are what it came to."""

    async def scenario(world):
        caller = world.submit(sample_meta("a", slo_s=30.0))
        await world.settle()
        clock.pass_s(27.0)
        await with_replica(world)
        call = await world.near.next_call()
        assert call.request.bucket == "light"
        call.answer(found(0.4))
        (result,) = await caller
        assert (result.outcome, result.rung, result.model) == (Outcome.FINISHED, 1, "light")

    play(scenario, ladder_plan(**ONE_RUNG), log, sample_table(SLOW_S))
    line = records(log_path)["a"]
    assert (line["verdict"], line["rung"], line["bucket"], line["queue_ms"]) == ("defer", 1, "light", 27_000.0)


def test_what_replicas_measured_after_warming_is_believed_until_batches_say_more(clock):
    """From the first report on admission reckons with it; a replica that comes later does not turn the clock back."""
    shapes = [WarmShape(VGA, batch) for batch in (1, 2, 4)]

    async def scenario(world):
        latency = world.router._scheduler.latency
        world.near.say([
            report("near-0", *(("vga", shape, 5.0 * shape.batch) for shape in shapes), ("light", shapes[0], 0.01))
        ])  # fmt: skip
        await world.router.status()
        await world.settle()
        assert [latency.predict_s("full", VGA, shape.batch) for shape in shapes] == pytest.approx([5.0, 10.0, 20.0])
        assert latency.predict_s("light", VGA, 1) == pytest.approx(0.01)

        world.near.say([report("near-0"), report("near-1", ("vga", shapes[0], 77.0))])
        await world.settle()
        assert latency.predict_s("full", VGA, 1) == pytest.approx(5.0)
        clock.pass_s(1.0)
        caller = world.submit(sample_meta("a", slo_s=2.0))
        call = await world.near.next_call()
        assert call.request.bucket == "light"
        call.answer(found(0.1))
        assert (await caller)[0].verdict.kind is VerdictKind.DEGRADE

    play(scenario, ladder_plan(**ONE_RUNG), latency=NOTHING_KNOWN)


def test_what_a_batch_took_is_learnt():
    """Network and boxes; the wait behind another batch and the way there and back are no part of it."""

    async def scenario(world):
        await with_replica(world)
        latency = world.router._scheduler.latency
        assert not latency.is_measured("full", VGA, 1)
        caller = world.submit(sample_meta("a"))
        seconds = {"fetch_s": 1.0, "preprocess_s": 1.0, "staged_s": 5.0, "infer_s": 0.2, "postprocess_s": 0.05}
        (await world.near.next_call()).answer(found(0.1), **seconds)
        await caller
        assert latency.predict_s("full", VGA, 1) == pytest.approx(0.25)

    play(scenario, sample_plan(), latency=NOTHING_KNOWN)


def test_what_a_call_takes_beside_the_device_is_learnt(clock):
    """Of 55 ms 20 are on the device and 15 behind another batch: 20 are the way, more than the 10 assumed before."""

    async def scenario(world):
        await with_replica(world)
        assert (await world.router.status()).pools[0].around_s == pytest.approx(0.01)
        caller = world.submit(sample_meta("a"))
        call = await world.near.next_call()
        clock.pass_s(0.055)
        call.answer(found(0.1), staged_s=0.015, infer_s=0.018, postprocess_s=0.002)
        await caller
        assert 0.0101 < (await world.router.status()).pools[0].around_s < 0.02

    play(scenario, sample_plan())


def test_batches_that_an_engine_failed_teach_nothing():
    """An engine that fails at once is not a fast one: the predictions of all others would shrink with it."""

    async def scenario(world):
        await with_replica(world)
        latency = world.router._scheduler.latency
        before_s = latency.predict_s("full", VGA, 1)
        for number in range(20):
            caller = world.submit(sample_meta(str(number)))
            broken = FrameFailedError("engine of bucket vga: out of memory")
            (await world.near.next_call()).answer(broken, infer_s=0.0, postprocess_s=1e-5)
            assert brief(await caller) == [(str(number), "failed", None)]
        assert latency.predict_s("full", VGA, 1) == before_s
        assert latency.predict_s("full", HD, 1) == QUICK_S["full", HD][0]

    play(scenario, sample_plan())


def test_a_report_of_an_unknown_bucket_does_not_stop_the_counting():
    """While a new plan is rolled out, replicas of the old one still answer."""

    async def scenario(world):
        await world.router.status()
        world.near.say([report("near-0", ("of-the-old-plan", WarmShape(VGA, 1), 0.1))])
        await world.settle()
        world.near.say([report("near-1")])
        await world.settle()
        caller = world.submit(sample_meta("a"))
        call = await asyncio.wait_for(world.near.next_call(), 2.0)
        assert call.replica == "near-1"
        call.answer(found(0.1))
        assert brief(await caller) == [("a", "finished", 0.1)]

    play(scenario, sample_plan())


def test_a_critical_frame_passes_a_replica_that_has_its_hands_full():
    """One batch runs, one is staged: a critical one is sent all the same, marked to overtake."""

    async def scenario(world):
        await with_replica(world)
        callers = [world.submit(sample_meta("runs"))]
        calls = [await world.near.next_call()]
        callers.append(world.submit(sample_meta("staged", size_hw=(720, 1280))))
        calls.append(await world.near.next_call())
        callers.append(world.submit(sample_meta("waits")))
        await world.settle()
        assert world.near.calls.empty()
        callers.append(world.submit(sample_meta("stop", priority="critical")))
        calls.append(await world.near.next_call())
        assert [(call.request.bucket, call.request.urgent) for call in calls] == [
            ("vga", False), ("hd", False), ("vga", True)
        ]  # fmt: skip
        calls[2].answer(found(0.3))
        calls[0].answer(found(0.1))
        calls[1].answer(found(0.2))
        (await world.near.next_call()).answer(found(0.4))
        results = [result for caller in callers for result in await caller]
        assert {each.frame_id: score_of(each) for each in results} == {
            "runs": 0.1, "staged": 0.2, "waits": 0.4, "stop": 0.3
        }  # fmt: skip

    play(scenario, sample_plan())


def test_a_frame_that_is_larger_than_every_canvas_is_rejected_for_good_if_the_plan_says_so(log, log_path):
    """No time to come back: waiting makes it no smaller. Its neighbour is served."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("big", camera="reject-1", size_hw=(2000, 3000)), sample_meta("a"))
        (await world.near.next_call()).answer(found(0.1))
        rejected, served = await caller

        assert (rejected.outcome, served.outcome) == (Outcome.REJECTED, Outcome.FINISHED)
        assert isinstance(rejected.error, FrameRejectedError)
        assert rejected.error.retry_after_s is None
        assert str(rejected.error) == (
            "frame rejected: larger than every canvas, and the plan rejects such frames; shrink it"
        )

    play(scenario, ladder_plan(), log)
    assert (records(log_path)["big"]["verdict"], records(log_path)["big"]["slo_s"]) == ("reject", 30.0)


def test_records_say_when_a_frame_came_and_what_it_had(log, log_path, clock):
    """Seconds of the router's clock, and the deadline that counted: the caller's, or the plan's default."""

    async def scenario(world):
        await with_replica(world)
        clock.pass_s(0.25)
        caller = world.submit(
            sample_meta("own", slo_s=12.5),
            sample_meta("default", slo_s=None, priority="critical"),
            sample_meta("bad", slo_s=-1.0),
        )
        for _ in range(2):
            (await world.near.next_call()).answer(found(0.1))
        await caller

    play(scenario, sample_plan(), log)
    got = {name: (line["at_s"], line["slo_s"], line["outcome"]) for name, line in records(log_path).items()}
    assert got == {
        "own": (1000.25, 12.5, "finished"),
        "default": (1000.25, 0.25, "finished"),
        "bad": (1000.25, None, "rejected"),
    }


@pytest.mark.parametrize(
    "slo_s", [np.float32(20), np.float64(20), np.int64(20), 20], ids=lambda value: type(value).__name__
)
def test_a_deadline_in_numpys_numbers_is_as_good_as_any(slo_s, log, log_path, clock):
    """`check_meta` allows them: they neither spoil the record nor round the router's clock."""

    async def scenario(world):
        clock.pass_s(10_000_000.3)  # four months of uptime: a float32 counts in steps of a second there
        await with_replica(world)
        caller = world.submit(sample_meta("a", slo_s=slo_s))
        (await world.near.next_call()).answer(found(0.1))
        assert brief(await asyncio.wait_for(caller, 2.0)) == [("a", "finished", 0.1)]

    play(scenario, sample_plan(), log)
    line = records(log_path)["a"]
    assert (line["at_s"], line["slo_s"], line["outcome"]) == (10_001_000.3, 20.0, "finished")


@pytest.mark.parametrize("slo_s", ["soon", float("nan"), [1], None], ids=str)
def test_a_plain_call_with_neither_frame_nor_deadline_is_recorded(slo_s, log, log_path):
    """Whatever stands there instead of seconds: the caller learns of the frame, and the log is JSON."""

    async def scenario(world):
        world.num_submitted += 1
        with pytest.raises(InvalidFrameError, match="frame: got NoneType"):
            await world.router(None, slo_s=slo_s)

    play(scenario, sample_plan(), log)
    (record,) = [
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        for line in log_path.read_text().splitlines()
    ]
    assert (record["outcome"], record["slo_s"]) == ("rejected", None)


def test_a_replica_that_was_counted_out_before_the_call_gets_none(caplog):
    """Between the decision and the call a round of reports came: the batch goes to a replica that is there."""

    async def scenario(world):
        await with_replica(world)
        known, asked_for = world.router._replicas.line, []

        def line(pool, replica):
            asked_for.append(replica)
            return None if len(asked_for) == 1 else known(pool, replica)

        world.router._replicas.line = line
        caller = world.submit(sample_meta("a"))
        world.near.say([report("near-9")])
        call = await world.near.next_call()
        assert call.replica == "near-9"
        call.answer(found(0.1))
        assert brief(await caller) == [("a", "finished", 0.1)]
        assert (world.near.num_calls, asked_for[0]) == (1, "near-0")

    play(scenario, sample_plan())
    assert "replica near-0 died with batch 1" in caplog.text


def test_an_error_of_a_replica_that_is_alive_is_not_taken_for_its_death():
    """Ray raises what a method raised as its own class too: a `KeyError` of the code there is one here."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("a"))
        (await world.near.next_call()).fail(KeyError("no such name"))
        await world.settle()
        assert [each.replica for each in (await world.router.status()).pools[0].replicas] == ["near-0"]
        (result,) = await asyncio.wait_for(caller, 2.0)
        assert str(result.error) == "frame: the call to its replica failed (KeyError: 'no such name')"

    play(scenario, sample_plan())


def test_pixels_of_a_superseded_frame_are_let_go_of():
    """Nothing of it is needed any more."""

    async def scenario(world):
        ref = Ref()
        older = world.submit(sample_meta("a", camera="latest-1"), refs=[ref])
        await world.settle()
        newer = world.submit(sample_meta("b", camera="latest-1"))
        await older
        assert [entry.ref is ref for entry in world.router._book._in_flight.values()] == [False]
        await with_replica(world)
        (await world.near.next_call()).answer(found(0.1))
        await newer

    play(scenario, ladder_plan(ladder=()), latency=quick_table())


def test_the_light_bucket_of_these_plans_is_served_by_the_pool_that_is_watched():
    """Else the tests above would wait for ever."""
    assert LIGHT_BUCKET.pool == "near"


def test_a_service_that_ends_refuses_what_waits_and_what_comes():
    """Serve waits until the router owes nothing: it must not wait for replicas that are about to go."""

    async def scenario(world):
        waits = world.submit(sample_meta("waits"))
        await world.settle()
        await world.router.let_go()

        for results in (await asyncio.wait_for(waits, 2.0), await world.submit(sample_meta("late"))):
            (result,) = results
            assert result.outcome is Outcome.REJECTED
            assert "the service is being stopped" in str(result.error)
            assert result.error.retry_after_s > 0
        assert (await world.router.status()).outcomes == {"rejected": 2}

    play(scenario, sample_plan())
