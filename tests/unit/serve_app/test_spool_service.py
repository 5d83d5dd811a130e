"""The spool among its callers: tickets after the disk has the frame, one answer each, whatever goes away meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3

import numpy as np
import pytest
from spool_world import SIZE_HW, image_of, meta_of, play_spool, ref_to

from serve_app.errors import (
    FrameExpiredError,
    FrameFailedError,
    FrameLostError,
    FrameRejectedError,
    InvalidFrameError,
    ServiceUnavailableError,
    SpoolFullError,
    TicketUnknownError,
)
from serve_app.spool import feed_queue
from serve_app.spool.spool_feeder import FEED_SLO_S
from serve_app.spool.sqlite_file import FILE_NAME
from serve_app.verdicts import Outcome, VerdictKind


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Pauses are on the spool's clock, which stands still here: none at all, so that tries follow each other."""
    monkeypatch.setattr(feed_queue, "FIRST_PAUSE_S", 0.0)


def damage_record(folder, frame_id):
    """Change a byte of a record in the file, as a failing disk may."""
    with sqlite3.connect(folder / FILE_NAME) as database:
        (record,) = database.execute("SELECT record FROM pending WHERE frame_id = ?", (frame_id,)).fetchone()
        database.execute("UPDATE pending SET record = ? WHERE frame_id = ?", (record[:-3] + b"???", frame_id))
    database.close()


def test_a_frame_is_answered_with_its_own_pixels(tmp_path):
    """The ticket says that it is durable; the result is the frame's, under its own id, again and again."""

    async def scenario(world):
        tickets = await world.keep("a", "b", "c")
        assert [ticket.ticket_id for ticket in tickets] == ["durable-a", "durable-b", "durable-c"]
        assert {ticket.is_durable for ticket in tickets} == {True}
        assert (tickets[0].verdict.kind, tickets[0].expires_in_s) == (VerdictKind.DEFER, 500.0)
        for _ in range(2):
            results = [await world.result(ticket) for ticket in tickets]
            assert [(r.frame_id, r.camera, r.outcome, r.detections.scores[0]) for r in results] == [
                (frame_id, "night-1", Outcome.FINISHED, score) for frame_id, score in (("a", 1), ("b", 2), ("c", 3))
            ]
        assert sorted(world.line.fed_ids()) == ["a", "b", "c"]
        assert {slo_s for _, _, slo_s in world.line.fed} == {FEED_SLO_S}
        assert len({fed_id for fed_id, _, _ in world.line.fed}) == 3

    play_spool(scenario, tmp_path)


def test_a_ticket_is_given_when_the_disk_has_the_frame(tmp_path):
    """The next process answers it, although this one never fed it."""

    async def scenario(world):
        world.line.is_away = True
        tickets = await world.keep("a", "b")
        assert await world.result(tickets[0], wait_s=0) is None
        world.line.is_away = False
        await world.start()
        assert [(await world.result(ticket)).outcome for ticket in tickets] == [Outcome.FINISHED] * 2

    play_spool(scenario, tmp_path)


def test_frames_that_were_under_way_are_fed_again_and_answered_once(tmp_path):
    """The process ends between the router's answer and the disk, as far as anybody can tell."""

    async def scenario(world):
        world.line.gate.clear()
        tickets = await world.keep("a", "b", "c")
        await world.until(lambda: len(world.line.fed) == 3)
        await world.start()
        world.line.gate.set()
        assert [(await world.result(ticket)).frame_id for ticket in tickets] == ["a", "b", "c"]
        page = await world.service.ticket_results("night-1", 0, 0)
        assert sorted(result.frame_id for result in page.results) == ["a", "b", "c"]
        assert sorted(world.line.fed_ids()) == ["a", "a", "b", "b", "c", "c"]
        assert len({fed_id for fed_id, _, _ in world.line.fed}) == 6, "a router may still hold the first ones"

    play_spool(scenario, tmp_path)


def test_a_caller_that_asks_again_gets_the_same_ticket(tmp_path):
    """It never saw the first answer; one frame is fed."""

    async def scenario(world):
        (first,) = await world.keep("a")
        (again,) = await world.keep("a")
        assert again == first
        await world.result(first)
        (later,) = await world.keep("a")
        assert (later, (await world.result(later)).frame_id, world.line.fed_ids()) == (first, "a", ["a"])

    play_spool(scenario, tmp_path)


@pytest.mark.parametrize(
    ("meta", "value", "kind", "words"),
    [
        (meta_of("f", priority="critical"), image_of(1), InvalidFrameError, "send it to the router"),
        (meta_of("f", priority="urgent"), image_of(1), InvalidFrameError, "'critical', 'normal'"),
        (meta_of("f", slo_s=-1), image_of(1), InvalidFrameError, "slo_s"),
        (meta_of("f\ud800"), image_of(1), InvalidFrameError, "Unicode"),
        (meta_of("f", camera="c" * 513), image_of(1), InvalidFrameError, "got 513 bytes, allowed are 512"),
        (meta_of("f"), image_of(1)[:8], InvalidFrameError, r"announced were \(16, 24\)"),
        (meta_of("f"), np.zeros(SIZE_HW, np.float32), InvalidFrameError, "float32"),
        (meta_of("f"), OSError("owner died"), FrameLostError, "send it again"),
    ],
    ids=["critical", "priority", "deadline", "surrogate", "long name", "size", "dtype", "pixels gone"],
)
def test_what_cannot_be_kept_is_refused_by_itself(tmp_path, meta, value, kind, words):
    """With the reason, as a value; its neighbour in the call is kept."""

    async def scenario(world):
        refused, kept = await world.service.keep([meta, meta_of("fine")], [ref_to(value), ref_to(image_of(1))])
        assert type(refused) is kind
        assert refused.__traceback__ is None, "it would hold the pixels"
        with pytest.raises(kind, match=words):
            raise refused
        assert (await world.result(kept)).frame_id == "fine"
        (mismatch,) = await world.service.keep([meta_of("x")], [])
        assert isinstance(mismatch, InvalidFrameError)

    play_spool(scenario, tmp_path)


def test_a_frame_is_fed_as_soon_as_it_is_kept(tmp_path, monkeypatch):
    """Not when the feeder looks again by itself; likewise callers hear of its end."""
    monkeypatch.setattr("serve_app.spool.spool_feeder.LOOK_INTERVAL_S", 1000.0)
    monkeypatch.setattr("serve_app.spool.spool_service.LOOK_INTERVAL_S", 1000.0)

    async def scenario(world):
        for number in range(3):
            (ticket,) = await world.keep(f"f{number}")
            assert (await world.result(ticket)).frame_id == f"f{number}"

    play_spool(scenario, tmp_path)


def test_many_callers_at_once_share_the_waits_for_the_disk(tmp_path):
    """Each its own ticket; far fewer transactions than frames."""

    async def scenario(world):
        await world.until(world.service._opened.is_set)
        store = world.service._store
        groups = []
        keep = store.keep
        store.keep = lambda frames, now_s: groups.append(len(frames)) or keep(frames, now_s)
        tickets = await asyncio.gather(*(world.keep(f"f{number}") for number in range(64)))
        assert sum(groups) == 64
        assert max(groups) > 1
        assert [(await world.result(ticket)).frame_id for (ticket,) in tickets] == [f"f{n}" for n in range(64)]

    play_spool(scenario, tmp_path)


def test_a_full_spool_is_told_and_goes_on(tmp_path):
    """507 with when to come back; what lies there is answered, and makes room."""

    async def scenario(world):
        world.line.is_away = True
        kept, refused = [], []
        for number in range(30):
            noise = np.random.default_rng(number).integers(0, 256, (100, 100, 3), np.uint8)
            meta = meta_of(f"f{number}")
            meta = type(meta)(meta.frame_id, meta.camera, (100, 100))
            (told,) = await world.service.keep([meta], [ref_to(noise)])
            (refused if isinstance(told, SpoolFullError) else kept).append(told)
        assert len(kept) > 3
        assert len(refused) > 3
        assert refused[0].retry_after_s > 0
        assert (await world.service.status()).num_pending == len(kept)
        world.line.is_away = False
        for ticket in kept:
            assert (await world.result(ticket)).outcome is Outcome.FINISHED
        assert await world.keep("later")

    play_spool(scenario, tmp_path, max_bytes=600_000)


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([(Outcome.FAILED, FrameFailedError("broke"))] * 2, Outcome.FINISHED),
        ([(Outcome.FAILED, FrameFailedError("broke"))] * 3, Outcome.FAILED),
        ([InvalidFrameError("frame: odd")] * 3, Outcome.REJECTED),
        ([(Outcome.REJECTED, FrameRejectedError("no room", 0.0))] * 9, Outcome.FINISHED),
        ([ServiceUnavailableError("gone")] * 9, Outcome.FINISHED),
        ([(Outcome.EXPIRED, FrameExpiredError("late"))] * 9, Outcome.FINISHED),
    ],
    ids=["twice failed", "failed", "invalid", "no room", "away", "waited in vain"],
)
def test_tries_are_bounded_for_what_is_the_frames_own_fault(tmp_path, answers, outcome):
    """The load's and the service's cost none."""

    async def scenario(world):
        world.line.answers = list(answers)
        (ticket,) = await world.keep("f")
        result = await world.result(ticket)
        assert (result.outcome, result.frame_id) == (outcome, "f")
        assert len(world.line.fed) == len(answers) + (outcome is Outcome.FINISHED)

    play_spool(scenario, tmp_path)


def test_an_error_in_the_feeder_harms_one_try(tmp_path, caplog):
    """What nobody foresaw is logged, and the frame is fed by the next process."""

    async def scenario(world):
        world.line.answers = [ZeroDivisionError("a bug")]
        (ticket,) = await world.keep("f")
        await world.until(lambda: "a bug" in caplog.text)
        (other,) = await world.keep("g")
        assert (await world.result(other)).frame_id == "g"
        await world.start()
        assert (await world.result(ticket)).outcome is Outcome.FINISHED

    play_spool(scenario, tmp_path)


def test_a_frame_that_is_too_old_is_answered_as_expired(tmp_path):
    """By the plan's bound or its own, counted over restarts, also while the service is away."""

    async def scenario(world):
        world.line.is_away = True
        old, own = await world.keep("old"), await world.keep("own", slo_s=50.0)
        world.clocks.pass_s(60)
        result = await world.result(own[0])
        assert (result.outcome, result.size_hw) == (Outcome.EXPIRED, SIZE_HW)
        with pytest.raises(FrameExpiredError, match="60 s after it was kept in the spool, allowed were 50 s"):
            result.unless_failed()
        assert await world.result(old[0], wait_s=0) is None
        await world.service.stop()
        world.service = None
        world.clocks.pass_s(60)
        await world.start()
        assert (await world.result(old[0])).outcome is Outcome.EXPIRED

    play_spool(scenario, tmp_path, max_age_s=100.0)


def test_a_damaged_record_is_set_aside_and_its_ticket_answered(tmp_path, caplog):
    """Between two sound ones, which are served; people see it, and may take it away."""

    async def scenario(world):
        world.line.is_away = True
        tickets = await world.keep("a", "b", "c")
        await world.service.stop()
        world.service = None
        damage_record(tmp_path, "b")
        world.line.is_away = False
        await world.start()
        results = [await world.result(ticket) for ticket in tickets]
        assert [result.outcome for result in results] == [Outcome.FINISHED, Outcome.FAILED, Outcome.FINISHED]
        assert "checksum" in results[1].error.message
        assert "framelane spool" in results[1].error.message
        assert "frame b of camera 'night-1' is set aside" in caplog.text
        status = await world.service.status()
        assert (status.num_pending, status.num_done, status.num_aside) == (0, 3, 1)
        (aside,) = await world.service.aside()
        assert (aside.frame_id, "checksum" in aside.reason) == ("b", True)
        assert (await world.service.drop_aside("b")).endswith(b"???")
        assert await world.service.aside() == []

    play_spool(scenario, tmp_path)


def test_a_store_that_is_away_at_the_start_is_waited_for(tmp_path):
    """Frames are refused with its reason until it is there; nothing has to be started again."""

    async def scenario(world):
        await world.service.stop()
        world.service = None
        world.open_error = ServiceUnavailableError("spool: Redis does not answer")
        await world.start(open_wait_s=0.01)
        (refused,) = await world.service.keep([meta_of("f")], [ref_to(image_of(1))])
        assert isinstance(refused, ServiceUnavailableError)
        assert "takes no frames now: spool: Redis does not answer" in refused.message
        assert refused.retry_after_s > 0
        status = await world.service.status()
        assert (status.problem, status.num_pending) == ("spool: Redis does not answer", 0)
        with pytest.raises(ServiceUnavailableError, match="takes no frames now"):
            await world.service.ticket_result("durable-f", 0)
        world.open_error = ValueError("odd")
        await world.until(lambda: world.service._problem == "ValueError: odd")
        world.open_error = None
        await world.until(world.service._opened.is_set)
        (ticket,) = await world.keep("f")
        assert (await world.result(ticket)).outcome is Outcome.FINISHED
        assert (await world.service.status()).problem is None

    play_spool(scenario, tmp_path)


def test_a_store_that_goes_away_in_service_loses_nothing(tmp_path, monkeypatch):
    """Results wait for it; new frames are refused; callers are told; then all goes on."""
    away = ServiceUnavailableError("spool: Redis does not answer", 1.0)
    monkeypatch.setattr("serve_app.spool.spool_feeder.pause_s", lambda _: 0.01)

    async def scenario(world):
        world.line.gate.clear()
        (ticket,) = await world.keep("f")
        await world.until(lambda: world.line.fed)
        store = world.service._store
        names = ("keep", "take", "load", "finish", "answer", "usage")
        sound = {name: getattr(store, name) for name in names}

        def fails(*_):
            raise away

        for name in names:
            setattr(store, name, fails)
        world.line.gate.set()
        (refused,) = await world.service.keep([meta_of("g")], [ref_to(image_of(1))])
        assert (type(refused), refused.retry_after_s) == (ServiceUnavailableError, 1.0)
        assert (await world.service.status()).problem == away.message
        with pytest.raises(ServiceUnavailableError):
            await world.result(ticket)
        for name in names:
            setattr(store, name, sound[name])
        assert (await world.result(ticket)).outcome is Outcome.FINISHED
        assert world.line.fed_ids() == ["f"]
        (later,) = await world.keep("g")
        assert (await world.result(later)).frame_id == "g"

    play_spool(scenario, tmp_path)


def test_callers_wait_for_their_ticket_or_camera(tmp_path):
    """They are woken by the end of their frame; who waits in vain is told so in time."""

    async def scenario(world):
        world.line.gate.clear()
        (ticket,) = await world.keep("f")
        asked = [
            asyncio.create_task(world.service.ticket_result(ticket.ticket_id, 10)),
            asyncio.create_task(world.service.ticket_results("night-1", 0, 10)),
            asyncio.create_task(world.service.ticket_results("other", 0, 0.05)),
        ]
        assert await asked[2] is not None
        world.line.gate.set()
        assert (await asked[0]).frame_id == "f"
        page = await asked[1]
        assert [result.frame_id for result in page.results] == ["f"]
        assert (await world.service.ticket_results("night-1", page.cursor, 0)).results == ()
        with pytest.raises(TicketUnknownError, match="'nope' is not in the spool"):
            await world.service.ticket_result("durable-nope", 0)
        assert world.service._news._watchers == {}

    play_spool(scenario, tmp_path)


def test_the_status_counts(tmp_path):
    """What waits, since when, and what is under way."""

    async def scenario(world):
        world.line.gate.clear()
        await world.keep("a", "b")
        await world.until(lambda: len(world.line.fed) == 2)
        world.clocks.pass_s(7)
        status = await world.service.status()
        assert (status.place, status.node, status.problem) == ("here", "node-1", None)
        assert (status.num_pending, status.num_in_flight, status.num_done, status.num_aside) == (2, 2, 0, 0)
        assert status.oldest_age_s == 7
        assert 0 < status.num_bytes < status.max_bytes

    play_spool(scenario, tmp_path)


def test_jpeg_frames_are_smaller(tmp_path):
    """With a quality in the plan the pixels are not lossless, and take less room."""

    async def scenario(world):
        world.line.is_away = True
        await world.keep("f")
        database = sqlite3.connect(tmp_path / FILE_NAME)
        (record,) = database.execute("SELECT record FROM pending").fetchone()
        database.close()
        assert b'"encoding": "jpeg"' in record

    play_spool(scenario, tmp_path, jpeg_quality=80)
