"""How many device seconds of work wait in one pool, and how many of them come before a given due time."""

from __future__ import annotations

# Fine against any deadline; the bins together reach 12.8 s ahead, beyond the age at which deferred frames must begin.
BIN_S = 0.05
NUM_BINS = 256


class Backlog:
    """Device seconds by due time, in a ring of bins; adding, removing and asking take constant time, amortised.

    `saving_s` of the noncritical ones would not be needed if all of them took their cheapest routes.

    What is due beyond the ring's reach is counted in its last bin; what has become overdue is ahead of everything.
    Bins are numbered from the clock's zero, so that a number stays what it is as the ring turns.
    """

    def __init__(self) -> None:
        self.critical_s = 0.0
        self.deferred_s = 0.0
        self.saving_s = 0.0
        self.others_s = 0.0
        self._first = 0
        self._bins_s = [0.0] * NUM_BINS

    @property
    def normal_s(self) -> float:
        """Of normal frames that are not deferred."""
        return max(0.0, self.others_s - self.deferred_s)

    @property
    def total_s(self) -> float:
        """Of all that waits."""
        return max(0.0, self.critical_s + self.others_s)

    @property
    def waiting_deferred_s(self) -> float:
        """Of deferred frames."""
        return max(0.0, self.deferred_s)

    def add(self, due_s: float, work_s: float, now_s: float) -> int:
        """Count noncritical work; returns the bin to give back to `remove`."""
        if int(now_s / BIN_S) > self._first:
            self._turn(now_s)
        number, last = int(due_s / BIN_S), self._first + NUM_BINS - 1
        if number > last:
            number = last
        elif number < self._first:
            number = self._first
        self._bins_s[number % NUM_BINS] += work_s
        self.others_s += work_s
        return number

    def remove(self, number: int, work_s: float) -> None:
        """Count noncritical work no more."""
        if number >= self._first:
            self._bins_s[number % NUM_BINS] -= work_s
        self.others_s -= work_s

    def ahead_s(self, due_s: float, now_s: float) -> float:
        """Noncritical work that is due no later than this, to a bin."""
        if int(now_s / BIN_S) > self._first:
            self._turn(now_s)
        first = self._first
        number = max(int(due_s / BIN_S), first)
        if number >= first + NUM_BINS - 1:
            return max(0.0, self.others_s)
        begin, end = (number + 1) % NUM_BINS, first % NUM_BINS
        bins_s = self._bins_s
        later_s = sum(bins_s[begin:end], 0.0) if begin <= end else sum(bins_s[begin:], sum(bins_s[:end], 0.0))
        return max(0.0, self.others_s - later_s)

    def _turn(self, now_s: float) -> None:
        """Let bins whose time has passed become overdue."""
        first = int(now_s / BIN_S)
        for number in range(self._first, min(first, self._first + NUM_BINS)):
            self._bins_s[number % NUM_BINS] = 0.0
        self._first = max(self._first, first)
