"""What a router counts and says of all that can become of frames and batches, and what its status adds up to."""

from __future__ import annotations

import logging

import pytest
from metric_samples import RecordingSink
from ray.exceptions import RayActorError
from router_world import Router, brief, found, play, with_replica
from serve_samples import sample_meta, sample_plan

from serve_app.errors import FrameFailedError
from serve_app.log_fields import EXTRA_FIELDS
from serve_app.metrics import FLUSH_INTERVAL_S
from serve_app.pressure import MemoryLevel

pytestmark = pytest.mark.usefixtures("driven_by_hand")


@pytest.fixture
def sink(monkeypatch):
    """Where the metrics of the router of `play` go."""
    sink = RecordingSink()

    class ToldRouter(Router):
        def __init__(self, *arguments):
            super().__init__(*arguments, open_metrics=lambda: sink)

    monkeypatch.setattr("router_world.Router", ToldRouter)
    return sink


def test_every_end_of_a_frame_and_of_a_batch_is_counted_once(sink, clock):
    """Answered, died, called in vain, out of memory, refused: the sums are those of the status."""

    async def scenario(world):
        await with_replica(world)
        answered = world.submit(sample_meta("a"))
        (await world.near.next_call()).answer(found(0.1), infer_s=0.02)
        bad = world.submit(sample_meta("b"))
        (await world.near.next_call()).answer(FrameFailedError("unreadable"), infer_s=0.02)
        refused = world.submit(sample_meta("c", priority="urgent"))
        called = world.submit(sample_meta("d"))
        (await world.near.next_call()).fail(ValueError("no such bucket"))
        short = world.submit(sample_meta("e"))
        (await world.near.next_call()).has_no_memory()
        for caller in (answered, bad, refused, called, short):
            await caller
        dying = world.submit(sample_meta("f"))
        (await world.near.next_call()).fail(RayActorError())
        await with_replica(world)
        (await world.near.next_call()).answer(found(0.2), infer_s=0.02)
        assert brief(await dying) == [("f", "finished", 0.2)]
        clock.pass_s(2 * FLUSH_INTERVAL_S)
        await with_replica(world)
        status = await world.router.status()
        ended = sink.of("framelane_ended_frames")
        by_outcome = {}
        for labels, number in ended.items():
            by_outcome[labels[-1]] = by_outcome.get(labels[-1], 0) + number

        assert by_outcome == status.outcomes == {"finished": 2, "failed": 3, "rejected": 1}
        assert status.verdicts == {"admit": 5}
        assert ended["", "", "", "other", "", "rejected"] == 1
        assert sink.of("framelane_lost_batches") == {("near", "died"): 1, ("near", "failed"): 1}
        assert sink.of("framelane_out_of_memory_batches") == {("near", "vga"): 1}
        assert sink.of("framelane_batch_frames_count") == {("near", "vga"): 3}
        assert sink.gauge("framelane_ready_replicas")["near",] == 1

    play(scenario, sample_plan())


def test_the_status_says_what_waits_by_class_and_how_full_memory_is():
    """Two critical frames and one normal one, for a pool without replicas, whose devices are nearly full."""

    async def scenario(world):
        metas = [sample_meta("a", priority="critical"), sample_meta("b", priority="critical"), sample_meta("c")]
        waiting = world.submit(*metas)
        await world.settle()
        world.router._scheduler.memory_is("near", MemoryLevel.HIGH)
        near, _ = (status := await world.router.status()).pools

        assert (near.waiting, near.num_waiting, near.memory) == ((2, 1, 0), 3, MemoryLevel.HIGH)
        assert (near.num_credits, near.num_wanted) == (0, 1)
        (own,) = status.routers
        assert (own.report.router, own.report.is_ready, own.outcomes, own.num_in_flight) == ("router", False, {}, 3)
        await with_replica(world, 3)
        assert (await world.router.status()).pools[0].num_credits > 0
        while not waiting.done():
            call = await world.near.next_call()
            call.answer(*[found(0.1)] * len(call.refs))
            await world.settle()

    play(scenario, sample_plan())


def test_a_health_check_starts_to_count_replicas():
    """Serve asks from the start: metrics and logs do not wait for the first frame."""

    async def scenario(world):
        await world.router.check_health()
        await world.settle()
        world.near.has_replicas(2)
        await world.settle()

        assert world.router._scheduler.loads()["near"].num_replicas == 2

    play(scenario, sample_plan())


def test_a_failed_call_is_a_line_with_its_batch_and_one_for_each_frame(caplog):
    """A collector finds frame, replica and batch by field."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("a"))
        with caplog.at_level(logging.INFO):
            (await world.near.next_call()).fail(ValueError("no such bucket"))
            await caller

    play(scenario, sample_plan())
    said = [getattr(record, EXTRA_FIELDS, {}) for record in caplog.records]
    assert {"pool": "near", "engine_replica": "near-0", "batch_id": 1} in said
    assert [each["frame_id"] for each in said if "frame_id" in each] == ["a"]
