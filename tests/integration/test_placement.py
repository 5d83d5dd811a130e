"""Pools on machines: a cluster of several nodes with labels and make-believe GPUs, real Serve, real frames."""

from __future__ import annotations

import time
from collections import Counter, defaultdict

import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.context import _get_global_client

from serve_app.app_name import APP_NAME
from serve_app.client import Client
from serve_app.config import prepare_ray_environment
from serve_app.ray_session import stop_ray

TIMEOUT_S = 60.0
NODES = {"a": {"gpu": "l4", "rack": "1"}, "b": {"gpu": "l4", "rack": "2"}, "c": {"gpu": "t4"}}
PLAN = """\
models: {light: "bundled:inspection-light"}
pools:
  l4: {replicas: 2, cpus: 0.5, gpus: 1, runtime: onnxruntime, labels: {gpu: l4}, max_replicas_per_node: 1}
  rest: {replicas: 2, cpus: 0.5, labels: {gpu: "!l4", rack: "!1"}}
buckets:
  vga: {pool: l4, canvases: [[480, 640]]}
  small: {pool: rest, canvases: [[256, 320]]}
slo_s: {critical: 60, normal: 60}
"""


@pytest.fixture(scope="module")
def cluster():
    """A head and three workers, of which two have the same label; this process is connected to it."""
    if ray.is_initialized():
        stop_ray()
    prepare_ray_environment()
    small = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
    machines = Cluster(initialize_head=True, head_node_args=small | {"num_cpus": 0, "include_dashboard": False})
    for labels in NODES.values():
        machines.add_node(num_gpus=2, labels=labels, **small)
    ray.init(address=machines.address, log_to_driver=False, logging_level="ERROR")
    yield machines
    serve.shutdown()
    stop_ray()
    machines.shutdown()
