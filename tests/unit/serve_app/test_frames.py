"""What a client may say of a frame."""

from __future__ import annotations

import math

import numpy as np
import pytest
from serve_samples import sample_meta

from serve_app.errors import InvalidFrameError
from serve_app.frames import FrameMeta, Priority, check_meta, priority_named

MAX_FRAME_PX = 64_000_000


@pytest.mark.parametrize(("name", "priority"), [("critical", Priority.CRITICAL), ("normal", Priority.NORMAL)])
def test_both_priorities_are_accepted(name, priority):
    """A sound frame's check gives its parsed priority."""
    assert check_meta(sample_meta("a", priority=name), max_frame_px=MAX_FRAME_PX) is priority


def test_critical_ranks_before_normal():
    """The rank is what lanes are ordered by; lower goes first."""
    assert sorted(Priority, key=lambda priority: priority.rank) == [Priority.CRITICAL, Priority.NORMAL]


@pytest.mark.parametrize("priority", ["urgent", "Critical", "", None, 1, [], b"normal", Priority])
def test_an_unknown_priority_names_those_that_exist(priority):
    """Spelling counts, and no type is so odd that the answer is another error."""
    with pytest.raises(InvalidFrameError) as caught:
        check_meta(sample_meta("a", priority=priority), max_frame_px=MAX_FRAME_PX)

    assert str(caught.value) == f"priority: got {priority!r}, allowed are 'critical', 'normal'"


def test_a_priority_can_be_checked_by_itself():
    """The client library asks before it puts pixels anywhere."""
    assert priority_named("critical") is Priority.CRITICAL
    with pytest.raises(InvalidFrameError, match="got 'no'"):
        priority_named("no")


@pytest.mark.parametrize("slo_s", [None, 1e-3, 0.2, 30, 86_400.0, np.float64(0.5)])
def test_any_positive_deadline_is_accepted(slo_s):
    """Seconds from now, whole or not; None leaves it to the plan."""
    assert check_meta(sample_meta("a", slo_s=slo_s), max_frame_px=MAX_FRAME_PX) is Priority.NORMAL


@pytest.mark.parametrize(
    "slo_s",
    [
        0,
        -0.0,
        -1,
        -1e-9,
        math.nan,
        math.inf,
        -math.inf,
        "0.2",
        True,
        False,
        [0.2],
        1j,
        pytest.param(10**400, id="huge"),
    ],
)
def test_a_deadline_that_is_no_positive_number_is_refused(slo_s):
    """A deadline that cannot be met or is no number is the caller's mistake; a switch is no number either."""
    with pytest.raises(InvalidFrameError, match=r"^slo_s: got .*, allowed is a number of seconds above 0"):
        check_meta(sample_meta("a", slo_s=slo_s), max_frame_px=MAX_FRAME_PX)


@pytest.mark.parametrize("camera", ["", None, 7, b"gate-1", ["gate-1"]])
def test_a_camera_has_a_name(camera):
    """Rules match names; an empty one or another type matches by accident."""
    with pytest.raises(InvalidFrameError) as caught:
        check_meta(sample_meta("a", camera=camera), max_frame_px=MAX_FRAME_PX)

    assert str(caught.value) == f"camera: got {camera!r}, allowed is a non-empty name such as 'gate-1'"


@pytest.mark.parametrize("frame_id", ["", None, 7, ["a"], {}])
def test_a_frame_has_an_id(frame_id):
    """Ids are keys of the router's tables: one that cannot be a key is refused with words."""
    with pytest.raises(InvalidFrameError) as caught:
        check_meta(sample_meta(frame_id), max_frame_px=MAX_FRAME_PX)

    assert str(caught.value) == f"frame_id: got {frame_id!r}, allowed is a non-empty text of the frame's own"


@pytest.mark.parametrize(
    "size_hw", [(8, 8), (480, 640), [480, 640], (8000, 8000), tuple(np.array([480, 640]))], ids=repr
)
def test_sizes_that_can_be_served(size_hw):
    """From the smallest to the largest; a tuple or a list, of any whole numbers."""
    assert check_meta(sample_meta("a", size_hw=size_hw), max_frame_px=MAX_FRAME_PX) is Priority.NORMAL


@pytest.mark.parametrize(
    ("size_hw", "message"),
    [
        ((0, 5), "frame: got 0×5 px (height × width), allowed is 8 px or more on each side"),
        ((5, 0), "frame: got 5×0 px (height × width), allowed is 8 px or more on each side"),
        ((1, 1), "frame: got 1×1 px (height × width), allowed is 8 px or more on each side"),
        ((7, 4000), "frame: got 7×4000 px (height × width), allowed is 8 px or more on each side"),
        ((-480, -640), "frame: got -480×-640 px (height × width), allowed is 8 px or more on each side"),
        ((30_000, 30_000), "frame: got 30000×30000 px, 900,000,000 in all, allowed are 64,000,000"),
    ],
    ids=str,
)
def test_a_size_out_of_range_is_refused_with_the_range(size_hw, message):
    """What was got, height first, and what is allowed."""
    with pytest.raises(InvalidFrameError) as caught:
        check_meta(sample_meta("a", size_hw=size_hw), max_frame_px=MAX_FRAME_PX)

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "size_hw",
    [None, (), (480,), (480, 640, 3), 480, "480x640", "ab", (480.5, 640.5), (480.0, 640.0), (math.nan, math.nan),
     (math.inf, 8), ("480", "640"), (None, None), {480: 1, 640: 2}],
    ids=str,
)  # fmt: skip
def test_what_is_no_pair_of_whole_numbers_is_no_size(size_hw):
    """Not a pair, or sides that no array can have."""
    with pytest.raises(InvalidFrameError) as caught:
        check_meta(sample_meta("a", size_hw=size_hw), max_frame_px=MAX_FRAME_PX)

    assert str(caught.value) == f"size_hw: got {size_hw!r}, allowed is (height, width) in whole px"


def test_the_plan_sets_the_largest_size():
    """The limit is inclusive."""
    meta = sample_meta("a", size_hw=(100, 200))

    assert check_meta(meta, max_frame_px=20_000) is Priority.NORMAL
    with pytest.raises(InvalidFrameError, match=r"20,000 in all, allowed are 19,999; .*limits\.max_frame_px"):
        check_meta(meta, max_frame_px=19_999)


def test_a_frame_is_normal_and_has_the_plans_deadline_unless_told():
    """The defaults of a client's words."""
    assert FrameMeta("a", "gate-1", (480, 640)) == FrameMeta("a", "gate-1", (480, 640), priority="normal", slo_s=None)
