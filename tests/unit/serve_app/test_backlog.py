"""Device seconds that wait, by due time, against a plain list of them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.backlog import BIN_S, NUM_BINS, Backlog

REACH_S = BIN_S * NUM_BINS
REPEATABLE = settings(derandomize=True, database=None, deadline=None)

# Whole hundredths: sums of them can be compared, and many share a bin.
dues = st.integers(0, 3000).map(lambda n: n / 100)
works = st.integers(1, 100).map(lambda n: n / 1024)


def test_work_ahead_is_what_is_due_no_later():
    """Earlier and equal due times count, later ones do not."""
    backlog = Backlog()
    for due_s, work_s in ((1.0, 0.25), (2.0, 0.5), (3.0, 1.0)):
        backlog.add(due_s, work_s, 0.0)

    assert [backlog.ahead_s(due_s, 0.0) for due_s in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0)] == [
        0.0, 0.25, 0.25, 0.75, 0.75, 1.75, 1.75,
    ]  # fmt: skip


def test_removed_work_counts_no_more():
    """By the bin that `add` gave, whatever the clock says meanwhile."""
    backlog = Backlog()
    bins = [backlog.add(due_s, 0.5, 0.0) for due_s in (1.0, 2.0)]
    backlog.remove(bins[0], 0.5)

    assert [backlog.ahead_s(due_s, 0.9) for due_s in (1.0, 2.0)] == [0.0, 0.5]
    backlog.remove(bins[1], 0.25)
    assert (backlog.ahead_s(2.0, 0.9), backlog.total_s) == (0.25, 0.25)


def test_work_beyond_the_ring_is_counted_last_but_counted():
    """A deadline of a day is ahead of nobody but those that ask for as late a place."""
    backlog = Backlog()
    backlog.add(86_400.0, 0.5, 0.0)

    assert backlog.ahead_s(REACH_S - 2 * BIN_S, 0.0) == 0.0
    assert backlog.ahead_s(REACH_S, 0.0) == 0.5
    assert backlog.ahead_s(90_000.0, 0.0) == 0.5


def test_work_that_came_overdue_is_ahead_of_all():
    """Its due time lies in the past: it is counted as due now."""
    backlog = Backlog()
    backlog.add(1.0, 0.5, 50.0)

    assert [backlog.ahead_s(due_s, 50.0) for due_s in (0.0, 50.0, 60.0)] == [0.5, 0.5, 0.5]


def test_work_that_became_overdue_while_it_waited_is_ahead_of_all():
    """Time passes over its bin: what should have begun already comes before whatever is due later."""
    backlog = Backlog()
    backlog.add(1.0, 0.5, 0.0)

    assert [backlog.ahead_s(due_s, 1.5) for due_s in (1.5, 2.0, 9.0)] == [0.5, 0.5, 0.5]


def test_the_totals_tell_classes_apart():
    """Critical work is not among the others; deferred work is, but not among the normal."""
    backlog = Backlog()
    backlog.add(1.0, 0.5, 0.0)
    backlog.add(2.0, 0.25, 0.0)
    backlog.deferred_s += 0.25
    backlog.critical_s += 4.0

    assert (backlog.normal_s, backlog.total_s, backlog.ahead_s(9.0, 0.0)) == (0.5, 4.75, 0.75)


@given(
    entries=st.lists(st.tuples(dues, works), max_size=30), now_s=dues, asked_s=dues, removed=st.sets(st.integers(0, 29))
)
@REPEATABLE
def test_work_ahead_is_right_to_a_bin(entries, now_s, asked_s, removed):
    """Everything added at one time, some of it removed: right up to a bin, and to the ring's reach."""
    backlog = Backlog()
    bins = [backlog.add(due_s, work_s, now_s) for due_s, work_s in entries]
    left = []
    for index, (due_s, work_s) in enumerate(entries):
        if index in removed:
            backlog.remove(bins[index], work_s)
        else:
            left.append((max(due_s, now_s), work_s))

    ahead_s = backlog.ahead_s(asked_s, now_s)
    horizon_s = now_s + REACH_S - 2 * BIN_S
    surely_s = sum(work_s for due_s, work_s in left if due_s <= asked_s - BIN_S or due_s <= now_s)
    at_most_s = sum(work_s for due_s, work_s in left if due_s <= max(asked_s, now_s) + BIN_S or asked_s >= horizon_s)
    assert surely_s - 1e-9 <= ahead_s <= at_most_s + 1e-9
    assert backlog.total_s == pytest.approx(sum(work_s for _, work_s in left), abs=1e-9)


@given(entries=st.lists(st.tuples(dues, works), min_size=1, max_size=30), now_s=dues)
@REPEATABLE
def test_what_is_ahead_never_shrinks_with_a_later_due_time(entries, now_s):
    """Who is due later waits behind at least as much."""
    backlog = Backlog()
    for due_s, work_s in entries:
        backlog.add(due_s, work_s, now_s)
    ahead = [backlog.ahead_s(now_s + step * BIN_S, now_s) for step in range(-3, NUM_BINS + 3)]

    assert all(early <= late + 1e-9 for early, late in pairwise(ahead))
    assert math.isclose(ahead[-1], backlog.total_s, abs_tol=1e-9)
