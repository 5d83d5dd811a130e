"""One lane: earliest deadline first, with removal."""

from __future__ import annotations

import dataclasses

import pytest
from serve_samples import ids, sample_frame

from serve_app.lanes import Lane


def lane_of(*frames) -> Lane:
    """A lane that these frames entered in this order."""
    lane = Lane()
    for frame in frames:
        lane.add(frame)
    return lane


def drained(lane: Lane) -> list[str]:
    """The ids of all its frames in the order in which they are popped."""
    return ids([lane.pop() for _ in range(len(lane))])


def test_frames_leave_by_deadline_whatever_the_order_of_arrival():
    """The earliest deadline goes first."""
    lane = lane_of(sample_frame("c", deadline_s=3), sample_frame("a", deadline_s=1), sample_frame("b", deadline_s=2))

    assert drained(lane) == ["a", "b", "c"]


def test_frames_of_equal_deadline_leave_in_order_of_arrival():
    """Ties are first come, first served, not by id."""
    lane = lane_of(*(sample_frame(name, deadline_s=1) for name in ("z", "m", "a")))

    assert drained(lane) == ["z", "m", "a"]


def test_first_stays_in_the_lane():
    """Looking does not take."""
    frame = sample_frame("a")
    lane = lane_of(frame)

    assert [lane.first(), lane.first()] == [frame, frame]
    assert len(lane) == 1


def test_an_empty_lane_has_no_first_and_nothing_to_pop():
    """Emptiness is None to a question and an error to an order."""
    lane = Lane()

    assert lane.first() is None
    assert lane.pop_expired(1e9) == []
    with pytest.raises(IndexError, match="empty lane"):
        lane.pop()


@pytest.mark.parametrize("removed", ["a", "b", "c"], ids=["first", "middle", "last"])
def test_a_removed_frame_leaves_the_others_in_order(removed):
    """Removal works at every place of the heap and harms no neighbour."""
    frames = {name: sample_frame(name, deadline_s=at) for at, name in enumerate("abc", start=1)}
    lane = lane_of(*frames.values())

    assert lane.remove(removed) is frames[removed]
    assert ids(lane) == [name for name in "abc" if name != removed]
    assert drained(lane) == [name for name in "abc" if name != removed]


def test_removing_what_does_not_wait_changes_nothing():
    """Unknown, removed and popped ids are all the same: None."""
    lane = lane_of(*(sample_frame(name, deadline_s=at) for at, name in enumerate("abc")))
    lane.pop()
    lane.remove("b")

    assert [lane.remove(name) for name in ("a", "b", "nobody")] == [None, None, None]
    assert drained(lane) == ["c"]


def test_a_frame_cannot_wait_twice():
    """The same id again is an error and leaves the first one as it was."""
    first = sample_frame("a", deadline_s=5)
    lane = lane_of(first)

    with pytest.raises(ValueError, match="frame a: waits in this lane already"):
        lane.add(sample_frame("a", deadline_s=1))
    assert list(lane) == [first]
    assert drained(lane) == ["a"]


def test_expired_are_those_whose_deadline_has_come():
    """At exactly the deadline a frame is too late; it leaves with all that were due before."""
    lane = lane_of(*(sample_frame(str(at), deadline_s=at) for at in (3, 1, 2)))

    assert ids(lane.pop_expired(2.0)) == ["1", "2"]
    assert drained(lane) == ["3"]


@pytest.mark.parametrize("again_s", [2.0, 20.0, 10.0], ids=["sooner", "later", "same"])
def test_an_id_that_comes_back_stands_at_its_new_deadline(again_s):
    """A client may send a cancelled frame again: nothing of its first deadline may remain."""
    lane = lane_of(sample_frame("again", deadline_s=10), sample_frame("other", deadline_s=15))
    lane.remove("again")
    lane.add(sample_frame("again", deadline_s=again_s))

    assert drained(lane) == (["other", "again"] if again_s > 15 else ["again", "other"])
    assert lane.first() is None


def test_an_id_that_comes_back_later_does_not_hide_expired_frames():
    """The entry that a removed frame left behind must not stop the search for what is late."""
    lane = lane_of(sample_frame("again", deadline_s=10), sample_frame("late", deadline_s=15))
    lane.remove("again")
    lane.add(sample_frame("again", deadline_s=20))

    assert ids(lane.pop_expired(16.0)) == ["late"]
    assert drained(lane) == ["again"]


def test_a_popped_frame_may_wait_again():
    """A frame whose replica died goes back with its old deadline."""
    frame = sample_frame("a", deadline_s=1)
    lane = lane_of(frame, sample_frame("b", deadline_s=2))
    lane.add(lane.pop())

    assert drained(lane) == ["a", "b"]


def test_a_lane_lists_the_frames_that_wait():
    """Length and iteration speak of waiting frames only."""
    frames = [sample_frame(name) for name in "ab"]
    lane = lane_of(*frames, dataclasses.replace(frames[0], frame_id="gone"))
    lane.remove("gone")

    assert (len(lane), list(lane)) == (2, frames)


def test_removed_frames_do_not_fill_memory():
    """Callers that give up on frames with distant deadlines leave nothing behind an urgent frame that stays."""
    lane = lane_of(sample_frame("stays", deadline_s=1))
    for number in range(1000):
        lane.add(sample_frame(str(number), deadline_s=1e6))
        lane.remove(str(number))

    assert len(lane._heap) <= 2
    assert drained(lane) == ["stays"]
