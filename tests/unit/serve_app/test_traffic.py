"""What a fleet sends, as values."""

from __future__ import annotations

import pytest

from serve_app.frames import Priority
from serve_app.planning.traffic import (
    SizeRate,
    deadline_s,
    histogram_distance,
    merged,
    rate_by_size,
    total_px_hz,
    total_rate_hz,
)

VGA, HD = (480, 640), (720, 1280)


def test_equal_entries_become_one_and_others_stay_apart():
    """Size, priority, deadline and camera make the difference; the smallest comes first."""
    traffic = [
        SizeRate(HD, 1.0),
        SizeRate(VGA, 2.0, camera="gate"),
        SizeRate(VGA, 3.0, camera="gate"),
        SizeRate(VGA, 4.0, Priority.CRITICAL, camera="gate"),
        SizeRate(VGA, 5.0, slo_s=2.0, camera="gate"),
    ]

    assert merged(traffic) == (
        SizeRate(VGA, 4.0, Priority.CRITICAL, camera="gate"),
        SizeRate(VGA, 5.0, camera="gate"),
        SizeRate(VGA, 5.0, slo_s=2.0, camera="gate"),
        SizeRate(HD, 1.0),
    )


def test_rates_by_size_and_in_total():
    """Frames and pixels a second."""
    traffic = (SizeRate(HD, 1.0), SizeRate(VGA, 2.0, camera="a"), SizeRate(VGA, 3.0, camera="b"))

    assert rate_by_size(traffic) == {VGA: 5.0, HD: 1.0}
    assert list(rate_by_size(traffic)) == [VGA, HD]
    assert total_rate_hz(traffic) == 6.0
    assert total_px_hz(traffic) == 5 * 480 * 640 + 720 * 1280


def test_a_frame_without_a_deadline_has_that_of_its_priority():
    """As at the router."""
    slo_s = {Priority.CRITICAL: 0.25, Priority.NORMAL: 1.0}

    assert deadline_s(SizeRate(VGA, 1.0, Priority.CRITICAL), slo_s) == 0.25
    assert deadline_s(SizeRate(VGA, 1.0, Priority.CRITICAL, slo_s=3.0), slo_s) == 3.0


@pytest.mark.parametrize(
    ("other", "distance"),
    [((SizeRate(VGA, 8.0),), 0.0), ((SizeRate(HD, 1.0),), 1.0), ((SizeRate(VGA, 3.0), SizeRate(HD, 1.0)), 0.25)],
    ids=["only faster", "another size", "a quarter changed"],
)
def test_the_distance_of_histograms_is_the_share_of_frames_that_changed_size(other, distance):
    """Rates as such do not count."""
    assert histogram_distance((SizeRate(VGA, 2.0),), other) == pytest.approx(distance)
