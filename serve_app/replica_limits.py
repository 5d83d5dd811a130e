"""How many noncritical batches each replica may hold, where several parts have a say: the least counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from serve_app.replica_credits import MAX_CREDITS_PER_REPLICA

# What is remembered of replicas that are not ready: one may be silent for a round and come back.
SPARE = 64


class TakesReplicas(Protocol):
    """What the limits are for: the scheduler."""

    def replicas_ready(self, pool: str, replicas: Mapping[str, int]) -> None:
        """See `Scheduler.replicas_ready`."""


class ReplicaLimits:
    """Tells the scheduler which replicas are ready, and what each of them may hold.

    Whoever limits a replica does so under a name of its own, and takes it back by None; it need not know the others.
    """

    def __init__(self, scheduler: TakesReplicas) -> None:
        """Take whom to tell."""
        self._scheduler = scheduler
        self._ready: dict[str, tuple[str, ...]] = {}
        # By pool and replica, who allows how much.
        self._most: dict[str, dict[str, dict[str, int]]] = {}

    def ready(self, pool: str, replicas: Collection[str]) -> None:
        """These replicas of a pool take batches now."""
        self._ready[pool] = tuple(replicas)
        limits = self._most.get(pool, {})
        if len(limits) > 4 * len(replicas) + SPARE:
            self._most[pool] = {name: limits[name] for name in replicas if name in limits}
        self._tell(pool)

    def limit(self, who: str, pool: str, replica: str, most: int | None) -> None:
        """One part says how many noncritical batches a replica may hold; 0: critical ones only; None: any number."""
        says = self._most.setdefault(pool, {}).setdefault(replica, {})
        if says.get(who) == most:
            return
        if most is None:
            del says[who]
        else:
            says[who] = most
        if replica in self._ready.get(pool, ()):
            self._tell(pool)

    def _tell(self, pool: str) -> None:
        limits = self._most.get(pool, {})
        self._scheduler.replicas_ready(
            pool,
            {name: min(limits.get(name, {}).values(), default=MAX_CREDITS_PER_REPLICA) for name in self._ready[pool]},
        )
