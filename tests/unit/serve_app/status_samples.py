"""A service to look at: three machines, three pools, in a bad hour."""

from __future__ import annotations

from metric_samples import facts

from engines.device_facts import ThrottleReason
from serve_app.pressure import MemoryLevel
from serve_app.results import PoolStatus, ReplicaReport, RouterReport, RouterStatus, ServiceStatus
from serve_app.service_view import DeploymentFacts, NodeFacts, ServiceView

GIB = 2**30
L4, H100 = "NVIDIA L4", "NVIDIA H100 80GB HBM3"


def gpu(name: str, used_gib: float, total_gib: float, **changes):
    """A GPU that is doing well."""
    fields = {
        "index": 0, "uuid": "GPU-1", "total_bytes": int(total_gib * GIB), "used_bytes": int(used_gib * GIB),
        "utilisation_fraction": 0.62, "temperature_c": 61.0, "throttle_reasons": (), "ecc_uncorrected": 0,
    }  # fmt: skip
    return facts(**({"name": name} | fields | changes))


def node(short_id: str, host: str, address: str, **changes) -> NodeFacts:
    """A machine with one GPU."""
    fields = {
        "is_alive": True, "is_draining": False, "is_head": False, "num_cpus": 16.0, "cpus_used": 3.0, "num_gpus": 1.0,
        "gpus_used": 1.0, "memory_bytes": 44 * GIB, "labels": {}, "metrics_port": 8080,
    }  # fmt: skip
    return NodeFacts(short_id, host, address, **(fields | changes))


NODES = (
    node("1f0c9a44", "line-head", "10.0.0.10", is_head=True, num_gpus=0.0, gpus_used=0.0, cpus_used=1.0, num_cpus=4.0),
    node("7be2d001", "line-gpu-1", "10.0.0.11", labels={"gpu": "h100", "hall": "3"}),
    node("93aa41c7", "line-gpu-2", "10.0.0.12", labels={"gpu": "l4", "hall": "3"}, is_draining=True),
    node("c00c00c0", "line-gpu-3", "10.0.0.13", is_alive=False, cpus_used=0.0, gpus_used=0.0, num_gpus=2.0),
)
HOT = gpu(L4, 21.6, 22.5, temperature_c=88.0, utilisation_fraction=1.0, throttle_reasons=(ThrottleReason.HW_THERMAL,))
POOLS = (
    PoolStatus(
        "near", 5, 3,
        (
            ReplicaReport("near-0a41be22", "7be2d001", 181_204, 9.1, gpu(H100, 5.25, 79.6), up_s=7_950.0),
            ReplicaReport("near-77c0d9f1", "93aa41c7", 92_113, 11.4, HOT, up_s=7_948.0),
        ),
        0.21, 1, 0.004, (1, 4, 0), MemoryLevel.HIGH, 2, 2,
    ),
    PoolStatus(
        "wide", 31, 1,
        (ReplicaReport("wide-5510aa0c", "7be2d001", 12_019, 15.0, gpu(H100, 5.25, 79.6), up_s=42.0),),
        4.92, 0, 0.011, (0, 9, 22), MemoryLevel.NORMAL, 0, 3,
    ),
    PoolStatus("archive", 0, 0, (), num_wanted=1),
)  # fmt: skip
STATUS = ServiceStatus(
    8_000.0, POOLS,
    {"finished": 311_022, "rejected": 941, "expired": 120, "superseded": 33, "cancelled": 2, "failed": 4},
    38, 0,
    {"admit": 290_114, "degrade": 18_220, "defer": 2_847, "reject": 937},
    (RouterStatus(RouterReport("router-4be10077", "1f0c9a44", 7), 8_000.0, 38, 0, 0, 0.0, {"finished": 312_122}),),
)  # fmt: skip
VIEW = ServiceView(
    STATUS, NODES,
    {
        "near": DeploymentFacts(2, 2), "wide": DeploymentFacts(1, 3),
        "archive": DeploymentFacts(0, 1, "unhealthy: no machine has the label hall=4"),
    },
    DeploymentFacts(1, 1),
)  # fmt: skip
