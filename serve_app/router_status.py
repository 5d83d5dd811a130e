"""The service at a glance, from what each of its routers sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from serve_app.results import PoolStatus, RouterReport, RouterStatus, ServiceStatus


def seen_by(report: RouterReport, view: ServiceStatus) -> ServiceStatus:
    """What one router sees, with itself as the only router."""
    pools = view.pools
    router = RouterStatus(
        report, view.uptime_s, view.num_in_flight, sum(pool.num_waiting for pool in pools),
        sum(pool.num_running for pool in pools), sum(pool.backlog_s for pool in pools), dict(view.outcomes),
    )  # fmt: skip
    return replace(view, routers=(router,))


def merged(views: Sequence[ServiceStatus]) -> ServiceStatus:
    """What several routers see of one service, in one: the work of all, and the replicas, which they share.

    Args:
        views: one of each router, at least one; what is not added up is taken from the first.
    """
    outcomes: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    for view in views:
        outcomes.update(view.outcomes)
        verdicts.update(view.verdicts)
    return replace(
        views[0],
        uptime_s=max(view.uptime_s for view in views),
        pools=tuple(_merged([each for view in views for each in view.pools if each.name == pool.name])
                    for pool in views[0].pools),
        outcomes=dict(outcomes),
        verdicts=dict(verdicts),
        num_in_flight=sum(view.num_in_flight for view in views),
        num_records_lost=sum(view.num_records_lost for view in views),
        num_handed_over=sum(view.num_handed_over for view in views),
        revision=max(view.revision for view in views),
        routers=tuple(sorted((each for view in views for each in view.routers), key=lambda each: each.report.router)),
    )  # fmt: skip


def _merged(pools: Sequence[PoolStatus]) -> PoolStatus:
    """One pool, as several routers see it; see `PoolStatus` for what adds up."""
    critical, normal, deferred = zip(*(pool.waiting for pool in pools), strict=True)
    return replace(
        pools[0],
        num_waiting=sum(pool.num_waiting for pool in pools),
        num_running=sum(pool.num_running for pool in pools),
        backlog_s=sum(pool.backlog_s for pool in pools),
        rung=max(pool.rung for pool in pools),
        around_s=max(pool.around_s for pool in pools),
        waiting=(sum(critical), sum(normal), sum(deferred)),
        memory=max(pool.memory for pool in pools),
        num_credits=sum(pool.num_credits for pool in pools),
        unhealthy={name: why for pool in pools for name, why in pool.unhealthy.items()},
    )
