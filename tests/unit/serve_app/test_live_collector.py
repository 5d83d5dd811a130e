"""One collector for all who watch: looks while somebody does, rests otherwise, survives what it looks at."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

import numpy as np
import pytest
from metric_samples import FINISHED
from serve_samples import sample_plan
from status_samples import VIEW

from serve_app.errors import ServiceUnavailableError
from serve_app.live.camera_book import CameraBook
from serve_app.live.collector import Collector
from serve_app.live.live_report import FrameSeen, LiveReport
from serve_app.live.pictures import key_of
from serve_app.live.source import FrameToFetch, LiveLook
from serve_app.live.viewers import MAX_MISSED, Event, TooManyViewersError, Viewer

PATIENCE_S = 20.0
GATE = key_of("gate-1")


class Source:
    """Gives looks, or raises what the test wants."""

    plan = sample_plan()

    def __init__(self):
        self.num_looks = self.num_rests = 0
        self.errors = deque()
        self.known = []
        self.threads = set()

    async def look(self, known, max_frames):
        """One camera, whose frame is told until it is known."""
        assert max_frames > 0
        self.num_looks += 1
        self.known.append(dict(known))
        if self.errors:
            raise self.errors.popleft()
        book = CameraBook()
        book.ended(FINISHED, 0.0)
        seen = FrameSeen("gate-1", "f-1", 10, FINISHED.detections, ())
        frames = () if known else (FrameToFetch(seen, self.fetch),)
        return LiveLook(VIEW, (LiveReport("router", book.cameras(0.0)),), frames)

    def fetch(self):
        """Pixels, and which thread asks for them."""
        self.threads.add(threading.current_thread())
        return np.zeros((480, 640, 3), np.uint8)

    async def rest(self):
        """Counts."""
        self.num_rests += 1


def play(scenario, **options):
    """Run a scenario with a quick collector, which rests in the end."""
    source = Source()

    async def main():
        collector = Collector(source, every_s=0.0, **({"linger_s": 0.0} | options))
        await asyncio.wait_for(scenario(collector, source), PATIENCE_S)
        await collector.close()
        assert collector.is_resting
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(main())
    return source


async def events(viewer, *kinds):
    """The next events of these kinds."""
    found = []
    while len(found) < len(kinds):
        event = await viewer.next(PATIENCE_S)
        assert event is not None
        if event.kind == kinds[len(found)]:
            found.append(event)
    return found


async def resting(collector):
    """Wait until it rests."""
    if collector._work is not None:
        await asyncio.wait([collector._work], timeout=PATIENCE_S)
    assert collector.is_resting


def test_it_looks_only_while_somebody_watches():
    """Then it tells the source to rest, forgets pictures, and begins again with the next viewer."""

    async def scenario(collector, source):
        assert (collector.is_resting, source.num_looks) == (True, 0)
        for round_number in (1, 2):
            viewer = collector.join()
            await events(viewer, "hello", "numbers")
            assert collector._pictures.find(GATE) is not None
            collector.leave(viewer)
            await resting(collector)
            assert source.num_rests == round_number
            assert collector._pictures.find(GATE) is None
        num_looks = source.num_looks
        await asyncio.sleep(0.05)
        assert source.num_looks == num_looks

    play(scenario)


def test_two_viewers_cost_one_look_and_see_the_same():
    """Each event is made once."""

    async def scenario(collector, _):
        one, two = collector.join(), collector.join()
        (first,), (second,) = await events(one, "numbers"), await events(two, "numbers")
        assert first.content["cameras"] == second.content["cameras"]
        assert second.content["num_viewers"] == 2

    play(scenario)


def test_there_are_only_so_many_viewers():
    """The next one is told when to come again; when one leaves there is room."""

    async def scenario(collector, _):
        viewers = [collector.join() for _ in range(3)]
        with pytest.raises(TooManyViewersError, match=r"3 watch already, allowed are 3; .* 5 s") as refused:
            collector.join()
        assert (refused.value.http_status, refused.value.retry_after_s) == (503, 5.0)
        collector.leave(viewers[0])
        collector.join()

    play(scenario, max_viewers=3)


def test_a_service_that_goes_away_is_told_and_its_return_too():
    """With the reason if it is ours; any other stays in the log. Nobody has to come again."""

    async def scenario(collector, source):
        source.errors += [ServiceUnavailableError("service: gone"), KeyError("secret")]
        viewer = collector.join()
        away, bug, _ = await events(viewer, "away", "away", "numbers")
        assert away.content["why"] == "service: gone"
        assert "secret" not in bug.content["why"]
        assert "KeyError" in bug.content["why"]

    play(scenario)


def test_pictures_are_made_in_a_thread_once_a_frame():
    """The loop stays free; what is known is said, so that a frame is fetched once."""

    async def scenario(collector, source):
        viewer = collector.join()
        await events(viewer, "numbers", "numbers")
        assert source.known[0] == {}
        assert source.known[-1] == {"gate-1": "f-1"}
        assert collector.picture(GATE).jpeg[:2] == b"\xff\xd8"

    source = play(scenario)
    assert len(source.threads) == 1
    assert threading.main_thread() not in source.threads


def test_a_browser_that_comes_back_gets_what_it_missed_of_the_charts():
    """By the id of the last event that it got; from another process's id all that there is."""

    async def scenario(collector, _):
        viewer = collector.join()
        first, _, third = await events(viewer, "numbers", "numbers", "numbers")
        (hello,) = await events(collector.join(None, collector.event_id(first)), "hello")
        numbers = [point["number"] for point in hello.content["history"]]
        assert hello.content["goes_on"]
        assert min(numbers) == first.number + 1
        assert third.number in numbers
        for strange in ("", "other-7", f"{first.number}", "x" * 64, "-", f"{collector._epoch}-x"):
            (hello,) = await events(collector.join(None, strange), "hello")
            assert not hello.content["goes_on"]
            assert hello.content["history"][0]["number"] == 1

    play(scenario)


def test_a_picture_that_is_asked_for_makes_a_resting_process_look():
    """Of several processes one has the line to the viewer, and another may be asked for the picture."""

    async def scenario(collector, source):
        made = asyncio.Event()
        make = collector._pictures.make

        async def making(frames):
            await make(frames)
            made.set()

        collector._pictures.make = making
        assert collector.picture(GATE) is None
        await made.wait()
        assert collector.picture(GATE).frame_id == "f-1"
        assert (source.num_looks, collector.num_viewers) == (1, 0)

    play(scenario)


def test_a_slow_viewer_misses_the_oldest_and_one_that_never_reads_is_let_go():
    """Its queue stays small, and nobody else waits."""
    events_told = [Event(number, "numbers", {}) for number in range(MAX_MISSED + 10)]

    async def main():
        viewer = Viewer()
        for event in events_told[:10]:
            viewer.tell(event)
        assert viewer.is_here
        assert await viewer.next(1.0) is events_told[8]
        assert viewer.num_missed == 0
        assert await viewer.next(1.0) is events_told[9]
        assert await viewer.next(0.001) is None
        for event in events_told:
            viewer.tell(event)
        assert not viewer.is_here

    asyncio.run(main())


def test_a_look_that_hangs_is_given_up(monkeypatch):
    """The page says so instead of standing still."""
    monkeypatch.setattr("serve_app.live.collector.LOOK_TIMEOUT_S", 0.01)

    async def scenario(collector, source):
        async def hang(*_):
            await asyncio.Event().wait()

        source.look = hang
        (away,) = await events(collector.join(), "away")
        assert "TimeoutError" in away.content["why"]

    play(scenario)
