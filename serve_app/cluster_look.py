"""Looks at a running service from outside: its routers' status, Ray's nodes, Serve's deployments."""

from __future__ import annotations

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import DeploymentStatusOverview

from serve_app.app_name import APP_NAME
from serve_app.client import Client
from serve_app.errors import ServiceUnavailableError
from serve_app.pool_trouble import telling_line
from serve_app.ray_nodes import RayNode, all_nodes
from serve_app.service_view import DeploymentFacts, NodeFacts, ServiceView

CPU_AND_GPU = ("CPU", "GPU")
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
    nodes = sorted(all_nodes(), key=lambda each: (not each.is_head, not each.is_alive, each.host, each.short_id))
    return tuple(_facts(node) for node in nodes)


def _facts(node: RayNode) -> NodeFacts:
    used = {kind: node.has.get(kind, 0.0) - node.free.get(kind, 0.0) if node.is_alive else 0.0 for kind in CPU_AND_GPU}
    return NodeFacts(
        node=node.short_id,
        host=node.host,
        address=node.address,
        is_alive=node.is_alive,
        is_draining=node.is_draining,
        is_head=node.is_head,
        num_cpus=node.has.get("CPU", 0.0),
        cpus_used=used["CPU"],
        num_gpus=node.has.get("GPU", 0.0),
        gpus_used=used["GPU"],
        memory_bytes=node.has.get("memory", 0.0),
        labels={name: value for name, value in node.labels.items() if not name.startswith(RAY_LABEL)},
        metrics_port=node.metrics_port,
    )
