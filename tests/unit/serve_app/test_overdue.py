"""How long a batch is waited for."""

from __future__ import annotations

import pytest

from serve_app.overdue import (
    HEDGE_FLOOR_S,
    HEDGE_RATIO,
    OVERDUE_FLOOR_S,
    OVERDUE_RATIO,
    OVERDUE_SPREADS,
    critical_patience_s,
    patience_s,
)


@pytest.mark.parametrize(
    ("run_s", "spread_s", "around_s", "expected_s"),
    [
        (0.01, 0.001, 0.01, OVERDUE_FLOOR_S),
        (0.4, 0.04, 0.1, OVERDUE_RATIO * 0.5),
        (0.1, 0.2, 0.01, OVERDUE_SPREADS * 0.2),
    ],
    ids=["short", "long", "scattered"],
)
def test_the_longest_of_three_waits_counts(run_s, spread_s, around_s, expected_s):
    """A floor, several times the prediction, and several times its scatter."""
    assert patience_s(run_s, spread_s, around_s) == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("left_s", "run_s", "expected_s"),
    [
        (0.05, 0.01, 0.5),
        (0.12, 0.01, HEDGE_FLOOR_S),
        (0.6, 0.01, 0.3),
        (5.0, 0.01, 0.5),
        (0.5, 0.2, HEDGE_RATIO * 0.21),
        (0.3, 0.2, 0.5),
    ],
    ids=["too late anyway", "just in time", "half", "plenty", "long run", "long run, too late"],
)
def test_critical_batches_are_tried_elsewhere_while_a_second_attempt_can_be_in_time(left_s, run_s, expected_s):
    """Half of what is left, never for a wait that is no news, and not at all where it would be for nothing."""
    got_s = critical_patience_s(10.0, 10.0 + left_s, run_s, 0.5, 0.01)

    assert got_s == pytest.approx(expected_s)
