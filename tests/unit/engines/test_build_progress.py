"""Nested phases as one fraction: it only grows, and it reaches the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.build_progress import BuildWatch, PhaseTree


def test_a_phase_fills_the_step_of_its_parent():
    """Half of the second of four steps is three eighths of the whole."""
    tree = PhaseTree()
    tree.start("all", None, 4)
    tree.step("all", 0)
    tree.start("part", "all", 2)
    tree.step("part", 0)
    assert tree.fraction == pytest.approx(3 / 8)
    tree.finish("part")
    assert tree.fraction == pytest.approx(2 / 4)
    tree.finish("all")
    assert tree.fraction == 1


def test_phases_in_one_step_of_their_parent_do_not_go_back():
    """The builder starts a second phase in the same step; what was reached stays."""
    tree = PhaseTree()
    tree.start("all", None, 2)
    tree.start("first", "all", 1)
    tree.finish("first")
    tree.start("second", "all", 10)
    tree.step("second", 0)
    assert tree.fraction == pytest.approx(1 / 2)


def test_a_phase_without_a_known_parent_counts_as_a_whole():
    """Names and nesting change between versions; none of it is an error."""
    tree = PhaseTree()
    tree.start("orphan", "never seen", 0)
    tree.step("unknown", 3)
    tree.finish("unknown")
    assert tree.fraction == 0
    tree.finish("orphan")
    assert tree.fraction == 1


EVENTS = st.tuples(
    st.sampled_from(["start", "step", "finish"]),
    st.sampled_from("abc"),
    st.sampled_from([None, "a", "b", "c"]),
    st.integers(0, 5),
)


@given(st.lists(EVENTS, max_size=40))
def test_the_fraction_only_grows_and_stays_within_0_and_1(events):
    """Whatever order the builder's events come in."""
    tree, last = PhaseTree(), 0.0
    for kind, name, parent, number in events:
        if kind == "start":
            tree.start(name, parent, number)
        elif kind == "step":
            tree.step(name, number)
        else:
            tree.finish(name)
        assert last <= tree.fraction <= 1
        last = tree.fraction


def test_a_cancelled_build_is_told_at_its_next_step():
    """The builder asks after each step whether to go on."""
    watch = BuildWatch(None)
    watch.start("all", None, 2)
    assert watch.step("all", 0)
    watch.cancel()
    assert not watch.step("all", 1)


def test_what_a_listener_raises_stops_the_build_and_is_kept():
    """It must not unwind through the library's own frames; the caller of `build` gets it."""

    def listener(_fraction, _phase):
        raise KeyError("broken")

    watch = BuildWatch(listener)
    watch.start("all", None, 2)
    assert not watch.step("all", 0)
    assert isinstance(watch.failure, KeyError)


def test_a_stopped_build_tells_its_listener_nothing_more():
    """A progress bar that was closed is not written to again."""
    seen = []
    watch = BuildWatch(lambda fraction, phase: seen.append((fraction, phase)))
    watch.start("all", None, 2)
    watch.cancel()
    watch.step("all", 0)
    watch.finish("all")
    assert seen == [(0.0, "all")]
