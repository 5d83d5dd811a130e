"""Quantiles in bounded memory."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.report.quantile_sketch import QuantileSketch

SECONDS = st.lists(st.floats(2e-6, 1e5), min_size=1, max_size=60)


def sketch_of(values):
    """One of these values."""
    sketch = QuantileSketch()
    for value in values:
        sketch.add(value)
    return sketch


@given(SECONDS, st.floats(0, 1))
def test_a_quantile_is_within_a_percent_of_the_value_at_its_rank(values, share):
    """Nearest rank, as `CameraSummary` has it."""
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert sketch_of(values).quantile(share) == pytest.approx(exact, rel=0.0101)


@given(SECONDS, SECONDS)
def test_a_merged_sketch_is_that_of_all_values(ones, others):
    """Classes are merged of their sizes."""
    merged, whole = QuantileSketch.merged([sketch_of(ones), sketch_of(others)]), sketch_of(ones + others)

    assert list(merged.steps()) == list(whole.steps())
    assert len(merged) == len(ones) + len(others)
    assert merged.sum == pytest.approx(math.fsum(ones + others))


def test_one_value_is_its_own_quantile():
    """A log of one line shows what it says."""
    assert {sketch_of([0.1234]).quantile(share) for share in (0.0, 0.5, 0.99, 1.0)} == {0.1234}


def test_without_values_there_is_no_quantile():
    """Not 0, which would be a good one."""
    assert QuantileSketch().quantile(0.5) is None


def test_memory_is_bounded_whatever_comes():
    """A million different values have no more classes than the range has."""
    sketch = sketch_of(10 ** (place % 4001 / 100 - 20) for place in range(40_000))

    assert len(list(sketch.steps())) < 1500
    assert sketch.quantile(0.0) == pytest.approx(0.0)
