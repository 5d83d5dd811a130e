"""The machines of the connected Ray cluster and what they have for our plan; what our own application holds is free."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from ray._private.state import state
from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]
from ray.serve._private.constants import SERVE_NAMESPACE

from serve_app.app_name import APP_NAME
from serve_app.cluster_room import Machine
from serve_app.ray_nodes import RayNode, living_nodes

# How Serve names the actors of our application's replicas: deployment and replica follow.
REPLICA_PREFIX = f"SERVE_REPLICA::{APP_NAME}#"

_Amounts = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ServiceReplicas:
    """The replicas of our application.

    Attributes:
        num_alive: replicas that have a place, ready or warming up.
        without_place: by deployment, how many replicas have none yet: for seconds that is usual.
        held: by machine, the CPUs and GPUs of those that have one.
    """

    num_alive: int = 0
    without_place: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, _Amounts] = field(default_factory=dict)


def machines_of_cluster() -> list[Machine]:
    """Every machine that takes replicas, neither dead nor draining, by name."""
    nodes = [node for node in living_nodes() if not node.is_draining]
    held = service_replicas().held
    twice = {name for name, count in Counter(node.name for node in nodes).items() if count > 1}
    machines = [_machine(node, held.get(node.node_id, (0.0, 0.0)), twice) for node in nodes]
    return sorted(machines, key=lambda machine: machine.name)


def service_replicas() -> ServiceReplicas:
    """The replicas of our application, from Ray's own table: Serve forgets them while a new version is being built."""
    num_alive, without_place, held = 0, Counter[str](), defaultdict[str, _Amounts](lambda: (0.0, 0.0))
    for actor in replica_actors():
        if actor.state == ActorTableData.ALIVE:
            num_alive += 1
            node_id, has = actor.node_id.hex(), actor.required_resources
            had = held[node_id]
            held[node_id] = (had[0] + has.get("CPU", 0.0), had[1] + has.get("GPU", 0.0))
        else:
            without_place[actor.name.removeprefix(REPLICA_PREFIX).partition("#")[0]] += 1
    return ServiceReplicas(num_alive, dict(without_place), dict(held))


def replica_actors() -> list[ActorTableData]:
    """Ray's records of our replicas that have a place or wait for one."""
    packed = state._connect_and_get_accessor().get_actor_table(None, None)  # noqa: SLF001 (there is no other way)
    actors = [ActorTableData.FromString(each) for each in packed]
    lives = (ActorTableData.ALIVE, ActorTableData.PENDING_CREATION)
    return [
        actor
        for actor in actors
        if actor.name.startswith(REPLICA_PREFIX) and actor.ray_namespace == SERVE_NAMESPACE and actor.state in lives
    ]


def _machine(node: RayNode, own: _Amounts, twice: set[str]) -> Machine:
    cpus, gpus = (
        min(node.has.get(kind, 0.0), node.free.get(kind, 0.0) + ours)
        for kind, ours in zip(("CPU", "GPU"), own, strict=True)
    )
    return Machine(
        f"{node.name}/{node.node_id[:6]}" if node.name in twice else node.name,
        cpus=cpus,
        gpus=gpus,
        num_gpus=math.ceil(node.has.get("GPU", 0.0)),
        labels=tuple(sorted(node.labels.items())),
        other_cpus=node.has.get("CPU", 0.0) - cpus,
        other_gpus=node.has.get("GPU", 0.0) - gpus,
    )
