"""Whose turn it is on a device."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.device_turns import DeviceTurns

MAX_STARVE_S = 1.0


def turns_of(*items: tuple[str, bool]) -> DeviceTurns[str]:
    """Batches that became ready in this order: a name, and whether it is urgent."""
    turns: DeviceTurns[str] = DeviceTurns(MAX_STARVE_S)
    for name, urgent in items:
        turns.add(name, 0.0, urgent=urgent)
    return turns


def drained(turns: DeviceTurns[str], now_s: float = 0.0) -> list[str]:
    """All that wait, in the order of their turns."""
    order = []
    while len(turns):
        assert turns.peek(now_s) == turns.peek(now_s)  # looking changes nothing
        order.append((turns.peek(now_s), turns.next(now_s)))
    assert all(seen == taken for seen, taken in order)
    return [taken for _, taken in order]


def test_urgent_batches_overtake_staged_ones_and_keep_their_order():
    """Urgent first, first come first served within; names play no part."""
    turns = turns_of(("n-z", False), ("u-z", True), ("n-a", False), ("u-a", True))

    assert drained(turns) == ["u-z", "u-a", "n-z", "n-a"]


def test_an_urgent_batch_that_comes_later_still_goes_next():
    """The order is judged when the device is free, not when batches came."""
    turns = turns_of(("n1", False), ("n2", False))
    first = turns.next(0.0)
    turns.add("u", 0.0, urgent=True)

    assert [first, *drained(turns)] == ["n1", "u", "n2"]


def test_no_batch_has_no_turn():
    """An empty device is an error to an order."""
    turns = turns_of()

    assert len(turns) == 0
    assert turns.peek(0.0) is None
    with pytest.raises(IndexError):
        turns.next(0.0)


def test_another_batch_is_not_overtaken_for_ever():
    """Once it has waited for `max_starve_s` it goes next; the one behind it waits for its own time."""
    turns: DeviceTurns[str] = DeviceTurns(MAX_STARVE_S)
    turns.add("n1", 0.0, urgent=False)
    turns.add("n2", 0.5, urgent=False)
    for number in range(4):
        turns.add(f"u{number}", 0.5, urgent=True)

    assert [turns.next(now_s) for now_s in (0.99, 1.0, 1.01, 1.49, 1.5)] == ["u0", "n1", "u1", "u2", "n2"]
    assert len(turns) == 1


@given(
    steps=st.lists(st.sampled_from(["urgent", "other", "next", "next"]), max_size=80),
    step_s=st.sampled_from([0.1, 0.3, 1.0]),
)
@settings(derandomize=True, database=None, deadline=None)
def test_turns_keep_their_order_and_their_bound(steps, step_s):
    """Against a plain list: first come first served in each kind, urgent first but for those that have starved."""
    turns: DeviceTurns[int] = DeviceTurns(MAX_STARVE_S)
    here: list[tuple[float, int, bool]] = []
    for number, step in enumerate(steps):
        now_s = number * step_s
        if step != "next":
            turns.add(number, now_s, urgent=step == "urgent")
            here.append((now_s, number, step == "urgent"))
        elif here:
            starved = [each for each in here if not each[2] and now_s - each[0] >= MAX_STARVE_S]
            urgent = [each for each in here if each[2]]
            expected = (starved or urgent or here)[0]
            here.remove(expected)
            assert turns.next(now_s) == expected[1]
        assert len(turns) == len(here)


def test_items_of_equal_rank_are_never_compared():
    """Batches have no order of their own."""
    turns: DeviceTurns[object] = DeviceTurns(MAX_STARVE_S)
    items = [object() for _ in range(9)]
    for item in items:
        turns.add(item, 0.0, urgent=True)

    assert [turns.next(0.0) for _ in items] == items
