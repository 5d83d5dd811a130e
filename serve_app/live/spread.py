"""How seconds are spread: counts by class, which add up over routers, and whose difference tells of a while.

The classes refine those of the metrics (`metric_catalog.SECONDS`): each bound of theirs is one of ours, so that both
tell the same, and a quantile from ours is at most 6 % beside the true one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from serve_app.metric_catalog import SECONDS

# The ratio of two neighbouring bounds is at most this: nobody tells 100 ms from 106.
MOST_RATIO = 1.06


def _refined(bounds: tuple[float, ...]) -> tuple[float, ...]:
    fine = [bounds[0]]
    for lower, upper in pairwise(bounds):
        steps = math.ceil(math.log(upper / lower) / math.log(MOST_RATIO))
        fine += [lower * (upper / lower) ** (step / steps) for step in range(1, steps)]
        fine.append(upper)
    return tuple(fine)


BOUNDS_S = _refined(SECONDS)


@dataclass(frozen=True, slots=True)
class Spread:
    """So many values of each class.

    Attributes:
        counts: one a bound of `BOUNDS_S`, values at most that; and the last one for what is above all. Not cumulative.
        sum_s: of all values.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    sum_s: float = 0.0

    @property
    def num_values(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    def since(self, before: Spread | None) -> Spread:
        """What came after an earlier look at the same counts; all of it if they began anew in between."""
        if before is None or any(now < then for now, then in zip(self.counts, before.counts, strict=True)):
            return self
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return Spread(counts, max(0.0, self.sum_s - before.sum_s))

    def quantile_s(self, fraction: float) -> float | None:
        """The value that this share of all is at most; None: there is none.

        As Prometheus's `histogram_quantile`: values are taken to lie evenly in their class, and those above the last
        bound at it.
        """
        wanted = fraction * self.num_values
        if not wanted:
            return None
        below = 0
        for index, count in enumerate(self.counts[:-1]):
            if count and below + count >= wanted:
                lower = BOUNDS_S[index - 1] if index else 0.0
                return lower + (BOUNDS_S[index] - lower) * (wanted - below) / count
            below += count
        return BOUNDS_S[-1]


def summed(spreads: Iterable[Spread]) -> Spread:
    """All values in one."""
    counts, sum_s = [0] * (len(BOUNDS_S) + 1), 0.0
    for spread in spreads:
        sum_s += spread.sum_s
        for index, count in enumerate(spread.counts):
            counts[index] += count
    return Spread(tuple(counts), sum_s)


class SpreadCount:
    """Counts values as they come, a µs each."""

    __slots__ = ("_counts", "_sum_s")

    def __init__(self) -> None:
        """Start empty."""
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """One value, 0 or more."""
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    def spread(self) -> Spread:
        """All that came so far."""
        return Spread(tuple(self._counts), self._sum_s)
