"""Which lane is served next, and how many of its frames make a batch."""

from __future__ import annotations

import pytest
from serve_samples import BUCKET_OF_CANVAS, HD, UHD, VGA, sample_frame

from serve_app.batching import LaneKey, most_urgent_lane, warmed_batch_size
from serve_app.frames import Priority
from serve_app.lanes import Lane


def lanes_of(*frames) -> dict[LaneKey, Lane]:
    """The lanes that these frames make."""
    lanes: dict[LaneKey, Lane] = {}
    for frame in frames:
        lanes.setdefault(LaneKey(frame.bucket, frame.canvas, frame.priority), Lane()).add(frame)
    return lanes


def key(canvas, priority=Priority.NORMAL) -> LaneKey:
    """The key of a lane of the sample plan."""
    return LaneKey(BUCKET_OF_CANVAS[canvas], canvas, priority)


def test_the_earliest_deadline_chooses_the_lane():
    """Among equals by class it is the deadline, not the size or the number of frames."""
    lanes = lanes_of(
        sample_frame("1", deadline_s=5, canvas=VGA),
        sample_frame("2", deadline_s=4, canvas=UHD),
        sample_frame("3", deadline_s=6, canvas=VGA),
    )

    assert most_urgent_lane(lanes) == key(UHD)


def test_a_critical_frame_goes_before_a_normal_one_that_is_due_earlier():
    """Class comes before deadline."""
    lanes = lanes_of(
        sample_frame("normal", deadline_s=1, canvas=VGA),
        sample_frame("critical", deadline_s=9, canvas=HD, priority=Priority.CRITICAL),
    )

    assert most_urgent_lane(lanes) == key(HD, Priority.CRITICAL)


def test_among_critical_lanes_the_deadline_decides():
    """Earliest deadline first holds inside each class."""
    lanes = lanes_of(
        sample_frame("late", deadline_s=9, canvas=HD, priority=Priority.CRITICAL),
        sample_frame("soon", deadline_s=8, canvas=VGA, priority=Priority.CRITICAL),
    )

    assert most_urgent_lane(lanes) == key(VGA, Priority.CRITICAL)


def test_lanes_of_equal_urgency_are_no_error():
    """Keys hold enums, which have no order: a tie must not compare them. The lane that was there first is served."""
    lanes = lanes_of(*(sample_frame(canvas.__str__(), deadline_s=1, canvas=canvas) for canvas in (HD, VGA, UHD)))

    assert most_urgent_lane(lanes) == key(HD)


def test_empty_lanes_are_never_served():
    """No lane, an empty lane and a lane whose frames were removed have no urgency."""
    lanes = lanes_of(sample_frame("gone", deadline_s=1, canvas=VGA), sample_frame("here", deadline_s=9, canvas=HD))
    lanes[key(VGA)].remove("gone")

    assert most_urgent_lane({}) is None
    assert most_urgent_lane({key(VGA): Lane()}) is None
    assert most_urgent_lane(lanes) == key(HD)


@pytest.mark.parametrize(
    ("ladder", "num_waiting", "size"),
    [
        ((1,), 1, 1),
        ((1,), 50, 1),
        ((1, 2, 4, 8), 1, 1),
        ((1, 2, 4, 8), 3, 2),
        ((1, 2, 4, 8), 4, 4),
        ((1, 2, 4, 8), 7, 4),
        ((1, 2, 4, 8), 100, 8),
        ((1, 3), 2, 1),
        ((1, 3), 3, 3),
    ],
)
def test_a_batch_is_the_largest_warmed_size_that_waits(ladder, num_waiting, size):
    """Never a size that the engine has not seen, never more than wait."""
    assert warmed_batch_size(ladder, num_waiting) == size
