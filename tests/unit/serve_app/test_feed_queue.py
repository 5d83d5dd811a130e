"""Which frame is fed next, and what becomes of it."""

from __future__ import annotations

import random

import pytest
from spool_samples import sample_result

from serve_app.errors import (
    FrameCancelledError,
    FrameFailedError,
    FrameLostError,
    FrameRejectedError,
    InvalidFrameError,
)
from serve_app.spool.feed_queue import FIRST_PAUSE_S, LONGEST_PAUSE_S, MAX_TRIES, FeedQueue, Next, pause_s
from serve_app.spool.spool import PendingFrame
from serve_app.verdicts import Outcome


def frame(frame_id, camera="gate", kept_s=0.0, life_s=1000.0, num_tries=0):
    """A pending frame."""
    return PendingFrame(frame_id, camera, kept_s, life_s, num_tries)


def ended(outcome, error=None):
    """What the router answers."""
    result = sample_result(outcome=outcome)
    return type(result)("f", "gate", (1, 1), "normal", outcome, result.detections, error=error)


def queue_of(*frames, **bounds):
    """A queue that holds these."""
    queue = FeedQueue(**bounds)
    for each in frames:
        queue.add(each, 0.0)
    return queue


def started(queue, now_s):
    """The ids of all frames that may be fed now."""
    found = []
    while (each := queue.start(now_s)) is not None:
        found.append(each.frame_id)
    return found


NO_ROOM = FrameRejectedError("frame rejected: no room", 4.0)


def test_the_oldest_go_first_and_so_many_at_once():
    """The next one starts when one has ended."""
    queue = queue_of(*(frame(name) for name in "abcd"), max_in_flight=2)
    assert started(queue, 0) == ["a", "b"]
    assert queue.ended("b", ended(Outcome.FINISHED), 1) is Next.ANSWER
    assert started(queue, 1) == ["c"]
    queue.dropped("a")
    assert (started(queue, 1), queue.num_in_flight) == (["d"], 2)


@pytest.mark.parametrize(
    ("outcome", "error", "expected"),
    [
        (Outcome.FINISHED, None, Next.ANSWER),
        (Outcome.SUPERSEDED, None, Next.ANSWER),
        (Outcome.EXPIRED, None, Next.AGAIN),
        (Outcome.CANCELLED, FrameCancelledError("no"), Next.AGAIN),
        (Outcome.REJECTED, NO_ROOM, Next.AGAIN),
        (Outcome.FAILED, FrameLostError("gone"), Next.AGAIN),
        (Outcome.REJECTED, FrameRejectedError("too large"), Next.COUNTED),
        (Outcome.REJECTED, InvalidFrameError("odd"), Next.COUNTED),
        (Outcome.FAILED, FrameFailedError("broke"), Next.COUNTED),
    ],
)
def test_whose_fault_an_end_was_decides_what_follows(outcome, error, expected):
    """What is nobody's or the load's fault costs no try; what is the frame's own does."""
    queue = queue_of(frame("f"))
    queue.start(0)
    assert queue.ended("f", ended(outcome, error), 1) is expected
    assert (queue.start(1), queue.num_in_flight) == (None, 0)


def test_a_frame_that_fails_by_itself_has_so_many_tries():
    """Longer apart each time; tries of processes before count. Others of its camera go on meanwhile."""
    queue = queue_of(frame("f", num_tries=1), frame("g"))
    assert started(queue, 0) == ["f", "g"]
    assert queue.ended("f", ended(Outcome.FAILED, FrameFailedError("broke")), 0) is Next.COUNTED
    assert queue.ended("g", ended(Outcome.FINISHED), 0) is Next.ANSWER
    assert started(queue, pause_s(2) - 0.01) == []
    assert started(queue, pause_s(2)) == ["f"]
    assert MAX_TRIES == 3
    assert queue.ended("f", ended(Outcome.FAILED, FrameFailedError("broke")), 9) is Next.ANSWER
    assert queue.wake_s(9) is None


def test_a_frame_without_room_pauses_its_camera():
    """For as long as the router says, within bounds; other cameras, which may use other pools, are fed."""
    queue = queue_of(frame("a"), frame("b"), frame("c", camera="other"), max_in_flight=1)
    assert started(queue, 0) == ["a"]
    assert queue.ended("a", ended(Outcome.REJECTED, NO_ROOM), 10) is Next.AGAIN
    assert started(queue, 10) == ["c"]
    queue.ended("c", ended(Outcome.FINISHED), 10)
    assert started(queue, 13.9) == []
    assert queue.wake_s(10) == 14
    assert started(queue, 14) == ["a"]
    queue.ended("a", ended(Outcome.REJECTED, FrameRejectedError("no room", 999.0)), 14)
    assert queue.wake_s(14) == 14 + LONGEST_PAUSE_S
    assert started(queue, 14 + LONGEST_PAUSE_S) == ["a"]
    queue.ended("a", ended(Outcome.REJECTED, FrameRejectedError("no room", 0.0)), 40)
    assert queue.wake_s(40) == 40 + FIRST_PAUSE_S


def test_a_service_that_is_away_pauses_all_of_it():
    """Longer each time in a row, as one time for those that were under way together; an answer ends the row."""
    queue = queue_of(*(frame(name, camera=name) for name in "abc"), max_in_flight=2)
    assert started(queue, 0) == ["a", "b"]
    queue.away("a", 1)
    queue.away("b", 1.1)
    assert started(queue, 1.4) == []
    assert queue.wake_s(1.1) == 1 + pause_s(1)
    assert started(queue, 1.5) == ["a", "b"]
    queue.away("a", 2)
    assert queue.wake_s(2) == 2 + pause_s(2)
    queue.away("b", 2)
    assert started(queue, 3) == ["a", "b"]
    queue.ended("a", ended(Outcome.FINISHED), 4)
    queue.away("b", 4)
    assert queue.wake_s(4) == 4 + pause_s(1)


def test_pauses_grow_to_a_bound():
    """Doubling, and never so long that a service that is back waits for us."""
    assert [pause_s(n) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert pause_s(10**6) == LONGEST_PAUSE_S


def test_what_is_too_old_is_told_whatever_pauses():
    """Also while the service is away; not while it is being fed."""
    queue = queue_of(frame("fed", life_s=10), frame("old", life_s=10), frame("young", life_s=20), max_in_flight=1)
    assert started(queue, 0) == ["fed"]
    assert queue.expired(9.9) == []
    assert [each.frame_id for each in queue.expired(10)] == ["old"]
    queue.away("fed", 10)
    assert [each.frame_id for each in queue.expired(10)] == ["fed"]
    assert queue.wake_s(10) == 10.5
    assert [each.frame_id for each in queue.expired(20)] == ["young"]
    assert queue.wake_s(20) is None


def test_a_frame_that_expires_at_the_router_is_over_only_by_its_own_age():
    """It is fed with less time than it has, so that a pool without replicas holds up nobody."""
    queue = queue_of(frame("f", life_s=100))
    queue.start(0)
    assert queue.ended("f", ended(Outcome.EXPIRED), 60) is Next.AGAIN
    assert started(queue, 60 + FIRST_PAUSE_S) == ["f"]
    assert queue.ended("f", ended(Outcome.EXPIRED), 100) is Next.ANSWER


def test_a_frame_is_held_once_and_so_many_are():
    """A store that hands one out again, as after a damaged file, brings no second."""
    queue = queue_of(frame("a"), frame("a"), max_held=3)
    assert queue.room == 2
    assert started(queue, 0) == ["a"]
    queue.add(frame("a"), 0)
    assert started(queue, 0) == []


def test_every_frame_leaves_exactly_once_and_each_camera_in_order():
    """Random answers, outages and time: no frame is lost or fed twice at once, and none waits without a wake."""
    for seed in range(30):
        draw = random.Random(seed)
        queue = FeedQueue(max_in_flight=4, max_held=20)
        waiting = [frame(f"{n:03}", camera=f"c{n % 3}", life_s=draw.choice([30, 500])) for n in range(60)]
        fed, left, now_s = [], [], 0.0
        while len(left) < 60:
            while waiting and queue.room:
                queue.add(waiting.pop(0), now_s)
            left += [each.frame_id for each in queue.expired(now_s)]
            new = started(queue, now_s)
            assert set(new).isdisjoint(fed)
            fed += new
            assert len(fed) == queue.num_in_flight <= 4
            if not fed:
                wake_s = queue.wake_s(now_s)
                if wake_s is None:
                    assert not (waiting and not queue.room)
                    continue
                assert wake_s <= now_s + LONGEST_PAUSE_S
                now_s = max(wake_s, now_s + 1e-6)
                continue
            now_s += draw.random()
            frame_id = fed.pop(draw.randrange(len(fed)))
            kind = draw.random()
            if kind < 0.1:
                queue.away(frame_id, now_s)
                continue
            errors = [(Outcome.REJECTED, NO_ROOM), (Outcome.FAILED, FrameFailedError("x")), (Outcome.EXPIRED, None)]
            result = ended(*draw.choice(errors)) if kind < 0.4 else ended(Outcome.FINISHED)
            if queue.ended(frame_id, result, now_s) is Next.ANSWER:
                left.append(frame_id)
        assert sorted(left) == [f"{n:03}" for n in range(60)]
        assert (queue.room, queue.num_in_flight) == (20, 0)
