"""How long to wait before the next attempt. Pure: chance is injected, and nobody waits here."""

from __future__ import annotations

from collections.abc import Callable

# A camera that restarts its encoder is back in a second; one that boots need not be asked more than twice a minute.
FIRST_S = 1.0
MOST_S = 30.0
FACTOR = 2.0
# A connection that lasted so long was a good one: the next loss begins at the first wait again.
GOOD_S = 10.0


class Backoff:
    """Waits that double from `first_s` to `most_s`, each drawn from the upper half of its range.

    The draw keeps a hundred cameras behind one switch from coming back in the same instant; half of the range stays, so
    that no draw asks at once.
    """

    def __init__(self, uniform: Callable[[], float], *, first_s: float = FIRST_S, most_s: float = MOST_S) -> None:
        """Take where chance comes from: `uniform()` in [0, 1)."""
        self._uniform = uniform
        self._first_s = first_s
        self._most_s = most_s
        self._range_s = first_s

    def next_s(self) -> float:
        """Seconds to wait now; the next range is twice as long."""
        wait_s = self._range_s * (0.5 + 0.5 * self._uniform())
        self._range_s = min(self._most_s, self._range_s * FACTOR)
        return wait_s

    def lasted(self, seconds: float) -> None:
        """A connection held for so long; if that is long enough, the waits begin anew."""
        if seconds >= GOOD_S:
            self._range_s = self._first_s
