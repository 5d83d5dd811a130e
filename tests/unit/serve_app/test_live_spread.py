"""Classes of seconds: they refine the metrics' own, add up, and tell quantiles."""

from __future__ import annotations

import random
from bisect import bisect_left
from itertools import pairwise

import pytest

from serve_app.live.spread import BOUNDS_S, MOST_RATIO, Spread, SpreadCount, summed
from serve_app.metric_catalog import SECONDS


def counted(*values):
    """A spread of these."""
    count = SpreadCount()
    for value in values:
        count.add(value)
    return count.spread()


def test_every_bound_of_the_metrics_is_one_of_ours():
    """So that the page and Prometheus count the same frames below each of them."""
    assert set(SECONDS) <= set(BOUNDS_S)
    assert list(BOUNDS_S) == sorted(set(BOUNDS_S))
    assert max(upper / lower for lower, upper in pairwise(BOUNDS_S)) <= MOST_RATIO + 1e-9


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.99])
def test_a_quantile_is_near_the_true_one(fraction):
    """Within the width of one class."""
    lot = random.Random(3)
    values = sorted(lot.lognormvariate(-2.5, 0.8) for _ in range(20_000))

    got = counted(*values).quantile_s(fraction)

    assert got == pytest.approx(values[int(fraction * len(values))], rel=0.06)


def test_the_edges_of_quantiles():
    """Nothing has none; what is above all classes lies at the last bound; a value at a bound is within it."""
    assert Spread().quantile_s(0.99) is None
    assert counted(1000.0).quantile_s(0.5) == BOUNDS_S[-1]
    assert counted(0.1).quantile_s(1.0) == pytest.approx(0.1)
    assert counted(0.1).counts[bisect_left(BOUNDS_S, 0.1)] == 1


def test_spreads_add_up_and_their_difference_tells_of_a_while():
    """Of several routers; and a count that began anew tells all that it has."""
    early, late = counted(0.01, 0.1), counted(0.01, 0.1, 0.2, 0.2)

    assert summed([early, counted(0.2, 0.2)]) == Spread(late.counts, pytest.approx(late.sum_s))
    assert late.since(early).counts == counted(0.2, 0.2).counts
    assert late.since(None) == late
    assert early.since(late) == early
    assert (late.num_values, summed([]).num_values) == (4, 0)
