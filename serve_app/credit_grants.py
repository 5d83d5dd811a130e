"""How one replica divides its credits among routers that do not see each other's batches.

Book-keeping only: it reads no clock, and knows nothing of Ray or of what a batch holds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from serve_app.replica_credits import MAX_CREDITS_PER_REPLICA, MIN_CREDITS_PER_REPLICA

# A router asks every second, and at the latest after a round of reports in which one replica was silent (5 s more).
LEASE_S = 8.0
# Over how long it is averaged who keeps the device busy.
USE_S = 3.0
# Work that waits for so long makes a router as busy as it can be.
WAITING_S = 1.0
# What a router has already counts so much more than what it would have to get: else credits go to and fro.
STICKINESS = 1.5
# However busy the others are, a router may count on this share of the device: its batches take turns with theirs.
MIN_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class CreditAsk:
    """What a router says of itself when it asks a replica for its report.

    Attributes:
        router: its name.
        num_wanted: how many noncritical batches it would have here.
        waiting_s: predicted device seconds a replica of what waits at it for this pool.
        revision: of the application that it is part of.
    """

    router: str
    num_wanted: int
    waiting_s: float
    revision: int = 0


@dataclass(frozen=True, slots=True)
class CreditGrant:
    """What a replica that several routers use allows one of them, and what it has to do for the others.

    Attributes:
        num_credits: how many noncritical batches the router may have here.
        share: of the device's time, what it may count on.
        before_urgent_s: predicted device seconds of the others that a critical batch has to wait for.
        before_other_s: the same for another batch.
    """

    num_credits: int
    share: float
    before_urgent_s: float
    before_other_s: float


@dataclass(frozen=True, slots=True)
class CreditUse:
    """What a replica says of its credits.

    Attributes:
        num_routers: who hold leases.
        num_credits: for noncritical batches, of all routers together.
        most_held: the most noncritical batches that were here at once.
        num_refused: batches that came without a credit, and were refused unread.
        most_credits: the most credits that there ever were.
    """

    num_routers: int = 0
    num_credits: int = 0
    most_held: int = 0
    num_refused: int = 0
    most_credits: int = 0


@dataclass(slots=True, eq=False)
class _Lease:
    """What is known of a router; `is_live`: it was heard of lately."""

    router: str
    heard_s: float
    num_wanted: int = MIN_CREDITS_PER_REPLICA
    waiting_s: float = 0.0
    num_granted: int = 0
    num_held: int = 0
    used: float = 0.0
    used_at_s: float = 0.0
    is_live: bool = True

    @property
    def num_taken(self) -> int:
        """Credits that nobody else can have."""
        return max(self.num_granted, self.num_held)

    def use(self, now_s: float, busy_s: float = 0.0) -> float:
        """The share of the device's time that it has used of late, with what it has just used."""
        faded = self.used * math.exp(min(0.0, self.used_at_s - now_s) / USE_S)
        self.used, self.used_at_s = faded + busy_s / USE_S, max(now_s, self.used_at_s)
        return self.used


class _Held(NamedTuple):
    """A batch that is here."""

    lease: _Lease
    urgent: bool
    run_s: float


class CreditGrants:
    """The credits of one replica.

    Algorithm: there are as many credits for each live router that together they are as many as the router wants that
    wants the most. Each keeps one, and the others go, one by one, to the router with the most work for each credit that
    it has got: busy routers are served alike. Where there is but one for each, one more goes to a router that is
    clearly busier than the others, so that it can have a batch staged. A grant falls at once, and rises only into room.
    A router that is alone keeps count by itself, and is never refused.
    Bound: what routers are granted or hold (the larger counts) is never raised above the number of credits.
    Liveness: a router that is silent for `LEASE_S` is granted nothing; when its batches have ended it is forgotten.
    """

    def __init__(self) -> None:
        self._leases: dict[str, _Lease] = {}
        self._held: dict[int, _Held] = {}
        self._numbers = itertools.count(1)
        self._runs_since_s = 0.0
        self._most_held = 0
        self._most_credits = 0
        self._num_refused = 0

    @property
    def num_credits(self) -> int:
        """For noncritical batches, of all routers together."""
        live = [lease for lease in self._leases.values() if lease.is_live]
        return max(_num_each(live) * len(live), len(live) + 1) if live else 0

    def asked(self, ask: CreditAsk, now_s: float) -> CreditGrant | None:
        """A router asks for its credits; None: it is alone, and none of its batches will be refused."""
        lease = self._heard(ask.router, now_s)
        lease.num_wanted = min(MAX_CREDITS_PER_REPLICA, max(1, ask.num_wanted))
        lease.waiting_s = ask.waiting_s
        self._deal(now_s)
        return self.grant(ask.router, now_s)

    def came(self, router: str, run_s: float, now_s: float, *, urgent: bool) -> int | None:
        """A batch came that is predicted to run so long: a number for it; None: it is refused, for want of a credit.

        Critical batches need none.
        """
        lease = self._heard(router, now_s)
        if not urgent:
            if len(self._leases) > 1 and lease.num_held >= lease.num_granted:
                self._num_refused += 1
                return None
            lease.num_held += 1
            self._most_held = max(self._most_held, sum(each.num_held for each in self._leases.values()))
        if not self._held:
            self._runs_since_s = now_s
        number = next(self._numbers)
        self._held[number] = _Held(lease, urgent, run_s)
        return number

    def ended(self, number: int, busy_s: float, now_s: float) -> None:
        """A batch is here no more; it kept the device busy for so long."""
        held = self._held.pop(number)
        self._runs_since_s = now_s
        held.lease.use(now_s, busy_s)
        if not held.urgent:
            held.lease.num_held -= 1
            if len(self._leases) > 1:
                self._deal(now_s)

    def grant(self, router: str, now_s: float) -> CreditGrant | None:
        """What a router may have and expect now; None: it is alone here."""
        if len(self._leases) < 2 or router not in self._leases:
            return None
        before_urgent_s, before_other_s = self._before(router, now_s)
        num_granted = self._leases[router].num_granted
        return CreditGrant(num_granted, self._share(router, now_s), before_urgent_s, before_other_s)

    def use(self) -> CreditUse:
        """What there is to say of all."""
        return CreditUse(len(self._leases), self.num_credits, self._most_held, self._num_refused, self._most_credits)

    def _heard(self, router: str, now_s: float) -> _Lease:
        """A router shows that it lives."""
        lease = self._leases.get(router)
        is_new = lease is None or not lease.is_live
        if lease is None:
            lease = self._leases[router] = _Lease(router, now_s, used_at_s=now_s)
        lease.heard_s, lease.is_live = now_s, True
        if is_new or (len(self._leases) > 1 and any(self._is_silent(each, now_s) for each in self._leases.values())):
            self._deal(now_s)
        return lease

    def _is_silent(self, lease: _Lease, now_s: float) -> bool:
        return lease.is_live and now_s - lease.heard_s > LEASE_S

    def _deal(self, now_s: float) -> None:
        """Give each router what it is due, as far as there is room."""
        for lease in list(self._leases.values()):
            if self._is_silent(lease, now_s):
                lease.is_live, lease.num_granted = False, 0
            if not lease.is_live and not lease.num_held:
                del self._leases[lease.router]
        self._most_credits = max(self._most_credits, self.num_credits)
        if len(self._leases) == 1:
            (lease,) = self._leases.values()
            # More than it takes: it keeps count itself, by a number that may have grown since it was last heard.
            lease.num_granted = MAX_CREDITS_PER_REPLICA if lease.is_live else 0
            return
        due = self._due(now_s)
        for lease, num_due in due:
            lease.num_granted = min(lease.num_granted, num_due)
        num_free = self.num_credits - sum(lease.num_taken for lease in self._leases.values())
        for lease, num_due in due:
            before = lease.num_taken
            lease.num_granted = min(num_due, before + max(0, num_free))
            num_free -= lease.num_taken - before

    def _due(self, now_s: float) -> list[tuple[_Lease, int]]:
        """How many credits each live router should have, the neediest first."""
        live = [lease for lease in self._leases.values() if lease.is_live]
        work_s = {lease.router: lease.waiting_s + USE_S * lease.use(now_s) for lease in live}
        due = {lease.router: 1 for lease in live}

        def claim(lease: _Lease) -> tuple[float, bool, str]:
            has_it = lease.num_granted > due[lease.router]
            return work_s[lease.router] / due[lease.router] * (STICKINESS if has_it else 1), has_it, lease.router

        num_each = _num_each(live)
        for _ in range((num_each - 1) * len(live)):
            wanting = [lease for lease in live if due[lease.router] < lease.num_wanted]
            if wanting:
                due[max(wanting, key=claim).router] += 1
        if num_each == 1 and len(live) > 1:
            second, first = sorted(live, key=claim)[-2:]
            if first.num_wanted > 1 and claim(first)[0] > STICKINESS * claim(second)[0]:
                due[first.router] += 1
        # Of equals the one that has waited for its first credit goes first.
        neediest = sorted(live, key=lambda lease: (lease.num_granted > 0, lease.router))
        return [(lease, due[lease.router]) for lease in neediest]

    def _share(self, router: str, now_s: float) -> float:
        """Of the device's time: what the others leave, or what the router's credits will get it if it asks for more."""
        live = [lease for lease in self._leases.values() if lease.is_live]
        # What waits at the others will be work: with it they may use all that their credits bring.
        left = 1 - sum(lease.use(now_s) + lease.waiting_s / WAITING_S for lease in live if lease.router != router)
        num_granted = sum(lease.num_granted for lease in live)
        fair = self._leases[router].num_granted / num_granted if num_granted else 0.0
        return min(1.0, max(left, fair, MIN_SHARE))

    def _before(self, router: str, now_s: float) -> tuple[float, float]:
        """Device seconds of other routers' batches: of what runs (the eldest) and is urgent, and of all."""
        before_urgent_s = before_other_s = 0.0
        gone_s = now_s - self._runs_since_s
        for place, held in enumerate(self._held.values()):
            if held.lease.router != router:
                left_s = max(0.0, held.run_s - gone_s) if place == 0 else held.run_s
                before_other_s += left_s
                if place == 0 or held.urgent:
                    before_urgent_s += left_s
        return before_urgent_s, before_other_s


def _num_each(live: Sequence[_Lease]) -> int:
    """Credits a router, so that there are as many as the router wants that wants the most."""
    return math.ceil(max(lease.num_wanted for lease in live) / len(live)) if live else 0
