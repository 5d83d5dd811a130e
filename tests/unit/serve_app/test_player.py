"""Cameras played against a fake client: none forgotten, none in the way of another."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app.errors import FrameExpiredError, FrameSupersededError, ServiceUnavailableError
from serve_app.player import PACED_IN_FLIGHT, UNPACED_IN_FLIGHT, UNPACED_SLO_S, Feed, play
from serve_app.results import FrameResult
from serve_app.sources import ScrollingSource, SourceError
from serve_app.verdicts import Outcome

OUTCOMES = {
    type(None): Outcome.FINISHED,
    FrameExpiredError: Outcome.EXPIRED,
    FrameSupersededError: Outcome.SUPERSEDED,
}


class FakeClient:
    """Answers at once, or when it is told to; records what it was asked."""

    def __init__(self, *, error=None, gate=None):
        self.calls = []
        self.in_flight = self.most_in_flight = 0
        self.error = error
        self.gate = gate

    async def submit_async(self, image_hwc, *, camera, priority, slo_s):
        """One call of the player."""
        self.calls.append((camera, priority, slo_s))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await (self.gate.wait() if self.gate else asyncio.sleep(0))
        finally:
            self.in_flight -= 1
        if isinstance(self.error, ServiceUnavailableError):
            raise self.error
        outcome = OUTCOMES[type(self.error)]
        return FrameResult(
            str(len(self.calls)), camera, image_hwc.shape[:2], priority, outcome, Detections.none(),
            error=self.error, canvas=CanvasShape(64, 64),
        )  # fmt: skip


class Broken:
    """A source with one frame that is lost, or none at all."""

    name, num_frames, is_live = "broken", 3, False

    def __init__(self, *, opens=True):
        self.opens = opens

    def first_size_hw(self):
        """Never asked by a player."""
        raise NotImplementedError

    def frames(self):
        """A frame, an error, a frame."""
        if not self.opens:
            raise SourceError("source broken: cannot be opened")
        yield frame()
        yield SourceError("source broken: a frame was lost")
        yield frame()


class Ending:
    """A source that says when it is at its end."""

    def __init__(self, source, at_end):
        self.source = source
        self.at_end = at_end

    def frames(self):
        """Those of the source."""
        yield from self.source.frames()
        self.at_end()


def frame():
    """A small frame."""
    return np.zeros((32, 48, 3), np.uint8)


def camera(name, count, **options):
    """A feed of so many frames."""
    return Feed(name, ScrollingSource(name, np.zeros((32, 96, 3), np.uint8), 48, 8, count), **options)


def ignore(*_):
    """No interest in results."""


def test_without_a_clock_every_frame_is_sent_with_two_on_their_way():
    """Neither service nor source waits for the other, and nothing is late."""
    client = FakeClient()
    seen = []
    first, second = asyncio.run(
        play(client, [camera("a", 7), camera("b", 4, limit=3)], lambda feed, *_: seen.append(feed.camera))
    )
    assert (first.num_frames, second.num_frames) == (7, 3)
    assert first.all_answered
    assert sorted(seen) == ["a"] * 7 + ["b"] * 3
    assert client.most_in_flight <= 2 * UNPACED_IN_FLIGHT
    assert {slo_s for _, _, slo_s in client.calls} == {UNPACED_SLO_S}


def test_with_a_clock_the_plans_deadline_holds_and_a_stuck_service_is_not_flooded():
    """More unanswered frames than the bound are skipped, counted, and not sent later."""
    count = PACED_IN_FLIGHT + 5

    async def stuck():
        # The gate opens when the source is at its end: until then nothing is answered.
        client = FakeClient(gate=asyncio.Event())
        loop = asyncio.get_running_loop()
        feed = camera("a", count, fps=100_000.0)
        ending = Ending(feed.source, lambda: loop.call_soon_threadsafe(client.gate.set))
        (summary,) = await play(client, [dataclasses.replace(feed, source=ending)], ignore)
        return client, summary

    client, summary = asyncio.run(stuck())
    assert (summary.num_frames, summary.num_skipped) == (PACED_IN_FLIGHT, 5)
    assert client.most_in_flight == PACED_IN_FLIGHT
    assert {slo_s for _, _, slo_s in client.calls} == {None}
    assert not summary.all_answered


def test_a_lost_frame_is_counted_and_the_others_go_on():
    """One error in the middle of a source."""
    (summary,) = asyncio.run(play(FakeClient(), [Feed("x", Broken())], ignore))
    assert (summary.num_frames, summary.num_unreadable, summary.all_answered) == (2, 1, False)
    assert summary.first_error == "source broken: a frame was lost"


def test_a_source_that_cannot_be_opened_stops_no_other():
    """Its error stands in its own summary."""
    bad, good = asyncio.run(play(FakeClient(), [Feed("x", Broken(opens=False)), camera("a", 3)], ignore))
    assert (bad.num_frames, bad.first_error) == (0, "source broken: cannot be opened")
    assert not bad.all_answered
    assert good.all_answered


@pytest.mark.parametrize(
    ("error", "outcomes", "num_unsent"),
    [
        (FrameExpiredError("too late"), {Outcome.EXPIRED: 2}, 0),
        (FrameSupersededError("a newer one came"), {Outcome.SUPERSEDED: 2}, 0),
        (ServiceUnavailableError("gone"), {}, 2),
    ],
    ids=["expired", "superseded", "service gone"],
)
def test_frames_that_do_not_finish_are_counted_by_how_they_ended(error, outcomes, num_unsent):
    """And the first reason is kept."""
    (summary,) = asyncio.run(play(FakeClient(error=error), [camera("a", 2)], ignore))
    assert (dict(summary.outcomes), summary.num_unreadable) == (outcomes, num_unsent)
    assert summary.first_error == str(error)


def test_an_error_of_the_listener_ends_the_play_and_leaves_no_task():
    """A closed pipe, say: everything that still runs is cancelled and awaited."""

    def closed(*_):
        raise BrokenPipeError

    async def scene():
        with pytest.raises(BrokenPipeError):
            await play(FakeClient(), [camera("a", 50), camera("b", 50)], closed)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(scene()) == set()
