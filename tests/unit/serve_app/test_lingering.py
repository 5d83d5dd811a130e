"""Which replicas a router goes on using while Serve stops them."""

from __future__ import annotations

import pytest

from serve_app.lingering import MAX_STEP_S, MAX_UNREPLACED_S, Lingering

ALL = ("a", "b", "c")


def staying(lingering, announced, now_s, *, is_update):
    """Those of all three that stay."""
    return lingering.staying(ALL, announced, now_s, is_update=is_update)


def test_a_pool_that_shrinks_lets_its_replicas_go_at_once():
    """Others of the same revision are there, and nothing newer: that is scaling down."""
    assert staying(Lingering(keeps_last=True), ("a",), 0.0, is_update=False) == ()


def test_in_an_update_a_replica_stays_for_a_step_while_others_are_announced():
    """Longer it would only keep a place from the next new one."""
    lingering = Lingering(keeps_last=True)

    assert staying(lingering, ("a",), 100.0, is_update=True) == ("b", "c")
    assert staying(lingering, ("a",), 99.9 + MAX_STEP_S, is_update=True) == ("b", "c")
    assert staying(lingering, ("a",), 100.0 + MAX_STEP_S, is_update=True) == ()


def test_in_an_update_the_last_ones_stay_until_the_router_leaves_them():
    """The new router may wait for an engine of another pool that has to be built first."""
    lingering = Lingering(keeps_last=True)

    assert staying(lingering, (), 0.0, is_update=True) == ALL
    assert staying(lingering, (), 3600.0, is_update=True) == ALL
    lingering.leave()
    assert staying(lingering, (), 3600.0, is_update=True) == ()


def test_the_last_ones_of_a_pool_that_nothing_replaces_stay_for_a_while():
    """A pool that the new plan does not have; or the application was deleted, which the router survives by seconds."""
    lingering = Lingering(keeps_last=True)

    assert staying(lingering, (), 0.0, is_update=False) == ALL
    assert staying(lingering, (), MAX_UNREPLACED_S, is_update=False) == ()


@pytest.mark.parametrize("is_update", [False, True])
def test_where_old_ones_must_make_room_the_last_do_not_stay_for_ever(is_update):
    """`surge: false`: the new one cannot start before they have gone."""
    lingering = Lingering(keeps_last=False)
    staying(lingering, (), 0.0, is_update=is_update)

    assert staying(lingering, (), MAX_STEP_S, is_update=is_update) == ()


def test_each_replica_has_its_own_time():
    """Serve stops them one after the other; one that is announced again begins anew."""
    lingering = Lingering(keeps_last=True)

    assert staying(lingering, ("a", "b"), 0.0, is_update=True) == ("c",)
    assert staying(lingering, ("a",), MAX_STEP_S / 2, is_update=True) == ("b", "c")
    assert staying(lingering, ("a",), MAX_STEP_S, is_update=True) == ("b",)
    assert staying(lingering, ("a", "c"), MAX_STEP_S, is_update=True) == ("b",)
    assert staying(lingering, ("a",), MAX_STEP_S + 1, is_update=True) == ("b", "c")
