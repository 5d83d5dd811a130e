"""Lines through samples: known slopes, known noise, and what counts as flat."""

from __future__ import annotations

import random

import pytest
from slope import slope_of


def test_a_straight_line_is_found_exactly():
    """With no error, and the warm-up left out."""
    samples = [(float(second), 1e6 if second < 25 else 7.0 + 0.5 * second) for second in range(101)]
    slope = slope_of(samples, warm_up_fraction=0.25)

    assert (slope.per_s, slope.num_samples) == (pytest.approx(0.5), 76)
    assert slope.error_per_s == pytest.approx(0.0, abs=1e-12)
    assert slope.mean == pytest.approx(7.0 + 0.5 * 62.5)
    assert not slope.is_flat(0.49)
    assert slope.is_flat(0.51)


def test_the_error_is_that_of_the_textbook():
    """Values 0, 1, 0, 1 at x = 0, 1, 2, 3: slope 0.2, residual variance 0.4, spread 5."""
    slope = slope_of([(0, 0), (1, 1), (2, 0), (3, 1)], warm_up_fraction=0.0)

    assert slope.per_s == pytest.approx(0.2)
    assert slope.error_per_s == pytest.approx((0.4 / 5) ** 0.5)


@pytest.mark.parametrize(("growth", "flat"), [(0.0, True), (-1.0, True), (0.05, False)])
def test_growth_shows_through_noise(growth, flat):
    """A hundred samples that scatter by one: twenty times less growth a sample is seen."""
    lots = random.Random(7)
    samples = [(float(second), growth * second + lots.gauss(0, 1)) for second in range(100)]

    assert slope_of(samples).is_flat(0.0) is flat


@pytest.mark.parametrize("samples", [[], [(0.0, 1.0)] * 2, [(1.0, 2.0)] * 9], ids=["none", "few", "one-moment"])
def test_too_few_samples_are_refused(samples):
    """A line through one moment has any slope."""
    with pytest.raises(ValueError, match="run longer"):
        slope_of(samples)
