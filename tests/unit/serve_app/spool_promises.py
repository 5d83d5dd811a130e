"""What every spool promises: one suite for SQLite and Redis. A test module imports it whole; its `case` says which.

A case opens stores over one place: `open(**bounds)` a process's store, `restart(store)` the next process's.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from spool_samples import TTL_S, end_of, ids_of, mark_at, new_frame, sample_result

from serve_app.errors import SpoolFullError, TicketExpiredError, TicketUnknownError
from serve_app.spool.result_record import result_from
from serve_app.tickets import TicketBook, TicketState
from serve_app.verdicts import Outcome

NOW_S = 1_000_000.0


def keep(store, *frame_ids, camera="gate", now_s=NOW_S):
    """Keep frames that must be taken."""
    assert store.keep([new_frame(frame_id, camera) for frame_id in frame_ids], now_s) == [None] * len(frame_ids)


def test_frames_are_taken_oldest_first_and_once(case):
    """However many are asked for; without their pixels, with all else."""
    store = case.open()
    keep(store, "b", "a")
    keep(store, "c", camera="other", now_s=NOW_S + 1)

    first = store.take(2)
    rest = store.take(10)

    assert [ids_of(first), ids_of(rest), store.take(10)] == [["b", "a"], ["c"], []]
    assert (rest[0].camera, rest[0].kept_s, rest[0].life_s, rest[0].num_tries) == ("other", NOW_S + 1, 3600.0, 0)


def test_a_record_comes_back_as_it_was_kept(case):
    """To the byte, until its frame has a result."""
    store = case.open()
    frame = new_frame("f", num_bytes=300_000)
    store.keep([frame], NOW_S)

    assert store.load("f") == frame.record
    store.finish([end_of("f")], NOW_S)
    assert store.load("f") is None
    assert store.load("nobody") is None


def test_a_frame_of_the_same_id_is_the_same_frame(case):
    """A caller that lost its answer asks again: while the frame waits, has ended, and is forgotten."""
    store = case.open()
    for _ in range(2):
        keep(store, "f", "f")
    assert (ids_of(store.take(10)), store.usage().num_pending) == (["f"], 1)

    store.finish([end_of("f")], NOW_S)
    keep(store, "f")
    assert (store.take(10), store.usage().num_pending, store.usage().num_done) == ([], 0, 1)

    store.tidy(mark_at(NOW_S + TTL_S + 1))
    keep(store, "f")
    assert (store.take(10), store.usage().num_pending, store.usage().num_done) == ([], 0, 0)


def test_the_first_result_is_the_frames_and_there_is_no_second(case):
    """Two processes may have fed one frame; the slower one is told that it was."""
    store = case.open()
    keep(store, "f")

    assert store.finish([end_of("f", score=0.25), end_of("f", score=0.75), end_of("unseen")], NOW_S) == [
        True, False, False,
    ]  # fmt: skip
    assert store.finish([end_of("f", score=0.5)], NOW_S) == [False]

    result = store.answer("f", NOW_S).unless_gone()
    assert result.detections.scores[0] == 0.25
    page = store.results_after("gate", 0, 10, NOW_S)
    assert [len(page.results), store.usage().num_done] == [1, 1]


def test_what_was_kept_survives_the_process(case):
    """Frames are taken again by the next one, also those that were under way; results stay readable."""
    store = case.open()
    keep(store, "done", "waits", "under-way")
    assert ids_of(store.take(1)) == ["done"]
    store.finish([end_of("done")], NOW_S + 1)
    store.take(1)
    cursor = store.results_after("gate", 0, 10, NOW_S).cursor

    store = case.restart(store)

    assert sorted(ids_of(store.take(10))) == ["under-way", "waits"]
    assert store.load("waits") == new_frame("waits").record
    assert store.answer("done", NOW_S + 2).unless_gone().outcome is Outcome.FINISHED
    store.finish([end_of("waits")], NOW_S + 3)
    page = store.results_after("gate", cursor, 10, NOW_S + 3)
    assert (ids_of(page.results), page.num_dropped, page.num_waiting) == (["waits"], 0, 1)


def test_failures_are_counted_over_restarts(case):
    """A frame that ends its process each time has no endless tries; one that has ended is not counted."""
    store = case.open()
    keep(store, "f", "ended")
    store.tried("f")
    store.tried("f")
    store.finish([end_of("ended")], NOW_S)
    store.tried("ended")

    store = case.restart(store)

    assert [(frame.frame_id, frame.num_tries) for frame in store.take(10)] == [("f", 2)]


def test_a_ticket_says_how_its_frame_stands(case):
    """Unknown, waiting, done, expired: as the router's tickets do, with the same errors."""
    store = case.open()
    assert store.answer("f", NOW_S).state is TicketState.UNKNOWN
    with pytest.raises(TicketUnknownError, match="'f' is not in the spool"):
        store.answer("f", NOW_S).unless_gone()

    keep(store, "f")
    waiting = store.answer("f", NOW_S + 5)
    assert (waiting.state, waiting.unless_gone()) == (TicketState.WAITING, None)
    assert "camera 'gate' has no outcome yet, 5.000 s" in waiting.message

    store.finish([end_of("f", outcome=Outcome.FAILED)], NOW_S + 10)
    for _ in range(2):
        done = store.answer("f", NOW_S + 10 + TTL_S - 1)
        assert (done.state, done.result.outcome) == (TicketState.DONE, Outcome.FAILED)

    for _ in range(2):
        with pytest.raises(TicketExpiredError, match=r"camera 'gate' ended as failed 100 s ago"):
            store.answer("f", NOW_S + 10 + TTL_S).unless_gone()
        store.tidy(mark_at(NOW_S + 10 + TTL_S))


def test_a_result_is_whole(case):
    """What the router answered, through the store."""
    store = case.open()
    keep(store, "f")
    store.finish([end_of("f", score=0.1)], NOW_S)
    result, expected = store.answer("f", NOW_S).result, sample_result("f", score=0.1)
    assert (result.detections.boxes_xyxy == expected.detections.boxes_xyxy).all()
    assert (result.times, result.canvas, result.verdict) == (expected.times, expected.canvas, expected.verdict)


def test_results_of_a_camera_are_counted_as_the_routers_are(case):
    """The same events in a `TicketBook` and here give the same pages: results, places, gaps, waiting frames."""
    store = case.open()
    base = store.results_after("unseen", 0, 5, NOW_S).cursor
    book = TicketBook(max_tickets=10_000, ttl_s=TTL_S, first_cursor=base)
    draw = random.Random(5)
    waiting, now_s, number = [], NOW_S, 0
    cursors = {"a": 0, "b": 0}
    gaps = 0
    for _ in range(200):
        now_s += draw.choice([0, 1, 7])
        camera = draw.choice("ab")
        if draw.random() < 0.5 or not waiting:
            number += 1
            book.open(f"f{number}", camera, now_s)
            keep(store, f"f{number}", camera=camera, now_s=now_s)
            waiting.append((f"f{number}", camera))
        else:
            frame_id, camera = waiting.pop(draw.randrange(len(waiting)))
            book.close(frame_id, sample_result(frame_id, camera), now_s)
            assert store.finish([end_of(frame_id, camera)], now_s) == [True]
        if draw.random() < 0.1:
            most = draw.choice([1, 3, 256])
            expected = book.results_after(camera, cursors[camera], now_s, most)
            page = store.results_after(camera, cursors[camera], most, now_s)
            assert (ids_of(page.results), page.cursor, page.num_dropped, page.num_waiting) == (
                ids_of(expected.results), expected.cursor, expected.num_dropped, expected.num_waiting,
            )  # fmt: skip
            gaps += bool(page.num_dropped)
            cursors[camera] = page.cursor
        if draw.random() < 0.1:
            store.tidy(mark_at(now_s))
    assert gaps > 0, "nothing was ever missed: the test shows too little"


def test_a_cursor_of_another_camera_is_refused(case):
    """Ahead of anything that this camera gave out."""
    store = case.open()
    keep(store, "f")
    store.finish([end_of("f")], NOW_S)
    cursor = store.results_after("gate", 0, 10, NOW_S).cursor
    for wrong in (cursor + 1, -1):
        with pytest.raises(TicketUnknownError, match="begin again with 0"):
            store.results_after("gate", wrong, 10, NOW_S)


def test_a_full_spool_refuses_and_goes_on(case):
    """What lies there stays and is answered; an answer makes room; a frame that never fits is told not to wait."""
    store = case.open(max_bytes=1_000_000)
    frames = [new_frame(f"f{number}", num_bytes=100_000) for number in range(20)]

    told = store.keep(frames, NOW_S)

    refused = [answer for answer in told if answer is not None]
    num_kept = told.index(refused[0])
    assert 5 <= num_kept <= 9
    assert told == [None] * num_kept + refused
    assert {type(answer) for answer in refused} == {SpoolFullError}
    assert refused[0].http_status == 507
    assert refused[0].retry_after_s > 0
    assert "spool.max_bytes" in refused[0].message
    assert "allowed are 1,000,000" in refused[0].message

    assert ids_of(store.take(100)) == ids_of(frames[:num_kept])
    assert [store.load(frame.frame_id) for frame in frames[:num_kept]] == [f.record for f in frames[:num_kept]]
    assert store.usage().num_bytes <= 1_000_000
    assert store.keep([frames[0]], NOW_S) == [None], "one that is here already needs no room"
    assert store.finish([end_of("f0")], NOW_S) == [True]
    assert store.keep([frames[-1]], NOW_S) == [None]
    (never,) = store.keep([new_frame("huge", num_bytes=1_000_000)], NOW_S)
    assert (type(never), never.retry_after_s) == (SpoolFullError, None)


def test_many_rounds_need_no_more_room(case):
    """The place of answered frames is used again: far more passes through than may lie there."""
    store = case.open(max_bytes=1_500_000)
    for number in range(30):
        frame_ids = [f"{number}-{each}" for each in range(3)]
        frames = [new_frame(frame_id, num_bytes=200_000) for frame_id in frame_ids]
        assert store.keep(frames, NOW_S + number) == [None] * 3
        store.take(10)
        store.finish([end_of(frame_id) for frame_id in frame_ids], NOW_S + number)
        store.tidy(mark_at(NOW_S + number))
    assert store.usage().num_done == 90


def test_a_record_is_set_aside_with_its_reason(case):
    """Its ticket is answered, its bytes stay for people, and count, until they drop it."""
    store = case.open()
    keep(store, "odd", "fine")
    before = store.usage().num_bytes

    assert store.finish([end_of("odd", outcome=Outcome.FAILED, aside_reason="checksum")], NOW_S + 5) == [True]

    assert store.answer("odd", NOW_S + 5).result.outcome is Outcome.FAILED
    (aside,) = store.aside()
    assert (aside.frame_id, aside.camera, aside.reason, aside.aside_s) == ("odd", "gate", "checksum", NOW_S + 5)
    assert aside.num_bytes == len(new_frame("odd").record)
    assert store.usage().num_bytes >= before
    assert (store.usage().num_pending, store.usage().num_aside) == (1, 1)

    store = case.restart(store)
    assert ids_of(store.take(10)) == ["fine"]
    assert store.drop_aside("odd") == new_frame("odd").record
    assert (store.drop_aside("odd"), store.aside(), store.usage().num_aside) == (None, [], 0)
    assert store.answer("odd", NOW_S + 5).result.outcome is Outcome.FAILED


def test_the_time_mark_is_there_for_the_next_process(case):
    """The last one that was noted."""
    store = case.open()
    assert store.last_mark is None
    store.tidy(mark_at(NOW_S))
    store.tidy(mark_at(NOW_S + 1))
    assert case.restart(store).last_mark == mark_at(NOW_S + 1)


def test_usage_counts_what_lies_there(case):
    """Frames, results, bytes, and since when the oldest frame waits."""
    store = case.open()
    assert store.usage().oldest_kept_s is None
    keep(store, "a", now_s=NOW_S)
    keep(store, "b", now_s=NOW_S + 1)
    empty = store.usage().num_bytes
    store.keep([new_frame("c", num_bytes=500_000)], NOW_S + 2)
    usage = store.usage()
    assert (usage.num_pending, usage.num_done, usage.num_aside, usage.oldest_kept_s) == (3, 0, 0, NOW_S)
    assert 490_000 <= usage.num_bytes - empty <= 530_000  # whole pages

    store.finish([end_of("a"), end_of("c")], NOW_S + 3)
    usage = store.usage()
    assert (usage.num_pending, usage.num_done, usage.oldest_kept_s) == (1, 2, NOW_S + 1)
    assert usage.num_bytes - empty <= 30_000
    store.finish([end_of("b")], NOW_S + 3)
    assert store.usage().oldest_kept_s is None


def test_names_of_any_script_are_names(case):
    """And none of them is taken for a pattern or a piece of a key."""
    store = case.open()
    names = ["gate:1", "gate*", "Tür 7", "門", "a'b\";--", "{x}", "\x00nul", " "]
    for name in names:
        keep(store, f"id {name}", camera=name)
    assert [frame.camera for frame in store.take(20)] == names
    store.finish([end_of(f"id {name}", name) for name in names], NOW_S)
    for name in names:
        page = store.results_after(name, 0, 10, NOW_S)
        assert [(result.frame_id, result.camera) for result in page.results] == [(f"id {name}", name)]


def test_callers_feeders_and_readers_at_once(case):
    """Threads that keep, feed twice and read: every frame has one result, whoever wins."""
    store = case.open()
    frame_ids = [f"f{number}" for number in range(60)]
    wins = []

    def keeps():
        for frame_id in frame_ids:
            keep(store, frame_id)

    def feeds(score):
        while len(wins) < len(frame_ids):
            for frame in store.take(7):
                ends = [end_of(frame.frame_id, score=score)]
                wins.extend(told for told in [*store.finish(ends, NOW_S), *store.finish(ends, NOW_S)] if told)

    def reads():
        was_kept = set()
        while len(wins) < len(frame_ids):
            for frame_id in frame_ids:
                is_known = store.answer(frame_id, NOW_S).state is not TicketState.UNKNOWN
                assert is_known or frame_id not in was_kept, "a frame between two states was seen in none"
                was_kept |= {frame_id} if is_known else set()
            store.results_after("gate", 0, 10, NOW_S)
            store.usage()

    with ThreadPoolExecutor() as threads:
        running = [
            threads.submit(keeps),
            threads.submit(feeds, 0.25),
            threads.submit(feeds, 0.5),
            threads.submit(reads),
        ]
        for each in running:
            each.result(timeout=60)
    assert (len(wins), store.usage().num_done) == (60, 60)


def test_a_result_that_was_changed_says_so(case):
    """Its ticket is answered as failed, with the reason; nothing raises."""
    store = case.open()
    keep(store, "f")
    end = end_of("f")
    broken = type(end)("f", end.outcome, end.result[:-1] + b"?")
    store.finish([broken], NOW_S)
    result = store.answer("f", NOW_S).result
    assert result.outcome is Outcome.FAILED
    assert "its result in the spool is damaged" in result.error.message
    assert ids_of(store.results_after("gate", 0, 10, NOW_S).results) == ["f"]
    with pytest.raises(ValueError, match="checksum"):
        result_from(broken.result)
