"""Which of the batches that a replica holds goes to its device next."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class DeviceTurns(Generic[Item]):
    """Urgent batches before all others, first come first served within: a staged critical one overtakes.

    Bound: another batch is not overtaken any more once it has waited for `max_starve_s`. A running batch is never
    interrupted.
    """

    def __init__(self, max_starve_s: float) -> None:
        """Take for how long urgent batches may keep the others waiting."""
        self._max_starve_s = max_starve_s
        self._urgent: deque[Item] = deque()
        self._others: deque[tuple[float, Item]] = deque()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others)

    def add(self, item: Item, now_s: float, *, urgent: bool) -> None:
        """A batch is ready for the device."""
        if urgent:
            self._urgent.append(item)
        else:
            self._others.append((now_s, item))

    def next(self, now_s: float) -> Item:
        """Take out the batch that goes next. Raises `IndexError` if there is none."""
        return self._urgent.popleft() if self._is_urgents_turn(now_s) else self._others.popleft()[1]

    def peek(self, now_s: float) -> Item | None:
        """The batch that would go next now; None if there is none."""
        if self._is_urgents_turn(now_s):
            return self._urgent[0]
        return self._others[0][1] if self._others else None

    def _is_urgents_turn(self, now_s: float) -> bool:
        return bool(self._urgent) and not (self._others and now_s - self._others[0][0] >= self._max_starve_s)
