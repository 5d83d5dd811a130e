"""Whether a frame that comes now would be served, told from a look at the service; pure."""

from __future__ import annotations

from collections.abc import Sequence

from serve_app.http.gateway import Readiness
from serve_app.memory_level import MemoryLevel
from serve_app.plan import Pool
from serve_app.results import PoolStatus
from serve_app.service_view import ServiceView


def readiness_of(view: ServiceView, pools: Sequence[Pool]) -> Readiness:
    """Ready is a service with a router that has counted its replicas, and a replica that gets batches in every pool.

    Pools that may shrink to nothing are no reason: they grow when frames come. Memory so full that normal frames are
    rejected is told, but critical ones are served all the same.
    """
    missing = []
    if not any(router.report.is_ready for router in view.status.routers):
        missing.append("routers: none is ready yet; replicas are being warmed, or have gone")
    told = {pool.name: pool for pool in view.status.pools}
    for pool in pools:
        status = told.get(pool.name)
        if status is None:
            missing.append(f"pool {pool.name}: the routers do not know it yet")
        elif pool.num_replicas and _num_serving(status) == 0:
            facts = (view.pools or {}).get(pool.name)
            why = "; ".join(filter(None, (facts.trouble if facts else "", *status.unhealthy.values())))
            missing.append(f"pool {pool.name}: no replica serves{f' ({why})' if why else ''}")
    full = [pool.name for pool in view.status.pools if pool.memory is MemoryLevel.SHED]
    notes = [f"pool {name}: its memory is full, normal frames are rejected" for name in full]
    return Readiness(not missing, (*missing, *notes))


def _num_serving(status: PoolStatus) -> int:
    """Replicas that get batches."""
    return sum(replica.replica not in status.unhealthy for replica in status.replicas)
