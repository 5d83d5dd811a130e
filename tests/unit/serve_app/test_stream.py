"""Cameras played against a fake client: each frame accounted for, in order, none in the way of another."""

from __future__ import annotations

import asyncio
import threading

import pytest
from stream_world import (
    PATIENCE_S,
    FakeClient,
    JumpingClock,
    ListSource,
    Sources,
    a_camera,
    a_file,
    assert_whole,
    brief,
    items_of,
)

from serve_app import streams
from serve_app.errors import FrameExpiredError, FrameFailedError, FramelaneError, ServiceUnavailableError
from serve_app.plan import Keep
from serve_app.streams import Stream
from serve_app.streams.camera_flow import PACED_IN_FLIGHT, UNPACED_IN_FLIGHT, UNPACED_SLO_S
from serve_app.streams.camera_spec import CameraListError
from serve_app.streams.source import SourceError
from serve_app.streams.stream_values import Answer, GapCause
from serve_app.verdicts import Outcome


def stream_of(specs, client=None, **sources):
    """A stream of fakes."""
    return Stream(
        specs, client=client or FakeClient(), open_source=Sources(**sources), clock=JumpingClock(), uniform=lambda: 1.0
    )


def played(specs, client=None, **sources):
    """The items of each camera, in brief; and the stream, at its end."""
    stream = stream_of(specs, client, **sources)
    items = asyncio.run(items_of(stream))
    return {name: brief(own) for name, own in items.items()}, stream


def test_the_package_offers_these_names_and_each_is_there():
    """Pinned: what stands here is what users may build on."""
    assert streams.__all__ == sorted(streams.__all__)
    assert all(getattr(streams, name).__name__ == name for name in streams.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = streams.nothing


def test_without_a_clock_every_frame_is_answered_in_order_with_two_on_their_way():
    """Neither service nor source waits for the other, and nothing is late."""
    client = FakeClient()
    items, stream = played([a_file("a"), a_file("b", limit=3)], client, a=[ListSource(7)], b=[ListSource(4)])
    assert items == {"a": list(range(7)), "b": [0, 1, 2]}
    assert client.most_in_flight <= 2 * UNPACED_IN_FLIGHT
    assert {slo_s for _, _, slo_s in client.calls} == {UNPACED_SLO_S}
    assert all(summary.all_answered for summary in stream.summaries)


def test_answers_come_in_order_though_the_service_answers_the_last_one_first():
    """Two in flight, answered the wrong way round."""

    class Reversing(FakeClient):
        def __init__(self):
            super().__init__()
            self.second = asyncio.Event()

        async def submit_async(self, image_hwc, **options):
            number = int(image_hwc[0, 0, 0])
            if number % 2:
                self.second.set()
            else:
                await self.second.wait()
                self.second.clear()
            return await super().submit_async(image_hwc, **options)

    items, _ = played([a_file("a")], Reversing(), a=[ListSource(6)])
    assert items == {"a": [0, 1, 2, 3, 4, 5]}


def test_a_frame_and_its_detections_unpack():
    """The short form of a loop."""
    (answer,) = asyncio.run(items_of(stream_of([a_file("a")], a=[ListSource(1)])))["a"]
    frame, detections = answer
    assert (frame.number, frame.at_s, frame.image_hwc.shape, len(detections)) == (0, 0.0, (32, 48, 3), 0)


def test_with_a_clock_a_stuck_service_costs_frames_that_are_told_and_keeps_memory_bounded():
    """No more than the bound is in flight; what newer frames replaced is one gap, in its place."""

    async def stuck():
        client, source = FakeClient(gate=asyncio.Event()), ListSource(40)
        decode = source.decode

        def decoded(number):
            # Each of the first ones is on its way before the next one comes.
            assert not 1 <= number <= PACED_IN_FLIGHT or client.called.acquire(timeout=PATIENCE_S)
            return decode(number)

        source.decode = decoded
        stream = stream_of([a_file("a", fps=1000.0)], client, a=[source])

        async def let_go():
            assert await asyncio.to_thread(source.closed.wait, PATIENCE_S)
            client.gate.set()

        letting_go = asyncio.create_task(let_go())
        items = await items_of(stream)
        await letting_go
        return client, brief(items["a"])

    client, items = asyncio.run(stuck())
    assert client.most_in_flight == PACED_IN_FLIGHT
    assert items[:PACED_IN_FLIGHT] == list(range(PACED_IN_FLIGHT))
    assert items[PACED_IN_FLIGHT] == ("superseded", 31)
    assert items[PACED_IN_FLIGHT + 1 :] == [39]
    assert {slo_s for _, _, slo_s in client.calls} == {None}


def test_a_lost_frame_is_one_gap_and_the_others_go_on():
    """One error in the middle of a source."""
    items, stream = played([a_file("a")], a=[ListSource(1, SourceError("a frame was lost"), 1)])
    assert items == {"a": [0, ("lost", 1), 2]}
    (summary,) = stream.summaries
    assert (summary.num_frames, summary.num_answered, summary.all_answered) == (3, 2, False)
    assert summary.first_error == "a frame was lost"


@pytest.mark.parametrize(
    "bad",
    [SourceError("cannot be opened"), RuntimeError("a decoder's bug with rtsp://u:secret@h/x"),
     ListSource(SourceError("holds no frame"))],
    ids=["cannot be opened", "bug", "empty"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_bad_source_harms_no_other(bad, caplog):
    """It ends with its reason, without a password; the other one is whole."""
    items, stream = played([a_file("bad"), a_file("good")], bad=[bad], good=[ListSource(5)])
    assert items == {"bad": [("lost", 0)], "good": [0, 1, 2, 3, 4]}
    assert "secret" not in str(stream.summaries) + str(stream.states)
    assert [summary.all_answered for summary in stream.summaries] == [False, True]
    assert len(caplog.records) == (1 if isinstance(bad, RuntimeError) else 0)


@pytest.mark.parametrize(
    ("error", "outcome", "gap"),
    [
        (FrameExpiredError("too late"), Outcome.EXPIRED, "expired"),
        (FrameFailedError("a replica could not"), Outcome.FAILED, "failed"),
        (FrameFailedError("raised"), Outcome.FINISHED, "failed"),
        (ValueError("no error of ours"), Outcome.FINISHED, "failed"),
    ],
    ids=["expired", "failed", "raised", "a bug"],
)
def test_frames_that_do_not_finish_are_gaps_by_how_they_ended(error, outcome, gap):
    """With the service's own word, where there is one."""
    stream = stream_of([a_file("a")], FakeClient(error=error, outcome=outcome), a=[ListSource(2)])
    items = asyncio.run(items_of(stream))["a"]
    assert brief(items) == [(gap, 1), (gap, 1)]
    assert str(error) in items[0].reason
    assert (items[0].result is not None) == (outcome is not Outcome.FINISHED)
    (summary,) = stream.summaries
    assert (summary.gaps, summary.first_error) == ({GapCause(gap): 2}, items[0].reason)


def test_a_live_camera_that_goes_away_comes_back_and_says_so():
    """Twice broken, once silent at its opening; the others play on; a limit ends it."""
    gone = SourceError("source 10.0.0.7: broke off")
    items, stream = played(
        [a_camera("cam", limit=5, keep=Keep.ALL), a_file("file")],
        cam=[ListSource(2, gone), gone, ListSource(3)], file=[ListSource(4)],
    )  # fmt: skip
    assert items["file"] == [0, 1, 2, 3]
    assert [item for item in items["cam"] if isinstance(item, int)] == [0, 1, 2, 3, 4]
    assert ("reconnecting", 0) in items["cam"]
    assert stream.states["cam"].num_connects == 2


def test_when_the_service_comes_back_a_file_has_lost_nothing_and_says_that_it_waited():
    """A new client is connected; what was on its way to the old one is sent again."""

    async def scene():
        first, second = FakeClient(), FakeClient()
        clients = iter([first, ServiceUnavailableError("still starting"), second])

        def connect():
            client = next(clients)
            if isinstance(client, Exception):
                raise client
            return client

        first.error = None
        stream = Stream(
            [a_file("a")], connect=connect, open_source=Sources(a=[ListSource(9)]), clock=JumpingClock(),
            uniform=lambda: 0.0,
        )  # fmt: skip
        items = []
        async with stream:
            stream._link._sleep = lambda _: asyncio.sleep(0)
            async for item in stream:
                items.append(item)
                if len(items) == 3:
                    first.error = ServiceUnavailableError("it went")
            assert_whole(items, stream.num_read["a"])
        return brief(items), stream.num_outages, second.seen

    items, num_outages, seen = asyncio.run(scene())
    assert [item for item in items if isinstance(item, int)] == list(range(9))
    assert [item for item in items if not isinstance(item, int)] == [("service away", 0)]
    assert num_outages == 1
    assert seen[-1] == ("a", 8)


def test_while_the_service_is_away_a_live_camera_has_gaps():
    """Frames on their way are gone, those that came meanwhile are counted; then it goes on."""

    async def scene():
        client, source = FakeClient(), ListSource(20)
        back, away = threading.Event(), threading.Event()
        decode = source.decode

        def decoded(number):
            if number == 5:
                client.error = ServiceUnavailableError("it went")
            if number == 6:
                assert away.wait(PATIENCE_S)
            if number == 15:
                back.set()
            return decode(number)

        source.decode = decoded

        async def slept(_):
            away.set()
            await asyncio.to_thread(back.wait, PATIENCE_S)
            client.error = None

        stream = stream_of([a_camera("cam", limit=20)], client, cam=[source])
        async with stream:
            stream._link._sleep = slept
            items = [item async for item in stream]
            assert_whole(items, 20)
        return items

    items = asyncio.run(scene())
    away = [item for item in items if not isinstance(item, Answer) and item.cause is GapCause.SERVICE_AWAY]
    assert sum(item.num_frames for item in away) >= 9
    assert items[-1].frame.number == 19


def test_a_stop_gives_what_was_read_and_then_ends():
    """In order: no frame that was read is forgotten."""

    async def scene():
        stream = stream_of([a_file("a", loop=True)], a=[ListSource(5)])
        items = []
        async with stream:
            async for item in stream:
                items.append(item)
                if len(items) == 12:
                    stream.stop()
            assert_whole(items, stream.num_read["a"])
        return items

    items = asyncio.run(scene())
    assert 12 <= len(items) <= 12 + UNPACED_IN_FLIGHT + 20
    assert [round(item.frame.at_s, 3) for item in items[:7]] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_a_stop_while_the_service_hangs_gives_gaps(monkeypatch):
    """Who stops does not wait for answers for ever."""
    monkeypatch.setattr("serve_app.streams.stream.STOP_S", 0.01)

    async def scene():
        client = FakeClient(gate=asyncio.Event())
        stream = stream_of([a_file("a")], client, a=[ListSource(9)])
        async with stream:
            for _ in range(UNPACED_IN_FLIGHT):
                assert await asyncio.to_thread(client.called.acquire, timeout=PATIENCE_S)
            stream.stop()
            items = [item async for item in stream]
            assert_whole(items, stream.num_read["a"])
        return items

    assert {item.cause for item in asyncio.run(scene())} == {GapCause.STOPPED}


def test_leaving_in_the_middle_leaves_no_task_and_no_thread():
    """An error of the consumer, say a closed pipe: everything that still runs is cancelled and awaited."""

    async def scene():
        client = FakeClient()
        stream = stream_of([a_file("a"), a_camera("b")], client, a=[ListSource(500)], b=[ListSource(500)])

        async def leave():
            async with stream:
                async for _ in stream:
                    raise BrokenPipeError

        with pytest.raises(BrokenPipeError):
            await leave()
        assert [item async for item in stream] == []
        assert client.in_flight == 0
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(scene()) == set()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("camera ")] == []


def test_a_slow_consumer_holds_a_file_up_and_costs_a_live_camera_frames():
    """Memory is bounded whatever it does."""

    async def scene():
        live, source = ListSource(400), ListSource(400)
        stream = stream_of([a_file("file"), a_camera("cam", reconnect=False)], file=[source], cam=[live])
        async with stream:
            await asyncio.to_thread(stream._cameras["cam"].reader.join, PATIENCE_S)
            num_read = stream.num_read["file"]
            items = [item async for item in stream]
        assert_whole([item for item in items if item.camera == "cam"], 400)
        assert_whole([item for item in items if item.camera == "file"], 400)
        return num_read, brief([item for item in items if item.camera == "cam"])

    num_read, cam = asyncio.run(scene())
    assert num_read < 40
    assert (
        sum(count for cause, count in (item for item in cam if isinstance(item, tuple)) if cause == "superseded") > 300
    )


@pytest.mark.parametrize(
    ("cameras", "words"),
    [([], "got none"), ([a_file("x"), a_file("x")], "a name twice"), (["/a/gate.avi", "/b/gate.avi"], "gate")],
)
def test_cameras_that_cannot_be_told_apart_are_refused(cameras, words):
    """Before anything is opened."""
    with pytest.raises(CameraListError, match=words):
        Stream(cameras)


def test_a_stream_that_was_not_entered_says_how():
    """The usual slip."""

    async def scene():
        with pytest.raises(FramelaneError, match="async with"):
            await anext(Stream(["x.avi"]))

    asyncio.run(scene())
