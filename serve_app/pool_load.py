"""What one pool has to do, as a value: for status, metrics and autoscaling."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.memory_level import MemoryLevel
from serve_app.replica_credits import MIN_CREDITS_PER_REPLICA


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """What one pool has to do.

    Attributes:
        num_replicas: replicas that are ready.
        num_waiting: pieces (frames, or tiles of them) in its lanes.
        num_running: batches at its replicas.
        backlog_s: predicted device seconds that wait.
        rung: the first rung that noncritical frames may take.
        around_s: what a batch takes beside its device, of late.
        per_replica: how many noncritical batches it would have at each replica.
        deferred_s: what of the backlog is deferred frames'.
        offered_s: device seconds of all frames that came so far, each by its first route, admitted or not.
        sent_s: device seconds of all pieces that were sent to its replicas so far, by the routes that they took.
        waiting: `num_waiting` by class: critical, normal, deferred.
        memory: how full the memory of its devices is.
        num_credits: noncritical batches that may be sent to it now.
    """

    num_replicas: int
    num_waiting: int
    num_running: int
    backlog_s: float
    rung: int
    around_s: float
    per_replica: int = MIN_CREDITS_PER_REPLICA
    deferred_s: float = 0.0
    offered_s: float = 0.0
    sent_s: float = 0.0
    waiting: tuple[int, int, int] = (0, 0, 0)
    memory: MemoryLevel = MemoryLevel.NORMAL
    num_credits: int = 0
