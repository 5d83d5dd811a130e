"""Limits of replicas by several parts: the least counts, and the scheduler hears of changes only."""

from __future__ import annotations

import pytest

from serve_app.replica_credits import MAX_CREDITS_PER_REPLICA as ANY
from serve_app.replica_limits import SPARE, ReplicaLimits


class Told:
    """A scheduler that notes what it is told."""

    def __init__(self):
        self.told = []

    def replicas_ready(self, pool, replicas):
        """See `Scheduler`."""
        self.told.append((pool, dict(replicas)))


@pytest.fixture
def told():
    """What the scheduler was told, by the limits that are `told.limits`."""
    scheduler = Told()
    scheduler.limits = ReplicaLimits(scheduler)
    return scheduler


def test_a_replica_without_a_limit_takes_what_there_is(told):
    """As if nobody had a say."""
    told.limits.ready("near", ["a", "b"])

    assert told.told == [("near", {"a": ANY, "b": ANY})]


def test_the_least_of_all_limits_counts(told):
    """Whoever said it, in whatever order."""
    told.limits.ready("near", ["a", "b"])
    told.limits.limit("grant", "near", "a", 2)
    told.limits.limit("memory", "near", "a", 1)
    told.limits.limit("grant", "near", "a", 3)
    told.limits.limit("memory", "near", "a", None)

    assert [names["a"] for _, names in told.told] == [ANY, 2, 1, 1, 3]
    assert {names["b"] for _, names in told.told} == {ANY}


def test_what_changes_nothing_is_not_told(told):
    """A grant comes with every reply."""
    told.limits.ready("near", ["a"])
    for _ in range(5):
        told.limits.limit("grant", "near", "a", 2)
        told.limits.limit("memory", "near", "a", None)

    assert len(told.told) == 2


def test_a_limit_outlives_a_silent_round_and_a_pool(told):
    """A replica that comes back is as limited as before; pools have nothing in common."""
    told.limits.limit("drain", "near", "a", 0)
    assert told.told == []
    told.limits.ready("near", ["a"])
    told.limits.ready("near", [])
    told.limits.ready("near", ["a"])
    told.limits.ready("far", ["a"])

    assert told.told == [("near", {"a": 0}), ("near", {}), ("near", {"a": 0}), ("far", {"a": ANY})]


def test_replicas_that_are_gone_for_good_are_forgotten(told):
    """Each restart brings a new name."""
    for number in range(3 * SPARE):
        told.limits.limit("grant", "near", f"old-{number}", 1)
        told.limits.ready("near", ["a"])

    assert len(told.limits._most["near"]) <= SPARE + 4
