"""The least replica-seconds that serve a load in time: against every schedule there is, and by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.errors import InvalidPlanError
from serve_app.simulation.clairvoyant import UNITS_A_STEP, least_replica_s

STEP_S = 0.5


def least_by_trying(units, *, least, most, start_up_s, wait_steps):
    """Every sequence of sizes; a schedule is in time if what waits after each step is done within so many steps."""
    cheapest = math.inf
    for sizes in itertools.product(range(least, most + 1), repeat=len(units)):
        waits, cost_s, before = 0, 0.0, least
        for came, size in zip(units, sizes, strict=True):
            cost_s += start_up_s * max(0, size - before) + size * STEP_S
            before = size
            waits = max(0, waits + came - size * UNITS_A_STEP)
            if waits > size * UNITS_A_STEP * wait_steps:
                cost_s = math.inf
                break
        cheapest = min(cheapest, cost_s)
    return cheapest


@settings(max_examples=60, deadline=None)
@given(
    units=st.lists(st.integers(0, 2 * UNITS_A_STEP), min_size=1, max_size=6),
    least=st.integers(0, 1),
    start_up_s=st.sampled_from([0.0, 0.4, 2.0]),
    wait_steps=st.sampled_from([1, 2]),
)
def test_it_is_the_least_of_all_schedules(units, least, start_up_s, wait_steps):
    """Of up to three replicas, which can do all that comes."""
    work_s = np.array(units) * STEP_S / UNITS_A_STEP

    found = least_replica_s(
        work_s, STEP_S, least=least, most=3, start_up_s=start_up_s, max_wait_s=wait_steps * STEP_S
    )  # fmt: skip

    by_trying = least_by_trying(units, least=least, most=3, start_up_s=start_up_s, wait_steps=wait_steps)
    assert found == pytest.approx(by_trying)


def test_a_valley_shorter_than_a_start_is_slept_through_and_a_longer_one_is_not():
    """Two replicas, then one, then two: the second costs its start or the valley, whichever is less."""
    work_s = np.array([1.0] * 40 + [0.5] * 20 + [1.0] * 40)

    def found(start_up_s):
        return least_replica_s(work_s, STEP_S, least=1, most=4, start_up_s=start_up_s, max_wait_s=0.0)

    assert found(5.0) == pytest.approx(50 + 40 + 2 * 5)
    assert found(30.0) == pytest.approx(50 + 50 + 30)


def test_replicas_that_are_to_be_less_busy_cost_as_many_more():
    """Two device seconds a second take 2.5 replicas at 80 %, and replicas are whole."""
    work_s = np.full(200, 2.0 * STEP_S)

    def found(utilisation):
        return least_replica_s(
            work_s, STEP_S, least=0, most=8, start_up_s=0.0, max_wait_s=0.0, utilisation=utilisation
        )  # fmt: skip

    assert (found(1.0), found(0.8)) == (200.0, 300.0)


def test_work_is_never_lost_in_the_rounding():
    """A little more than one replica does, all the time, takes a second one in the end."""
    work_s = np.full(1000, 1.01 * STEP_S)

    found = least_replica_s(work_s, STEP_S, least=1, most=4, start_up_s=0.0, max_wait_s=0.5)

    assert found > 500


def test_more_than_all_can_do_is_dropped():
    """As a service rejects it: the pool is as large as it may be, and no more."""
    assert least_replica_s(np.full(100, 9.0), STEP_S, least=1, most=3, start_up_s=0.0, max_wait_s=0.5) == 150.0


def test_nothing_to_do_costs_the_least_ones():
    """And no more than nothing, where none need be."""
    for least in (0, 2):
        found = least_replica_s(np.zeros(10), STEP_S, least=least, most=4, start_up_s=9.0, max_wait_s=0.5)
        assert found == least * 5.0


@pytest.mark.parametrize(
    "changes",
    [{"least": 5}, {"least": -1}, {"most": 0, "least": 0}, {"utilisation": 0.0}, {"most": 10_000}],
    ids=["least above most", "negative", "none at all", "never busy", "too many states"],
)
def test_numbers_that_make_no_sense_are_refused(changes):
    """Also such as would take hours."""
    options = {"least": 1, "most": 4, "start_up_s": 1.0, "max_wait_s": 0.5} | changes

    with pytest.raises(InvalidPlanError, match="clairvoyant: got"):
        least_replica_s(np.ones(4), STEP_S, **options)
