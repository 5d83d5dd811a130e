"""The machines of the connected Ray cluster, as Ray tells of them; the only file that knows how it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private import state, worker

# Neither has types.
_STATE: Any = state
_WORKER: Any = worker
HEAD = "node:__internal_head__"
# So many letters of a node's id are what replicas report, and what people copy.
SHORT_ID = 8


@dataclass(frozen=True, slots=True)
class RayNode:
    """A machine of the cluster.

    Attributes:
        node_id: Ray's, 56 letters.
        name: as Ray was started with; else its address.
        address: its IP address.
        is_head: whether Ray's own services run there.
        is_draining: whether it takes no new work any more.
        free: resources that nobody has reserved, by name.
        is_alive: whether Ray hears of it.
        host: its name in the network.
        has: all its resources, by name.
        labels: its owner's and Ray's own, which begin with `ray.io/`.
        metrics_port: where it exports metrics; 0: nowhere.
    """

    node_id: str
    name: str
    address: str
    is_head: bool
    is_draining: bool
    free: Mapping[str, float]
    is_alive: bool = True
    host: str = ""
    has: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    metrics_port: int = 0

    @property
    def short_id(self) -> str:
        """The beginning of its id."""
        return self.node_id[:SHORT_ID]

    @property
    def label(self) -> str:
        """How it is called in messages."""
        return f"{self.short_id} ({self.address}{', head' if self.is_head else ''})"


def all_nodes() -> list[RayNode]:
    """Every machine that Ray knows, also those that have died."""
    draining = _WORKER.global_worker.gcs_client.get_draining_nodes()
    free = _STATE.available_resources_per_node()
    return [_node(each, free.get(each["NodeID"], {}), each["NodeID"] in draining) for each in ray.nodes()]  # type: ignore[no-untyped-call]


def living_nodes() -> list[RayNode]:
    """Those that are alive."""
    return [node for node in all_nodes() if node.is_alive]


def _node(told: Mapping[str, Any], free: Mapping[str, float], is_draining: bool) -> RayNode:
    return RayNode(
        node_id=told["NodeID"],
        name=told["NodeName"],
        address=told["NodeManagerAddress"],
        is_head=HEAD in told["Resources"],
        is_draining=is_draining,
        free=free,
        is_alive=bool(told["Alive"]),
        host=told["NodeManagerHostname"],
        has=dict(told["Resources"]),
        labels=dict(told.get("Labels") or {}),
        metrics_port=max(0, int(told.get("MetricsExportPort") or 0)),
    )
