"""Pixels are held only while somebody watches, few of them, and let go in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from metric_samples import ended

from serve_app.live.last_frames import MAX_LEASE_S, MAX_WATCHERS, LastFrames
from serve_app.live.live_report import LiveAsk
from serve_app.verdicts import Outcome


def asked(frames, now_s, watcher="page", lease_s=5.0, known=None, max_frames=10):
    """The refs that a page gets."""
    return [ref for _, ref in frames.ask(LiveAsk(watcher, lease_s, known or {}, max_frames), now_s)]


def kept(frames, camera, now_s, frame_id="f", num_bytes=10):
    """A finished frame of a camera, with its name for a ref."""
    frames.keep(ended(camera=camera, frame_id=frame_id), f"{camera}:{frame_id}", num_bytes, now_s)


def test_nothing_is_kept_that_nobody_watches():
    """Nor what did not finish."""
    frames = LastFrames()
    kept(frames, "a", 0.0)
    assert (len(frames), frames.num_bytes) == (0, 0)
    asked(frames, 1.0)
    frames.keep(ended(camera="b", outcome=Outcome.FAILED), "b", 10, 1.0)
    assert len(frames) == 0
    kept(frames, "a", 2.0)
    assert (len(frames), frames.num_bytes) == (1, 10)


def test_only_the_last_frame_of_a_camera_is_told_and_once():
    """A page that shows it is not told again; another page is."""
    frames = LastFrames()
    asked(frames, 0.0)
    for number in range(3):
        kept(frames, "a", 1.0, f"f{number}")

    assert asked(frames, 2.0) == ["a:f2"]
    assert asked(frames, 3.0, known={"a": "f2"}) == []
    assert asked(frames, 3.0, watcher="other") == ["a:f2"]
    assert frames.num_bytes == 10


def test_all_is_let_go_when_the_last_lease_is_over():
    """At the next tick or frame, or at once when the page says that it stops; another page's lease holds."""
    for end in ("tick", "frame", "stop"):
        frames = LastFrames()
        asked(frames, 0.0)
        asked(frames, 0.0, watcher="other", lease_s=2.0)
        kept(frames, "a", 1.0)
        frames.tick(3.0)
        assert len(frames) == 1
        if end == "tick":
            frames.tick(5.0)
        elif end == "frame":
            kept(frames, "b", 5.0)
        else:
            assert asked(frames, 4.0, lease_s=0.0) == []
        assert (len(frames), frames.num_bytes) == (0, 0), end


def test_leases_and_watchers_are_bounded():
    """A page cannot pin pixels for an hour, nor pages without number."""
    frames = LastFrames()
    for number in range(10 * MAX_WATCHERS):
        asked(frames, 0.0, watcher=f"page-{number}", lease_s=3600.0)
    kept(frames, "a", 1.0)
    frames.tick(MAX_LEASE_S)
    assert len(frames) == 0


def test_when_there_is_no_room_cameras_take_turns():
    """Five cameras, room for two: after some rounds each was told, none twice as often as another."""
    frames = LastFrames(max_frames=2)
    told = []
    for second in range(10):
        told += asked(frames, float(second))
        for camera in "abcde":
            kept(frames, camera, second + 0.5, str(second))

    counts = sorted(sum(ref.startswith(camera) for ref in told) for camera in "abcde")
    assert counts[0] >= 3
    assert counts[-1] < 2 * counts[0]


def test_a_page_gets_as_many_as_it_asks_for_those_told_longest_ago_first():
    """So that a wall of many cameras comes round."""
    frames = LastFrames()
    asked(frames, 0.0)
    for camera in "abcd":
        kept(frames, camera, 0.0)
    known = {}
    told = []
    for second in range(1, 4):
        got = asked(frames, float(second), known=known, max_frames=2)
        known |= {ref[0]: "f" for ref in got}
        told.append(got)
    assert told == [["a:f", "b:f"], ["c:f", "d:f"], []]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 60), st.booleans()), max_size=60))
def test_bytes_and_frames_never_exceed_their_bounds(events):
    """Whatever comes, in whatever order, and the sum is right."""
    frames = LastFrames(max_frames=3, max_bytes=100)
    asked(frames, 0.0, lease_s=MAX_LEASE_S)
    for number, (camera, num_bytes, ask) in enumerate(events):
        now_s = number * 0.01
        kept(frames, camera, now_s, str(number), num_bytes)
        if ask:
            asked(frames, now_s, lease_s=MAX_LEASE_S)
        assert len(frames) <= 3
        assert frames.num_bytes == sum(each.seen.num_bytes for each in frames._kept.values()) <= 100
        assert len(frames._told_s) <= 3 * 8


def test_a_frame_larger_than_all_room_is_not_kept():
    """And its camera's older one is gone: it is not the last any more."""
    frames = LastFrames(max_bytes=100)
    asked(frames, 0.0)
    kept(frames, "a", 0.0)
    kept(frames, "a", 0.0, "g", num_bytes=101)
    assert (len(frames), frames.num_bytes) == (0, 0)
