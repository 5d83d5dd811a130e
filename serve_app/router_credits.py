"""A router's side of the credits: what it asks replicas for, and what their grants mean to its scheduler."""

from __future__ import annotations

import math
from collections.abc import Iterable

from serve_app.credit_grants import CreditAsk, CreditGrant
from serve_app.replica_limits import ReplicaLimits
from serve_app.results import ReplicaReport
from serve_app.scheduler import Scheduler

# Under these names the limits of replicas are set.
GRANT, REFUSAL = "grant", "refusal"


class RouterCredits:
    """Brings each word of a replica about its credits to the scheduler. While no other router is there, it is none."""

    def __init__(self, router: str, scheduler: Scheduler, limits: ReplicaLimits, revision: int = 0) -> None:
        """Take the router's name, its scheduler, the limits of its replicas and its application's revision."""
        self._router = router
        self._revision = revision
        self._scheduler = scheduler
        self._limits = limits
        self._reports: dict[tuple[str, str], ReplicaReport] = {}
        self._shared: set[tuple[str, str]] = set()

    def ask(self, pool: str) -> CreditAsk:
        """What to tell the replicas of a pool when they are asked for their reports."""
        load = self._scheduler.loads()[pool]
        waiting_s = load.backlog_s / (load.num_replicas or 1)
        return CreditAsk(self._router, load.per_replica, waiting_s, self._revision)

    def reported(self, pool: str, reports: Iterable[ReplicaReport], now_s: float) -> None:
        """The reports of a pool's replicas; one that has been told before says nothing new."""
        known = {(pool, report.replica): report for report in reports}
        for (_, replica), report in known.items():
            if self._reports.get((pool, replica)) is not report:
                self.granted(pool, replica, report.grant, now_s)
        others = {key: report for key, report in self._reports.items() if key[0] != pool}
        self._reports = others | known
        self._shared = {key for key in self._shared if key[0] != pool or key in known}

    def granted(self, pool: str, replica: str, grant: CreditGrant | None, now_s: float) -> None:
        """A replica has said what this router may have there; None: it is alone."""
        key = pool, replica
        if grant is None and key not in self._shared:
            return
        self._limits.limit(REFUSAL, pool, replica, None)
        if grant is None:
            self._shared.discard(key)
            self._limits.limit(GRANT, pool, replica, None)
            self._scheduler.replica_shared(pool, replica, 1.0, -math.inf, -math.inf)
            return
        self._shared.add(key)
        self._limits.limit(GRANT, pool, replica, grant.num_credits)
        self._scheduler.replica_shared(
            pool, replica, grant.share, now_s + grant.before_urgent_s, now_s + grant.before_other_s
        )

    def refused(self, pool: str, replica: str) -> None:
        """A replica has refused a batch: nothing of that kind is sent there until it says something else."""
        self._shared.add((pool, replica))
        self._limits.limit(REFUSAL, pool, replica, 0)
