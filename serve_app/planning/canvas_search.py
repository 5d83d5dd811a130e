"""The exact search behind the planner: at most K columns of a cost matrix that serve every row as cheaply as possible.

Rows are frame sizes, columns are canvases; it knows neither. The problem is the p-median problem, which is hard in
general: for sizes that lie on a chain a dynamic program would do, but portrait and landscape frames hold each other
in no order, so this is a branch and bound.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt

# What two totals may differ by and still count as equal: double rounding over a hundred rows.
TOLERANCE = 1e-9
# Forty sizes have about 300 candidates and need 1 to 50 nodes of some milliseconds. The most nodes are so many that
# nodes times costs stay below this, some ten seconds: a few thousand nodes at forty sizes, a few dozen at two hundred.
MAX_NODES_TIMES_COSTS = 40_000_000
ROOT_STEPS = 400
NODE_STEPS = 60
# The step length of the subgradient method: halved after so many steps without a better bound.
FIRST_STEP = 1.5
PATIENCE_STEPS = 12

Costs = npt.NDArray[np.float64]
Columns = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Selection:
    """What was found.

    Attributes:
        columns: the chosen columns, ascending; each is the cheapest of some row.
        total: the sum over the rows of their cheapest chosen column.
        bound: no choice has a smaller total than this.
        num_nodes: how many nodes the search looked at.
    """

    columns: tuple[int, ...]
    total: float
    bound: float
    num_nodes: int

    @property
    def gap_fraction(self) -> float:
        """How much of `total` might still be saved, at most; 0: proven optimal."""
        gap = (self.total - self.bound) / self.total if self.total > 0 else 0.0
        return gap if gap > TOLERANCE else 0.0


@dataclass(order=True, slots=True)
class _Node:
    """A part of the search: the open columns are taken, of the free ones some may be, all others are not."""

    bound: float
    number: int
    opened: Columns = field(compare=False)
    free: Columns = field(compare=False)
    prices: Costs = field(compare=False)


def select_columns(costs: Costs, max_columns: int, *, max_nodes: int | None = None) -> Selection | None:
    """Choose at most `max_columns` columns so that the sum over rows of their cheapest chosen column is smallest.

    Algorithm: best-first branch and bound on "is this column taken". The bound of a node is the Lagrangian relaxation
    that pays each row a price for being served by no or several columns, its prices found by the subgradient method
    (Beasley 1993, "Lagrangean heuristics for location problems"); columns whose reduced cost shows that they cannot be
    part of a better choice leave at once. Exact up to rounding (`TOLERANCE`) unless `max_nodes` ends it before;
    `Selection.gap_fraction` says which. Deterministic.

    Args:
        costs: shape `(rows, columns)`, not negative; infinite where a column cannot serve a row.
        max_columns: 1 or more.
        max_nodes: most nodes that are looked at; None: what `MAX_NODES_TIMES_COSTS` allows.

    Returns:
        None if no such choice serves every row.
    """
    finite = np.isfinite(costs)
    if not finite.any(axis=1).all():
        return None
    # Dearer than any choice that serves every row, so that one which does not is never preferred.
    unserved = 1.0 + 2.0 * float(np.where(finite, costs, 0.0).max(axis=1).sum())
    search = _Search(np.where(finite, costs, unserved), max_columns)
    bound = search.run(max_nodes or 1 + MAX_NODES_TIMES_COSTS // costs.size)
    if search.total >= unserved:
        return None
    served_by = search.columns[costs[:, search.columns].argmin(axis=1)]
    return Selection(tuple(sorted({int(column) for column in served_by})), search.total, bound, search.num_nodes)


class _Search:
    """The state of one search: the best choice so far."""

    def __init__(self, costs: Costs, max_columns: int) -> None:
        self._costs = costs
        self._max_columns = min(max_columns, costs.shape[1])
        self.columns: Columns = np.zeros(0, np.intp)
        self.total = float("inf")
        self.num_nodes = 0

    def run(self, max_nodes: int) -> float:
        """Search; returns a bound of all choices, the total of the best one if that is proven."""
        self._start()
        numbers = count()
        nobody: Columns = np.zeros(0, np.intp)
        everybody: Columns = np.arange(self._costs.shape[1], dtype=np.intp)
        waiting = [_Node(0.0, next(numbers), nobody, everybody, self._costs.min(axis=1))]
        while waiting:
            if waiting[0].bound >= self._cutoff:
                break
            if self.num_nodes == max_nodes:
                return min(waiting[0].bound, self.total)
            node = heapq.heappop(waiting)
            self.num_nodes += 1
            branch = self._look_at(node)
            if branch is None:
                continue
            rest = node.free[node.free != branch]
            for opened, free in ((np.append(node.opened, branch), rest), (node.opened, rest)):
                heapq.heappush(waiting, _Node(node.bound, next(numbers), opened, free, node.prices))
        return self.total

    @property
    def _cutoff(self) -> float:
        return self.total * (1 - TOLERANCE)

    def _offer(self, columns: Columns) -> None:
        total = float(self._costs[:, columns].min(axis=1).sum())
        if total < self.total:
            self.total, self.columns = total, columns.copy()

    def _start(self) -> None:
        """A first choice: greedily the column that saves most, then exchange one by one while that saves."""
        chosen: list[int] = []
        current = np.full(self._costs.shape[0], np.inf)
        for _ in range(self._max_columns):
            totals = np.minimum(self._costs, current[:, None]).sum(axis=0)
            chosen.append(int(totals.argmin()))
            current = np.minimum(current, self._costs[:, chosen[-1]])
        self._offer(np.array(chosen, np.intp))
        improved = True
        while improved:
            before = self.total
            for place in range(len(chosen)):
                others = self.columns[np.arange(len(self.columns)) != place]
                rest = self._costs[:, others].min(axis=1, initial=np.inf)
                best = int(np.minimum(self._costs, rest[:, None]).sum(axis=0).argmin())
                self._offer(np.append(others, best))
            improved = self.total < before * (1 - TOLERANCE)

    def _look_at(self, node: _Node) -> int | None:
        """Raise the node's bound and thin out its columns; returns the column to branch on, None if it is done."""
        num_places = self._max_columns - len(node.opened)
        if num_places == 0 or len(node.free) <= num_places:
            self._offer(np.concatenate([node.opened, node.free[:num_places]]))
            return None
        self._raise_bound(node, NODE_STEPS if node.number else ROOT_STEPS)
        if node.bound >= self._cutoff:
            return None
        reduced = np.minimum(self._costs[:, node.free] - node.prices[:, None], 0.0).sum(axis=0)
        order = np.argsort(reduced, kind="stable")
        last_in, first_out = reduced[order[num_places - 1]], reduced[order[num_places]]
        # A column that would come in must push another one out, and one that must stay out lets another one in.
        may_come_in = node.bound + reduced - last_in < self._cutoff
        may_come_in[order[:num_places]] = True
        taken = order[:num_places]
        must_be_in = taken[node.bound - reduced[taken] + first_out >= self._cutoff]
        branch = int(node.free[order[0]])
        node.opened = np.concatenate([node.opened, node.free[must_be_in]])
        may_come_in[must_be_in] = False
        node.free = node.free[may_come_in]
        if len(must_be_in) == num_places or len(node.free) <= num_places - len(must_be_in):
            return self._look_at(node)
        return branch if branch in node.free else int(node.free[0])

    def _raise_bound(self, node: _Node, num_steps: int) -> None:
        """Subgradient steps on the prices of a node; also offers the choices met on the way."""
        num_places = self._max_columns - len(node.opened)
        free_costs, open_costs = self._costs[:, node.free], self._costs[:, node.opened]
        prices, step, since_better = node.prices.copy(), FIRST_STEP, 0
        best = -float("inf")
        for _ in range(num_steps):
            reduced = np.minimum(free_costs - prices[:, None], 0.0).sum(axis=0)
            taken = np.argpartition(reduced, num_places - 1)[:num_places]
            served = (free_costs[:, taken] < prices[:, None]).sum(axis=1) + (open_costs < prices[:, None]).sum(axis=1)
            value = float(prices.sum() + reduced[taken].sum() + np.minimum(open_costs - prices[:, None], 0.0).sum())
            self._offer(np.concatenate([node.opened, node.free[taken]]))
            since_better += 1
            if value > best:
                best, since_better = value, 0
                node.bound, node.prices = max(node.bound, value), prices.copy()
            direction = 1 - served
            length = float(direction @ direction)
            if length == 0 or best >= self._cutoff:
                return
            if since_better == PATIENCE_STEPS:
                step, since_better = step / 2, 0
            prices = prices + step * (self.total - value) / length * direction
