"""How many replicas a pool should have: by the device seconds that come a second, and by those that wait for it.

Pure: it knows no Ray and no clock. Serve's controller and the simulator ask the same objects.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

# Over how long the work that comes is averaged: in the quick mean a step of the load shows within seconds, the steady
# one is not taken in by bursts.
QUICK_AVERAGE_S = 3.0
STEADY_AVERAGE_S = 15.0
# Averages hover. For one more replica than there are they must ask for so much of it, the quick one for more: it is
# taken in by chance sooner, and the steady one soon knows.
STEADY_MARGIN = 0.15
QUICK_MARGIN = 0.3
# And so much of the last one must be left over before it goes.
DOWN_MARGIN = 0.1
# What waits counts by its least of so long: a burst that is being worked off, or held for company, needs nobody.
BACKLOG_LASTS_S = 3.0
# Sums of floats are no whole numbers.
ROUNDING = 1e-6
# Without a plan's own: see `Scheduling.max_defer_s`.
DEFAULT_MAX_DEFER_S = 10.0


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """When pools grow and shrink.

    Attributes:
        max_wait_s: what waits for a pool should be done within so long.
        utilisation: share of its time that a replica should be busy with what comes.
        up_after_s: for how long more replicas must be wanted before a pool grows.
        down_after_s: for how long fewer must be wanted before it shrinks.
    """

    max_wait_s: float = 0.5
    utilisation: float = 0.8
    up_after_s: float = 1.0
    down_after_s: float = 60.0


class Demand(NamedTuple):
    """Device seconds a second: a mean of the last seconds, and a longer one."""

    quick: float
    steady: float


@dataclass(frozen=True, slots=True)
class PoolNeed:
    """What is known of one pool at a moment.

    Attributes:
        num_ready: replicas that take batches.
        target: replicas that it should have by now, starting ones included.
        least, most: its bounds.
        demand: device seconds that come a second, each frame by its first route, admitted or not: what is rejected or
            degraded for lack of replicas is still wanted.
        served: device seconds that its replicas are given a second: also what other pools' ladders send here.
        waiting_s: predicted device seconds that wait, without deferred frames.
        deferred_s: those of deferred frames, which may wait for `max_defer_s`.
    """

    num_ready: int
    target: int
    least: int
    most: int
    demand: Demand
    served: Demand
    waiting_s: float
    deferred_s: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many replicas a pool should have now, and why."""

    num_replicas: int
    reason: str


class DemandMeter:
    """What a counter of device seconds gained a second, over the last `QUICK_AVERAGE_S` and `STEADY_AVERAGE_S`.

    It begins at zero and climbs; what is longer ago than an average counts no more.
    """

    def __init__(self) -> None:
        self._readings: deque[tuple[float, float]] = deque()

    def read(self, total_s: float, now_s: float) -> Demand:
        """The means, now that the counter stands at `total_s`; readings may be any time apart."""
        readings = self._readings
        readings.append((now_s, total_s))
        while len(readings) > 1 and readings[1][0] <= now_s - STEADY_AVERAGE_S:
            readings.popleft()
        then_s, then_total_s = next(
            each for each in reversed(readings) if each[0] <= now_s - QUICK_AVERAGE_S or each is readings[0]
        )
        return Demand(
            (total_s - then_total_s) / max(now_s - then_s, QUICK_AVERAGE_S),
            (total_s - readings[0][1]) / max(now_s - readings[0][0], STEADY_AVERAGE_S),
        )


class PoolScaler:
    """Decides how many replicas one pool should have; one object a pool, asked every half second or so.

    Algorithm: the load wants so many replicas that what comes keeps each busy for `utilisation` of its time, and that
    what waits, by its least of `BACKLOG_LASTS_S`, would be done within `max_wait_s`; while replicas start, what waits
    is theirs and wants no further ones.
    Order: up before down. A pool grows to the fewest that were wanted within `up_after_s`, once more than it has were
    wanted all that time, by several at once if need be; an empty one gets its first replica as soon as anything waits.
    It shrinks to the most that were wanted within `down_after_s`, once fewer were wanted all that time.
    Bound: never below `least` or above `most`. A step of the load that lasts is answered within `QUICK_AVERAGE_S` and
    `up_after_s` but for a part of a replica, within `STEADY_AVERAGE_S` and `up_after_s` entirely; a pool that grew
    keeps its size for `down_after_s` at least, so that it turns at most twice in that time, whatever the load does.
    Hysteresis: to grow, the load must ask for `STEADY_MARGIN` of a further replica, or for `QUICK_MARGIN` within
    seconds; to shrink, it must leave `DOWN_MARGIN` of one unused.
    Liveness: with nothing to do a pool is at `least` after `STEADY_AVERAGE_S` and `down_after_s`.
    """

    def __init__(self, rules: Autoscaling, max_defer_s: float = DEFAULT_MAX_DEFER_S) -> None:
        """Take the plan's rules, and how long deferred frames may wait."""
        self._rules = rules
        self._max_defer_s = max_defer_s
        self._least_backlog = _Smallest(BACKLOG_LASTS_S)
        self._fewest = _Smallest(rules.up_after_s)
        self._most = _Smallest(rules.down_after_s)
        self._settled_from_s: float | None = None
        self._more_since_s: float | None = None
        self._fewer_since_s: float | None = None

    def decide(self, need: PoolNeed, now_s: float) -> Wanted:
        """How many it should have now, by what is known of it now; `now_s` never falls."""
        target = min(max(need.target, need.least), need.most)
        wanted, reason = self._wanted(need, now_s)
        kept = need.least
        if _has_work(need):
            busy = max(need.demand.steady, need.served.steady) / self._rules.utilisation
            kept = max(wanted, _replicas(busy + DOWN_MARGIN, need))
        fewest = int(self._fewest.of(wanted, now_s))
        most = -int(self._most.of(-kept, now_s))
        self._more_since_s = _since(self._more_since_s, now_s, holds=wanted > target)
        self._fewer_since_s = _since(self._fewer_since_s, now_s, holds=kept < target)
        if not target and need.most and _waits(need):
            return Wanted(1, "work waits for an empty pool")
        if fewest > target and _lasts(self._more_since_s, self._rules.up_after_s, now_s):
            return Wanted(fewest, reason)
        if most < target and _lasts(self._fewer_since_s, self._rules.down_after_s, now_s):
            return Wanted(most, f"no more were wanted for {self._rules.down_after_s:g} s; now {reason}")
        return Wanted(target, f"{reason}; kept")

    def _wanted(self, need: PoolNeed, now_s: float) -> tuple[int, str]:
        """Replicas that the load wants now, within the bounds."""
        if need.target > need.num_ready or self._settled_from_s is None:
            self._settled_from_s = now_s + BACKLOG_LASTS_S
            self._least_backlog.clear()
        waits = need.waiting_s / self._rules.max_wait_s + need.deferred_s / self._max_defer_s
        lasts = self._least_backlog.of(waits, now_s)
        backlog = lasts if now_s >= self._settled_from_s else 0.0
        quick, steady = need.demand.quick / self._rules.utilisation, need.demand.steady / self._rules.utilisation
        busy = max(quick - QUICK_MARGIN, steady - STEADY_MARGIN)
        if busy >= backlog:
            reason = f"{max(need.demand):.2f} device s come a second"
        else:
            reason = f"{need.waiting_s:.2f} device s wait, {need.deferred_s:.2f} s of deferred frames"
        return _replicas(max(busy, backlog), need), reason


class _Smallest:
    """The smallest of the values of the last `length_s`, the newest included; constant time a value, amortised."""

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._rising: deque[tuple[float, float]] = deque()

    def of(self, value: float, now_s: float) -> float:
        """Add a value; the smallest now."""
        rising = self._rising
        while rising and rising[-1][1] >= value:
            rising.pop()
        rising.append((now_s, value))
        while rising[0][0] <= now_s - self._length_s and len(rising) > 1:
            rising.popleft()
        return rising[0][1]

    def clear(self) -> None:
        """Begin anew."""
        self._rising.clear()


def _replicas(amount: float, need: PoolNeed) -> int:
    """Whole replicas for so much of one, within the bounds."""
    return min(max(math.ceil(amount - ROUNDING), need.least), need.most)


def _waits(need: PoolNeed) -> bool:
    return need.waiting_s + need.deferred_s > ROUNDING


def _has_work(need: PoolNeed) -> bool:
    return _waits(need) or max(need.demand.steady, need.served.steady) > ROUNDING


def _since(since_s: float | None, now_s: float, *, holds: bool) -> float | None:
    """Since when something has held without a break; None: it does not."""
    if not holds:
        return None
    return now_s if since_s is None else since_s


def _lasts(since_s: float | None, length_s: float, now_s: float) -> bool:
    return since_s is not None and now_s - since_s >= length_s
