"""Looks at a running service from outside: its routers' status, Ray's nodes, Serve's deployments."""

from __future__ import annotations

import ray
from ray import serve
from ray._private.state import state as ray_state
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import DeploymentStatusOverview

from serve_app.app_name import APP_NAME
from serve_app.client import Client
from serve_app.errors import ServiceUnavailableError
from serve_app.pool_trouble import telling_line
from serve_app.service_view import DeploymentFacts, NodeFacts, ServiceView

HEAD = "node:__internal_head__"
# Ray puts labels of its own beside those of the owner.
RAY_LABEL = "ray.io/"
ROUTER, ENGINE = "router", "engine-"
LEAVING = ("STOPPING",)
WELL = ("HEALTHY", "UPDATING", "UPSCALING", "DOWNSCALING")


def look(client: Client) -> ServiceView:
    """See a service whole. Raises `ServiceUnavailableError`."""
    status = client.status()
    try:
        deployments = serve.status().applications[APP_NAME].deployments
        nodes = _nodes()
    except (RayError, RayServeException, KeyError) as err:
        raise ServiceUnavailableError(f"service: its cluster does not answer ({type(err).__name__}: {err})") from err
    facts = {name: _deployment(overview) for name, overview in deployments.items()}
    pools = {name.removeprefix(ENGINE): each for name, each in facts.items() if name.startswith(ENGINE)}
    return ServiceView(status, nodes, pools, facts.get(ROUTER), client.spool_status())


def _deployment(overview: DeploymentStatusOverview) -> DeploymentFacts:
    counts = {_word(state): count for state, count in overview.replica_states.items()}
    status = _word(overview.status)
    trouble = "" if status in WELL else f"{status.lower()}: {telling_line(overview.message)}"
    return DeploymentFacts(
        counts.get("RUNNING", 0), sum(count for state, count in counts.items() if state not in LEAVING), trouble
    )


def _word(state: object) -> str:
    """Serve's enums are words as well, and where it says enum it sometimes gives the word."""
    return str(getattr(state, "value", state))


def _nodes() -> tuple[NodeFacts, ...]:
    """Every machine that Ray knows; a dead one only while it has not been replaced by name."""
    free = ray_state.available_resources_per_node()  # type: ignore[no-untyped-call]
    draining = ray_state.get_draining_nodes()
    found = []
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        has, left = node["Resources"], free.get(node["NodeID"], {})
        found.append(
            NodeFacts(
                node=node["NodeID"][:8],
                host=node["NodeManagerHostname"],
                address=node["NodeManagerAddress"],
                is_alive=bool(node["Alive"]),
                is_draining=node["NodeID"] in draining,
                is_head=HEAD in has,
                num_cpus=has.get("CPU", 0.0),
                cpus_used=has.get("CPU", 0.0) - left.get("CPU", 0.0) if node["Alive"] else 0.0,
                num_gpus=has.get("GPU", 0.0),
                gpus_used=has.get("GPU", 0.0) - left.get("GPU", 0.0) if node["Alive"] else 0.0,
                memory_bytes=has.get("memory", 0.0),
                labels={k: v for k, v in (node.get("Labels") or {}).items() if not k.startswith(RAY_LABEL)},
                metrics_port=max(0, int(node.get("MetricsExportPort") or 0)),
            )
        )
    return tuple(sorted(found, key=lambda each: (not each.is_head, not each.is_alive, each.host, each.node)))
