"""A camera's thread, its clocks and its mailbox, one step at a time: waits jump, chance is told."""

from __future__ import annotations

import threading
from fractions import Fraction

import pytest
from stream_world import PATIENCE_S, JumpingClock, ListSource, Sources, a_camera, a_file, brief, frame

from serve_app.streams.backoff import GOOD_S, MOST_S, Backoff
from serve_app.streams.camera_state import CameraPhase
from serve_app.streams.mailbox import MAX_GAPS, Mailbox
from serve_app.streams.pace import RateCap
from serve_app.streams.reader import Reader
from serve_app.streams.source import SourceError
from serve_app.streams.stream_values import MAX_REASON_LETTERS, GapCause, StreamFrame

GONE = SourceError("source cam: broke off")


def test_waits_double_up_to_the_most_and_chance_takes_up_to_half():
    """From the first to the longest, none below half its range."""
    highest, lowest = Backoff(lambda: 1.0), Backoff(lambda: 0.0)
    assert [highest.next_s() for _ in range(7)] == [1, 2, 4, 8, 16, MOST_S, MOST_S]
    assert [lowest.next_s() for _ in range(3)] == [0.5, 1, 2]


def test_waits_begin_anew_after_a_connection_that_lasted():
    """A camera that breaks every second is not asked every second."""
    backoff = Backoff(lambda: 1.0)
    assert backoff.next_s() == 1
    backoff.lasted(GOOD_S / 2)
    assert backoff.next_s() == 2
    backoff.lasted(GOOD_S)
    assert backoff.next_s() == 1


@pytest.mark.parametrize(("fps", "max_fps"), [(25, 5), (30, 7), (10, 3), (25, 24), (5, 25)])
def test_a_cap_lets_pass_as_many_as_it_says_evenly(fps, max_fps):
    """Over a minute, within a frame a second; never two where one is due."""
    cap = RateCap(max_fps)
    passed = [number for number in range(60 * fps) if cap.passes(float(Fraction(number, fps)))]
    assert len(passed) == pytest.approx(60 * min(fps, max_fps), rel=0.12)
    assert len(passed) <= 60 * max_fps * 1.01 + 1


def test_a_cap_begins_anew_after_a_pause():
    """No burst makes up for what did not come."""
    cap = RateCap(1.0)
    assert [cap.passes(at_s) for at_s in (0.0, 0.5, 50.0, 50.1, 50.2, 51.0)] == [True, False, True, False, False, True]


def taken(mailbox):
    """All that lies there, in brief."""
    items = []
    while (item := mailbox.take()) is not None:
        items.append(item)
    return [item.number if isinstance(item, StreamFrame) else (item.cause.value, item.num_frames) for item in items]


def test_a_newer_frame_takes_the_place_of_the_one_that_waits():
    """One gap in its place, in front of what came in between."""
    mailbox = Mailbox("cam", keeps_latest=True, wake=lambda: None)
    for number in range(3):
        mailbox.put_frame(frame(number), 0.0)
    mailbox.put_gap(GapCause.RECONNECTING, "away", 0)
    mailbox.put_gap(GapCause.RECONNECTING, "away", 0)
    for number in range(3, 5):
        mailbox.put_frame(frame(number), 0.0)
    assert taken(mailbox) == [("superseded", 3), ("reconnecting", 0), ("superseded", 1), 4]
    assert mailbox.num_read == 5


def test_a_mailbox_that_nobody_looks_into_stays_small():
    """A night of reconnections: neighbours are joined, and every number is still in one of them."""
    mailbox = Mailbox("cam", keeps_latest=True, wake=lambda: None)
    for number in range(5000):
        mailbox.put_frame(frame(), 0.0)
        mailbox.put_gap(GapCause.RECONNECTING, f"away {number}", 0)
    items = []
    while (item := mailbox.take()) is not None:
        items.append(item)
    assert len(items) <= MAX_GAPS + 2
    assert sum(item.num_frames for item in items if not isinstance(item, StreamFrame)) == 4999
    assert max(len(item.reason) for item in items) <= MAX_REASON_LETTERS


def test_whoever_waits_for_room_goes_on_when_it_is_closed():
    """And its frame is not taken, nor numbered."""
    mailbox = Mailbox("file", keeps_latest=False, wake=lambda: None)
    assert mailbox.put_frame(frame(), 0.0)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(mailbox.put_frame(frame(), 0.1)))
    waiting.start()
    mailbox.close()
    waiting.join(PATIENCE_S)
    assert (answers, mailbox.num_read, taken(mailbox), mailbox.is_exhausted) == ([False], 1, [0], True)


class Collected:
    """A mailbox that takes everything."""

    def __init__(self):
        self.items = []
        self.num_read = 0

    def put_frame(self, image_hwc, at_s):
        """Keep its number and its time."""
        self.items.append((int(image_hwc[0, 0, 0]), round(at_s, 3)))
        self.num_read += 1
        return True

    def put_gap(self, cause, reason, num_frames):
        """Keep it."""
        self.items.append((cause.value, reason, num_frames))
        self.num_read += num_frames

    def end(self):
        """Keep that."""
        self.items.append("end")


def read(spec, *sources, most_waits=10_000):
    """What a reader leaves, how long it waited, and itself."""
    mailbox, clock = Collected(), JumpingClock(most_waits)
    reader = Reader(
        spec, Sources(**{spec.name: sources}), mailbox, clock=clock, backoff=Backoff(lambda: 1.0)
    )  # fmt: skip
    reader.run()
    return mailbox.items, clock.waits, reader


def test_a_file_is_played_by_its_own_times_or_at_a_rate():
    """From its first frame on."""
    assert read(a_file(realtime=True), ListSource(4))[1] == [0.1, 0.1, 0.1]
    assert read(a_file(fps=2.0), ListSource(4))[1] == [0.5, 0.5, 0.5]
    assert read(a_file(), ListSource(4))[1] == []


def test_a_loop_goes_on_in_time_as_if_the_file_were_longer():
    """The times of the second pass follow those of the first, and so do the waits."""
    items, waits, _ = read(a_file(loop=True, realtime=True, limit=7), ListSource(3))
    assert items == [(0, 0.0), (1, 0.1), (2, 0.2), (0, 0.3), (1, 0.4), (2, 0.5), (0, 0.6), "end"]
    assert waits == pytest.approx([0.1] * 6)


def test_a_loop_of_nothing_ends():
    """It would turn for ever."""
    assert read(a_file(loop=True), ListSource(0))[0] == ["end"]


def test_frames_beyond_the_cap_are_never_decoded():
    """Half of them are passed over; numbers are those of the frames that were taken."""
    source = ListSource(10)
    items, _, reader = read(a_file(max_fps=5.0), source)
    assert [number for number, _ in items[:-1]] == [0, 2, 4, 6, 8]
    assert (source.num_decoded, reader.state.num_passed_over, source.num_closed) == (5, 5, 1)


def test_a_live_camera_is_connected_anew_ever_more_rarely_and_closed_each_time():
    """Each time with a gap that says why; until it is stopped."""
    first = ListSource(2, GONE)
    items, waits, reader = read(a_camera("cam"), first, GONE, GONE, most_waits=4)
    assert items == [(0, 0.0), (1, 0.1), *[("reconnecting", str(GONE), 0)] * 3,
                     ("reconnecting", "source cam: it is off", 0), "end"]  # fmt: skip
    assert waits == [1, 2, 4, 8]
    assert first.num_closed == 1
    assert reader.state.phase is CameraPhase.ENDED


def test_a_camera_that_need_not_come_back_fails():
    """`reconnect: false`."""
    items, waits, reader = read(a_camera("cam", reconnect=False), ListSource(1, GONE))
    assert items == [(0, 0.0), ("lost", str(GONE), 0), "end"]
    assert (waits, reader.state.phase, reader.state.problem) == ([], CameraPhase.FAILED, str(GONE))


def test_brief_is_what_the_other_tests_think():
    """Else they prove nothing."""
    mailbox = Mailbox("cam", keeps_latest=True, wake=lambda: None)
    mailbox.put_gap(GapCause.LOST, "x", 2)
    assert brief([mailbox.take()]) == [("lost", 2)]
