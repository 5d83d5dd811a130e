"""Draining a node: Ray marks it, Serve starts replicas elsewhere before it stops those there, routers follow Serve.

What this needs of Ray beyond its public interface (2.60) stands here: the request to drain a node. It needs no
autoscaler. Ray has no way back: a drained node takes no new work until Ray is started on it anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ray._private import state, worker
from ray.core.generated import autoscaler_pb2

from serve_app.errors import FramelaneError, ServiceUnavailableError
from serve_app.plan import Plan
from serve_app.ray_nodes import RayNode
from serve_app.results import PoolStatus

# None of these has types.
_STATE: Any = state
_WORKER: Any = worker
_MESSAGES: Any = autoscaler_pb2
DRAIN_TIMEOUT_S = 30.0
# Ray's other reason, that a node is idle, is refused by a node that is not.
REASON = "DRAIN_NODE_REASON_PREEMPTION"


def find_node(name: str, nodes: Sequence[RayNode]) -> RayNode:
    """The node of this id (or its beginning), name or address.

    Raises:
        FramelaneError: there is none, or several.
    """
    exact = [node for node in nodes if name in (node.node_id, node.name, node.address)]
    found = exact or [node for node in nodes if name and node.node_id.startswith(name)]
    allowed = ", ".join(node.label for node in nodes)
    if not found:
        raise FramelaneError(f"node: got {name!r}, allowed are the nodes that are alive: {allowed}")
    if len(found) > 1:
        several = ", ".join(node.label for node in found)
        raise FramelaneError(f"node: got {name!r}, which are several: {several}; name one by its id")
    return found[0]


def replicas_on(node: RayNode, pools: Iterable[PoolStatus]) -> list[tuple[str, str]]:
    """Pool and name of each replica there."""
    return [
        (pool.name, replica.replica)
        for pool in pools
        for replica in pool.replicas
        if node.node_id.startswith(replica.node)
    ]


def num_serve_actors_on(node: RayNode) -> int:
    """How many processes of Serve's deployments are alive there, routers and those that are being stopped included."""
    return sum(
        actor["State"] == "ALIVE"
        and actor["Address"]["NodeID"] == node.node_id
        and actor["ActorClassName"].startswith("ServeReplica:")
        for actor in _STATE.actors().values()
    )


def without_room(node: RayNode, nodes: Sequence[RayNode], pools: Iterable[str], plan: Plan) -> list[str]:
    """Which of these replicas (by their pools) no other node has the CPUs and GPUs free for, the largest first served.

    Labels and limits by node are Serve's to obey: it may find less room than this says.
    """
    free = [dict(other.free) for other in nodes if other.node_id != node.node_id and not other.is_draining]
    homeless = []
    needs = sorted(pools, key=lambda name: (-plan.pool(name).num_gpus, -plan.pool(name).num_cpus))
    for name in needs:
        pool = plan.pool(name)
        need = {"CPU": pool.num_cpus, "GPU": pool.num_gpus}
        room = next((its for its in free if all(its.get(key, 0) >= much for key, much in need.items())), None)
        if room is None:
            homeless.append(name)
        else:
            for key, much in need.items():
                room[key] = room.get(key, 0) - much
    return homeless


def check_drain(node: RayNode, nodes: Sequence[RayNode], pools: Iterable[str], plan: Plan, *, force: bool) -> None:
    """Raise `FramelaneError` if a node cannot be drained, or (unless forced) if its replicas had nowhere to go."""
    if node.is_head:
        raise FramelaneError(
            f"node: {node.label} is the head, where Ray's and Serve's own services run: it cannot be drained; "
            "move the head to a machine without GPUs instead"
        )
    homeless = without_room(node, nodes, pools, plan)
    if homeless and not force:
        raise FramelaneError(
            f"node: {node.label} holds replicas of pools {', '.join(homeless)}, for which no other node has room now; "
            "add a node first, or use --force: they then serve on there until one has room"
        )


def drain(node: RayNode) -> None:
    """Let Ray place nothing on a node any more, and Serve move what it has there.

    Raises:
        ServiceUnavailableError: Ray refused or did not answer.
    """
    reason = _MESSAGES.DrainNodeReason.Value(REASON)
    try:
        accepted, why = _WORKER.global_worker.gcs_client.drain_node(
            node.node_id, reason, "framelane drain", 0, timeout=DRAIN_TIMEOUT_S
        )
    except Exception as err:
        raise ServiceUnavailableError(f"node: Ray did not answer the request to drain {node.label}: {err}") from err
    if not accepted:
        raise ServiceUnavailableError(f"node: Ray refused to drain {node.label}: {why}")
