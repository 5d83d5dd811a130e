"""Results that are kept for a second question: by id, so many, for so long."""

from __future__ import annotations

from engines.detections import Detections
from serve_app.recent_results import RecentResults
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome


def result(frame_id):
    """How a frame ended."""
    return FrameResult(frame_id, "gate-1", (480, 640), "normal", Outcome.FINISHED, Detections.none())


def test_a_result_is_found_until_it_is_old():
    """To the very second; then it is gone, whoever comes next."""
    recent = RecentResults(10, 5.0)
    ended = result("a")
    recent.add(ended, 1.0)

    assert recent.find("a", 6.0) is ended
    assert recent.find("a", 6.1) is None
    assert recent.find("b", 1.0) is None
    recent.add(result("b"), 6.1)
    assert len(recent) == 1


def test_the_oldest_make_room():
    """The bound holds whatever comes."""
    recent = RecentResults(3, 100.0)
    for number in range(10):
        recent.add(result(str(number)), float(number))
        assert len(recent) <= 3

    assert [recent.find(str(number), 9.0) is not None for number in range(10)] == [False] * 7 + [True] * 3


def test_of_an_id_that_came_back_the_last_result_counts():
    """Also for its age."""
    recent = RecentResults(2, 5.0)
    recent.add(result("a"), 0.0)
    recent.add(result("b"), 1.0)
    newer = result("a")
    recent.add(newer, 4.0)
    recent.add(result("c"), 5.0)

    assert recent.find("a", 8.0) is newer
    assert recent.find("b", 5.0) is None
