"""One lane: due first, with lazy removal that forgets what it should."""

from __future__ import annotations

import pytest
from serve_samples import VGA, sample_frame, sample_latency, sample_plan

from engines.tiles import Window
from serve_app.frames import Priority
from serve_app.lane_key import LaneClass, LaneKey
from serve_app.lanes import Lane, Waiting
from serve_app.plan import DEFAULT_RULE
from serve_app.route import Route
from serve_app.routes import RouteTable

KEY = LaneKey("vga", VGA, LaneClass.NORMAL)
ROUTES = RouteTable(sample_plan(), sample_latency()).routes(DEFAULT_RULE, VGA, Priority.NORMAL)
IN_TILES = Route(
    0, KEY, "near", "vga", "full", VGA, (Window(0, 0, 9, 9), Window(0, 9, 9, 9), Window(9, 0, 9, 9)),
    shrunk=False, num_pieces=3, alone_s=0.01, own_s=0.03, piece_s=0.01, work_s=0.03, max_batch=1, ladder=(1,),
)  # fmt: skip


def waiting(name: str, due_s: float, routes: tuple[Route, ...] = ROUTES) -> Waiting:
    """A frame that is to wait, due then."""
    entry = Waiting(sample_frame(name), routes, 0)
    entry.due_s = due_s
    return entry


def lane_of(*entries: Waiting) -> Lane:
    """A lane that these frames entered in this order, each with all its pieces."""
    lane = Lane(KEY)
    for entry in entries:
        for piece in range(entry.route.num_pieces):
            lane.add(entry, piece)
    return lane


def leave(lane: Lane, entry: Waiting, num_pieces: int = 1) -> None:
    """A frame leaves by another way than the front."""
    entry.epoch += 1
    lane.left(num_pieces)


def drained(lane: Lane) -> list[tuple[str, int]]:
    """Frame and piece of all that waits, in the order in which they are popped."""
    popped = [lane.pop() for _ in range(lane.num_waiting)]
    assert lane.num_waiting == 0
    return [(entry.frame.frame_id, piece) for entry, piece in popped]


def test_frames_leave_by_due_time_whatever_the_order_of_arrival():
    """Due first goes first."""
    lane = lane_of(waiting("c", 3), waiting("a", 1), waiting("b", 2))

    assert drained(lane) == [("a", 0), ("b", 0), ("c", 0)]


def test_frames_due_together_leave_in_order_of_arrival():
    """Ties are first come, first served, not by id; tiles of one frame stay together and in order."""
    lane = lane_of(waiting("z", 1), waiting("m", 1, (IN_TILES,)), waiting("a", 1))

    assert drained(lane) == [("z", 0), ("m", 0), ("m", 1), ("m", 2), ("a", 0)]


def test_first_stays_in_the_lane():
    """Looking does not take."""
    entry = waiting("a", 1)
    lane = lane_of(entry)

    assert (lane.first(), lane.first(), lane.num_waiting) == (entry, entry, 1)


def test_an_empty_lane_has_no_first_and_nothing_to_pop():
    """Emptiness is None to a question and an error to an order."""
    lane = Lane(KEY)

    assert (lane.first(), lane.num_waiting) == (None, 0)
    with pytest.raises(IndexError):
        lane.pop()


@pytest.mark.parametrize("gone", [0, 1, 2], ids=["first", "middle", "last"])
def test_a_frame_that_leaves_leaves_the_others_in_order(gone):
    """At every place of the heap; nothing of it is seen or popped any more."""
    entries = [waiting(name, due_s) for due_s, name in enumerate("abc")]
    lane = lane_of(*entries)
    leave(lane, entries[gone])
    rest = [entry for entry in entries if entry is not entries[gone]]

    assert lane.first() is rest[0]
    assert drained(lane) == [(entry.frame.frame_id, 0) for entry in rest]


def test_a_tiled_frame_leaves_with_all_its_tiles():
    """Those that were popped before are not counted twice."""
    tiled = waiting("t", 1, (IN_TILES,))
    lane = lane_of(tiled, waiting("a", 2))
    assert lane.pop() == (tiled, 0)
    leave(lane, tiled, 2)

    assert lane.num_waiting == 1
    assert drained(lane) == [("a", 0)]


@pytest.mark.parametrize("again_s", [2.0, 20.0, 10.0], ids=["sooner", "later", "same"])
def test_a_frame_that_comes_back_stands_at_its_new_due_time(again_s):
    """What is left of its first place counts no more."""
    again, other = waiting("again", 10), waiting("other", 15)
    lane = lane_of(again, other)
    leave(lane, again)
    again.due_s = again_s
    lane.add(again, 0)

    assert drained(lane) == ([("other", 0), ("again", 0)] if again_s > 15 else [("again", 0), ("other", 0)])
    assert lane.first() is None


def test_a_lane_knows_which_tiles_of_a_frame_wait():
    """Not those that were popped, nor those of an earlier stay or of another frame."""
    tiled = waiting("t", 1, (IN_TILES,))
    lane = lane_of(tiled, waiting("u", 2, (IN_TILES,)))
    lane.pop()
    assert sorted(lane.pieces_of(tiled)) == [1, 2]
    leave(lane, tiled, 2)

    assert lane.pieces_of(tiled) == ()
    lane.add(tiled, 1)
    assert lane.pieces_of(tiled) == (1,)


def test_frames_that_left_do_not_fill_memory():
    """Callers that give up on frames with distant deadlines leave nothing behind an urgent frame that stays."""
    lane = lane_of(waiting("stays", 1))
    for number in range(1000):
        entry = waiting(str(number), 1e6)
        lane.add(entry, 0)
        leave(lane, entry)

    assert len(lane.heap) <= 20
    assert drained(lane) == [("stays", 0)]


def test_company_is_expected_two_gaps_after_the_last_arrival():
    """By the cameras' rate, once two frames have come; the gap follows slowly."""
    lane = Lane(KEY)
    expected = [lane.next_arrival_s()]
    for now_s in (10.0, 11.0, 12.5):
        lane.arrival(now_s)
        expected.append(lane.next_arrival_s())

    assert expected == [None, None, 13.0, pytest.approx(12.5 + 2 * 1.1)]


def test_a_frame_has_begun_when_a_piece_was_sent_or_lost():
    """From then on it can be moved to no other route."""
    entry = waiting("t", 1, (IN_TILES,))
    begun = []
    for num_waiting, lost_on in ((3, ()), (2, ()), (3, ("near-0",))):
        entry.num_waiting, entry.lost_on = num_waiting, lost_on
        begun.append(entry.has_begun)

    assert begun == [False, True, True]
