"""Quantiles of any number of values in bounded memory, each within 1 % of a value that was there. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

# Neighbouring classes are 2 % apart, so their middles are within 1 % of all that they hold (DDSketch, Masson 2019).
RATIO = 1.02
# Below a microsecond and above eleven days nobody tells times apart: 1,400 classes at most.
LEAST, MOST = 1e-6, 1e6

_LOG_RATIO = math.log(RATIO)
_FLOOR = math.ceil(math.log(LEAST) / _LOG_RATIO) - 1


class QuantileSketch:
    """Counts values of 0 or more by classes that grow by 2 %."""

    __slots__ = ("_counts", "least", "most", "sum")

    def __init__(self) -> None:
        """Start without values."""
        self._counts: Counter[int] = Counter()
        self.sum = 0.0
        self.least = math.inf
        self.most = 0.0

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, value: float) -> None:
        """Take a value; what is below 0 counts as 0."""
        value = max(0.0, value)
        self._counts[_FLOOR if value <= LEAST else math.ceil(math.log(min(value, MOST)) / _LOG_RATIO)] += 1
        self.sum += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)

    @property
    def mean(self) -> float:
        """Of all values, exact; 0 without any."""
        return self.sum / len(self) if self._counts else 0.0

    def quantile(self, share: float) -> float | None:
        """The value that this share of all is at most, by nearest rank; None without any. Exact at 0 and 1."""
        if not self._counts:
            return None
        rank = max(1, math.ceil(share * len(self)))
        return next(value for value, seen in self.steps() if seen >= rank)

    def steps(self) -> Iterator[tuple[float, int]]:
        """Each class's value, ascending, with how many values are at most that: a cumulative curve."""
        seen, last = 0, max(self._counts, default=0)
        for place in sorted(self._counts):
            seen += self._counts[place]
            middle = 0.0 if place == _FLOOR else 2 * RATIO**place / (RATIO + 1)
            yield (self.most if place == last else min(max(middle, self.least), self.most)), seen

    @classmethod
    def merged(cls, sketches: Iterable[QuantileSketch]) -> QuantileSketch:
        """One of all their values."""
        whole = cls()
        for sketch in sketches:
            whole._counts.update(sketch._counts)  # noqa: SLF001 (of its own class)
            whole.sum += sketch.sum
            whole.least = min(whole.least, sketch.least)
            whole.most = max(whole.most, sketch.most)
        return whole
