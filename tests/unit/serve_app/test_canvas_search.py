"""The exact search, against looking at every choice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.planning import canvas_search
from serve_app.planning.canvas_search import select_columns

INF = float("inf")


def best_of_all(costs, max_columns):
    """The smallest total over every choice of columns; infinite if none serves every row."""
    size = min(max_columns, costs.shape[1])
    choices = np.array(list(itertools.combinations(range(costs.shape[1]), size)))
    return float(costs[:, choices].min(axis=2).sum(axis=0).min())


def total_of(costs, columns):
    """What these columns cost."""
    return float(costs[:, list(columns)].min(axis=1).sum())


@st.composite
def cost_matrices(draw):
    """Any costs at all, with holes; nothing of canvases is in them."""
    num_rows, num_columns = draw(st.integers(1, 8)), draw(st.integers(1, 9))
    value = st.one_of(st.integers(0, 20).map(float), st.just(INF))
    return np.array(
        draw(
            st.lists(st.lists(value, min_size=num_columns, max_size=num_columns), min_size=num_rows, max_size=num_rows)
        )
    )


@pytest.fixture(scope="module", params=["good bounds", "poor bounds"])
def steps(request):
    """The search as it is, and with so few steps that it must branch: both are exact, the second one is slower."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "poor bounds":
            patch.setattr(canvas_search, "ROOT_STEPS", 2)
            patch.setattr(canvas_search, "NODE_STEPS", 2)
        yield request.param


@pytest.mark.usefixtures("steps")
@settings(max_examples=120)
@given(costs=cost_matrices(), max_columns=st.integers(1, 4))
def test_no_other_choice_is_cheaper(costs, max_columns):
    """Of every matrix the optimum, proven; and none where no choice serves every row."""
    found, best = select_columns(costs, max_columns), best_of_all(costs, max_columns)

    if found is None:
        assert best == INF
        return
    assert found.total == pytest.approx(best, abs=1e-9)
    assert found.gap_fraction == 0
    assert len(found.columns) <= max_columns
    assert total_of(costs, found.columns) == pytest.approx(found.total, abs=1e-9)


@pytest.mark.parametrize("max_columns", [2, 3, 4])
@pytest.mark.usefixtures("steps")
def test_costs_without_any_order_are_solved_too(max_columns):
    """Where columns leave and enter by their reduced costs, and the bounds are far from the optimum."""
    rng = np.random.default_rng(max_columns)
    for _ in range(60):
        costs = rng.integers(1, 100, (12, 14)).astype(float)
        found = select_columns(costs, max_columns)

        assert (found.total, found.gap_fraction) == (best_of_all(costs, max_columns), 0)


def hard_matrix(size=40, seed=3):
    """Costs without any order in them: the relaxation alone does not settle it."""
    return np.random.default_rng(seed).integers(1, 100, (size, size)).astype(float)


def test_a_search_that_was_cut_short_says_how_far_it_may_be():
    """The bound holds for the true optimum, and the gap is shown, not hidden."""
    costs = hard_matrix()
    whole, cut = select_columns(costs, 5), select_columns(costs, 5, max_nodes=1)

    assert whole.gap_fraction == 0
    assert whole.num_nodes > cut.num_nodes == 1
    assert cut.bound <= whole.total <= cut.total
    assert 0 < cut.gap_fraction < 0.5


def test_columns_that_serve_no_row_cheapest_are_not_chosen():
    """Five allowed, two needed."""
    costs = np.array([[1.0, 9.0, 5.0], [9.0, 1.0, 5.0]])

    assert select_columns(costs, 5).columns == (0, 1)


def test_a_row_that_nothing_serves_has_no_choice():
    """Told at once."""
    assert select_columns(np.array([[1.0, 2.0], [INF, INF]]), 2) is None


def test_the_same_matrix_gives_the_same_choice():
    """Plans must not change between runs."""
    costs = hard_matrix(30, seed=5)

    assert select_columns(costs, 4) == select_columns(costs.copy(), 4)
