"""Autoscaling inside Serve: what routers report, the policy that Serve's controller asks, and its deployments' options.

How many replicas a pool should have is `autoscaling.py`'s. Serve's own delays and factors are switched off, so that
those of the plan are the only ones. Serve copies this module into its controller by value: it imports no Ray.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from serve_app.app_name import ENGINE_PREFIX
from serve_app.autoscaling import Autoscaling, Demand, DemandMeter, PoolNeed, PoolScaler
from serve_app.plan import Plan, Pool
from serve_app.pool_load import PoolLoad

# What stands in a Serve config: `applications[].autoscaling_policy.policy_function`.
POLICY = "serve_app.serve_autoscaling:ServePolicy"
# How often routers report. Serve's controller decides as often as it looks around: every 0.1 to 0.5 s.
METRICS_INTERVAL_S = 0.5
# Serve keeps points for so long and takes one every fifth of it; only the newest counts here.
LOOK_BACK_S = 5 * METRICS_INTERVAL_S
MEASURES = ("demand_quick", "demand_steady", "served_quick", "served_steady", "waiting_s", "deferred_s")

# Serve's controller writes what goes here into its own log.
logger = logging.getLogger("ray.serve")


class Context(Protocol):
    """What of Serve's `AutoscalingContext` is looked at here."""

    deployment_id: Any
    deployment_name: str
    current_num_replicas: int
    target_num_replicas: int
    capacity_adjusted_min_replicas: int
    capacity_adjusted_max_replicas: int
    config: Any
    raw_metrics: Mapping[str, Mapping[Any, Sequence[Any]]] | None


def grows(plan: Plan) -> bool:
    """Whether any pool of a plan changes its size."""
    return any(pool.max_replicas is not None for pool in plan.pools)


def pool_size(plan: Plan, pool: Pool) -> dict[str, Any]:
    """The options of a pool's deployment that say how many replicas it has."""
    if pool.max_replicas is None:
        return {"num_replicas": pool.num_replicas}
    rules = dataclasses.asdict(plan.autoscaling) | {"max_defer_s": plan.scheduling.max_defer_s}
    return {"autoscaling_config": _bounds(pool.num_replicas, pool.max_replicas) | {"policy": {"policy_kwargs": rules}}}


def router_size(plan: Plan) -> dict[str, Any]:
    """The same of the routers: they keep their number, but Serve takes reports only from deployments that may scale."""
    if not grows(plan):
        return {"num_replicas": plan.num_routers}
    return {"autoscaling_config": _bounds(plan.num_routers, plan.num_routers)}


class PoolReports:
    """What a router tells Serve of its pools, and the moving means that this takes."""

    def __init__(self) -> None:
        self._meters: dict[str, tuple[DemandMeter, DemandMeter]] = {}

    def values(self, loads: Mapping[str, PoolLoad], now_s: float) -> dict[str, float]:
        """`POOL.MEASURE` for every pool and each of `MEASURES`. Several routers' values add up."""
        values = {}
        for pool, load in loads.items():
            offered, sent = self._meters.setdefault(pool, (DemandMeter(), DemandMeter()))
            measured = (
                *offered.read(load.offered_s, now_s), *sent.read(load.sent_s, now_s),
                max(0.0, load.backlog_s - load.deferred_s), load.deferred_s,
            )  # fmt: skip
            values.update({f"{pool}.{name}": value for name, value in zip(MEASURES, measured, strict=True)})
        return values


class ServePolicy:
    """The application-level policy: Serve's controller makes one for an application, and calls it all the time.

    A pool of which no router has reported keeps its size. After the controller's death, or another deployment, a new
    object begins with the sizes that there are, and shrinks nothing before it has watched for `down_after_s`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take where the time comes from."""
        self._clock = clock
        self._scalers: dict[str, tuple[dict[str, float], PoolScaler]] = {}

    def __call__(self, contexts: Mapping[Any, Context]) -> tuple[dict[Any, int], dict[Any, dict[str, Any]]]:
        """How many replicas the pools should have, by Serve's id of the deployment, and no state for Serve to keep."""
        now_s = self._clock()
        routers = [each for each in contexts.values() if not each.deployment_name.startswith(ENGINE_PREFIX)]
        reports = [each.raw_metrics or {} for each in routers]
        decisions = {}
        for context in contexts.values():
            rules = context.config.policy.policy_kwargs
            if context.deployment_name.startswith(ENGINE_PREFIX) and rules:
                need = _need(context, reports)
                if need is not None:
                    decisions[context.deployment_id] = self._decide(context.deployment_name, rules, need, now_s)
        return decisions, {}

    def _decide(self, name: str, rules: dict[str, float], need: PoolNeed, now_s: float) -> int:
        known = self._scalers.get(name)
        if known is None or known[0] != rules:
            others = {key: value for key, value in rules.items() if key != "max_defer_s"}
            known = self._scalers[name] = rules, PoolScaler(Autoscaling(**others), rules["max_defer_s"])
        wanted = known[1].decide(need, now_s)
        if wanted.num_replicas != need.target:
            logger.info("%s: %d replicas instead of %d: %s", name, wanted.num_replicas, need.target, wanted.reason)
        return wanted.num_replicas


def _bounds(least: int, most: int) -> dict[str, Any]:
    """An `AutoscalingConfig` that adds nothing of Serve's own to what the policy says."""
    return {
        "min_replicas": least,
        "initial_replicas": least,
        "max_replicas": most,
        "metrics_interval_s": METRICS_INTERVAL_S,
        "look_back_period_s": LOOK_BACK_S,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 0.0,
        "downscale_to_zero_delay_s": 0.0,
    }


def _need(context: Context, reports: Iterable[Mapping[str, Mapping[Any, Sequence[Any]]]]) -> PoolNeed | None:
    """What is known of a pool; None: no router has reported it."""
    pool = context.deployment_name.removeprefix(ENGINE_PREFIX)
    sums = []
    for name in MEASURES:
        points = [series[-1].value for report in reports for series in report.get(f"{pool}.{name}", {}).values()]
        if not points:
            return None
        sums.append(float(sum(points)))
    return PoolNeed(
        num_ready=context.current_num_replicas,
        target=context.target_num_replicas,
        least=context.capacity_adjusted_min_replicas,
        most=context.capacity_adjusted_max_replicas,
        demand=Demand(sums[0], sums[1]),
        served=Demand(sums[2], sums[3]),
        waiting_s=sums[4],
        deferred_s=sums[5],
    )
