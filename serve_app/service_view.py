"""All that `framelane status` shows, as values: what routers, Ray and Serve say, and rates between looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from serve_app.results import PoolStatus, ReplicaReport, RouterStatus, ServiceStatus
from serve_app.spool.spool_status import SpoolStatus


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One machine of the cluster, as Ray knows it.

    Attributes:
        node: its short id, as reports of replicas name it.
        host, address: its name and IP.
        is_alive, is_draining, is_head: how it stands.
        num_cpus, cpus_used: what it has, and what of that is reserved.
        num_gpus, gpus_used: likewise.
        memory_bytes: what Ray may give to its work.
        labels: the ones that its owner gave it; Ray's own are left out.
        metrics_port: where it exports metrics; 0: nowhere.
    """

    node: str
    host: str
    address: str
    is_alive: bool
    is_draining: bool
    is_head: bool
    num_cpus: float
    cpus_used: float
    num_gpus: float
    gpus_used: float
    memory_bytes: float
    labels: Mapping[str, str]
    metrics_port: int


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """The routers, or the replicas of one pool, as Serve knows them.

    Attributes:
        num_running, num_wanted: replicas that Serve calls running, and as many as it tries to have.
        trouble: what is wrong with them, in Serve's words; empty: nothing.
    """

    num_running: int
    num_wanted: int
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One look at a service.

    Attributes:
        status: what its routers say.
        nodes: the machines, the head first.
        pools: by pool, what Serve says of its replicas.
        routers: what Serve says of the routers; None: nothing.
        spool: where durable frames lie; None: no camera is durable.
    """

    status: ServiceStatus
    nodes: tuple[NodeFacts, ...] = ()
    pools: Mapping[str, DeploymentFacts] | None = None
    routers: DeploymentFacts | None = None
    spool: SpoolStatus | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """Events a second.

    Attributes:
        over_s: the seconds that they are the mean of.
        since_start: whether these are all seconds since the service started.
        outcomes, verdicts: by their names; those that never came are left out.
    """

    over_s: float
    since_start: bool
    outcomes: Mapping[str, float]
    verdicts: Mapping[str, float]

    @property
    def frames_hz(self) -> float:
        """Frames that ended a second, in whatever way."""
        return sum(self.outcomes.values())


def rates(now: ServiceStatus, before: ServiceStatus | None) -> Rates:
    """How often what happened between two looks; without an earlier one, since the service started.

    A service that started anew in between counts from its start. Counts that went back, because one of several routers
    started anew, count as 0.
    """
    if before is None or before.uptime_s >= now.uptime_s:
        before = None
    over_s = now.uptime_s - (before.uptime_s if before else 0.0)
    return Rates(
        over_s,
        before is None,
        _hz(now.outcomes, before.outcomes if before else {}, over_s),
        _hz(now.verdicts, before.verdicts if before else {}, over_s),
    )


def _hz(now: Mapping[str, int], before: Mapping[str, int], over_s: float) -> dict[str, float]:
    return {name: max(0, count - before.get(name, 0)) / max(over_s, 1e-9) for name, count in now.items()}


def view_as_json(view: ServiceView, per_second: Rates) -> dict[str, Any]:
    """What `framelane status --json` prints. Keys are only ever added: scripts read them."""
    status = view.status
    return {
        "uptime_s": round(status.uptime_s, 3),
        "num_in_flight": status.num_in_flight,
        "num_records_lost": status.num_records_lost,
        "outcomes": dict(status.outcomes),
        "verdicts": dict(status.verdicts),
        "rates": {
            "over_s": round(per_second.over_s, 3),
            "outcomes_hz": {name: round(hz, 4) for name, hz in per_second.outcomes.items()},
            "verdicts_hz": {name: round(hz, 4) for name, hz in per_second.verdicts.items()},
        },
        "routers": [_router(router) for router in status.routers],
        "pools": [_pool(pool, (view.pools or {}).get(pool.name)) for pool in status.pools],
        "nodes": [_node(node) for node in view.nodes],
        "spool": None if view.spool is None else asdict(view.spool),
    }


def _router(router: RouterStatus) -> dict[str, Any]:
    return {
        "router": router.report.router,
        "node": router.report.node,
        "uptime_s": round(router.uptime_s, 3),
        "num_ended": sum(router.outcomes.values()),
        "num_in_flight": router.num_in_flight,
    }


def _pool(pool: PoolStatus, serve: DeploymentFacts | None) -> dict[str, Any]:
    critical, normal, deferred = pool.waiting
    return {
        "pool": pool.name,
        "num_ready": len(pool.replicas),
        "num_wanted": serve.num_wanted if serve else pool.num_wanted,
        "waiting": {"critical": critical, "normal": normal, "deferred": deferred},
        "waiting_device_s": round(pool.backlog_s, 4),
        "num_running": pool.num_running,
        "num_credits": pool.num_credits,
        "rung": pool.rung,
        "memory_level": pool.memory.name.lower(),
        "trouble": serve.trouble if serve else "",
        "unhealthy": dict(pool.unhealthy),
        "replicas": [_replica(replica) for replica in pool.replicas],
    }


def _replica(replica: ReplicaReport) -> dict[str, Any]:
    device = replica.device
    return {
        "replica": replica.replica,
        "node": replica.node,
        "up_s": round(replica.up_s, 3),
        "num_batches": replica.num_batches,
        "device": device.name,
        "memory_used_bytes": device.used_bytes,
        "memory_total_bytes": device.total_bytes,
        "temperature_c": device.temperature_c,
        "utilisation": device.utilisation_fraction,
        "notes": list(notes_on(replica)),
    }


def _node(node: NodeFacts) -> dict[str, Any]:
    return {
        "node": node.node,
        "host": node.host,
        "address": node.address,
        "state": state_of(node),
        "is_head": node.is_head,
        "num_cpus": node.num_cpus,
        "cpus_used": node.cpus_used,
        "num_gpus": node.num_gpus,
        "gpus_used": node.gpus_used,
        "memory_bytes": node.memory_bytes,
        "labels": dict(node.labels),
        "metrics_port": node.metrics_port,
    }


def state_of(node: NodeFacts) -> str:
    """`alive`, `draining` or `dead`."""
    if not node.is_alive:
        return "dead"
    return "draining" if node.is_draining else "alive"


def notes_on(replica: ReplicaReport) -> tuple[str, ...]:
    """What is not as it should be with a replica and its device."""
    reasons = replica.device.throttle_reasons or ()
    slow = (f"slowed down: {', '.join(reason.value for reason in reasons)}",) if reasons else ()
    errors = replica.device.ecc_uncorrected
    broken = tuple(f"cannot serve bucket {bucket}: {reason}" for bucket, reason in replica.broken)
    return (*replica.notes, *broken, *slow, *((f"{errors} memory errors",) if errors else ()))
