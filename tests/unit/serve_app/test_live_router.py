"""A real router, driven by hand: what the live page gets of it, and that it lets go of pixels."""

from __future__ import annotations

import gc
import weakref

import pytest
from router_world import Ref, found, play, with_replica
from serve_samples import sample_meta, sample_plan

from serve_app.live.live_report import LiveAsk

pytestmark = pytest.mark.usefixtures("driven_by_hand")
WATCH, STOP = LiveAsk("page", 5.0, {}, 10), LiveAsk("page", 0.0)


async def served(world, frame_id, ref, **changes):
    """A frame that finishes."""
    caller = world.submit(sample_meta(frame_id, **changes), refs=[ref])
    (await world.near.next_call()).answer(found(0.5))
    await caller


def test_a_watched_router_tells_last_frames_and_lets_go_when_the_page_stops():
    """Only then; before anybody watched it kept none. A ref that nobody holds is pixels that leave the store."""

    async def scenario(world):
        await with_replica(world)
        unwatched, watched = Ref(), Ref()
        before, after = weakref.ref(unwatched), weakref.ref(watched)
        await served(world, "f1", unwatched)
        del unwatched
        gc.collect()
        assert before() is None
        assert (await world.router.live_here(WATCH))[1] == []
        await served(world, "f2", watched)
        report, refs = await world.router.live_here(WATCH)
        assert [frame.frame_id for frame in report.frames] == ["f2"]
        assert refs == [watched]
        assert [len(frame.detections) for frame in report.frames] == [1]
        del watched, refs
        gc.collect()
        assert after() is not None
        await world.router.live_here(STOP)
        gc.collect()
        assert after() is None

    play(scenario, sample_plan())


def test_pixels_go_when_a_page_has_died(clock):
    """Its lease ends without a word; the router's own second hand notices it."""

    async def scenario(world):
        await with_replica(world)
        await world.router.live_here(WATCH)
        ref = Ref()
        held = weakref.ref(ref)
        await served(world, "f1", ref)
        del ref
        gc.collect()
        assert held() is not None
        clock.pass_s(6.0)
        await with_replica(world)
        gc.collect()
        assert held() is None

    play(scenario, sample_plan())


def test_what_it_tells_of_cameras_is_what_the_status_counts():
    """Frame by frame, refused ones too."""

    async def scenario(world):
        await with_replica(world)
        for number in range(3):
            await served(world, f"f{number}", Ref(), camera="gate-1")
        (refused,) = await world.submit(sample_meta("f9", camera="gate-2", priority="urgent"))
        assert refused.outcome.value == "rejected"
        report, _ = await world.router.live_here(WATCH)
        status = await world.router.status()
        assert {camera.camera: (camera.num_ended, camera.num_finished) for camera in report.cameras} == {
            "gate-1": (3, 3), "gate-2": (1, 0),
        }  # fmt: skip
        assert sum(camera.num_ended for camera in report.cameras) == sum(status.outcomes.values())
        assert sum(spread.num_values for spread in report.total_s.values()) == status.outcomes["finished"]
        assert sum(report.flows.values()) == status.outcomes["finished"]

    play(scenario, sample_plan())
