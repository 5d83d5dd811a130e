"""Four machines with a fake GPU each, and a load that becomes four times as much: the pool follows, and comes back.

Engines sleep for as long as a batch takes, so two cores are enough; no frame may be lost on the way up or down.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import ray
from ray import serve
from ray.cloudpickle import register_pickle_by_value, unregister_pickle_by_value
from ray.cluster_utils import Cluster

from engines.device_facts import open_device
from engines.fake import FakeEngine
from serve_app.app import application
from serve_app.app_name import APP_NAME
from serve_app.client import Client
from serve_app.config import plan_from, prepare_ray_environment
from serve_app.pool_engines import PoolEngines
from serve_app.ray_session import deploy

# See tests/unit/serve_app/test_serve_autoscaling.py.
pytestmark = pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
RUN_S = 0.2
# With its share of a call a frame counts 203 ms: 0.69 device seconds a second, and then 2.76.
ONCE_HZ = 3.4
DOWN_AFTER_S = 5.0
# The bound; a start comes on top.
WANTED_WITHIN_S = 15.0
GIVE_UP_S = 150.0
POLL_S = 0.25
# Three windows of the averages, on a machine that does other things as well.
DOWN_WITHIN_S = DOWN_AFTER_S + 45.0
FRAME_HWC = np.zeros((128, 128, 3), np.uint8)


def sleeping_engines(plan, pool):
    """Engines that sleep as long for every batch."""
    engines = {
        bucket.name: FakeEngine(dict.fromkeys(bucket.warm_shapes(), RUN_S), time.sleep)
        for bucket in plan.buckets_of(pool)
    }
    return PoolEngines(engines, open_device(None), lambda: None)


@pytest.fixture
def cluster_client(tmp_path):
    """A head without GPUs, four nodes with one each, and a pool that grows from one to four."""
    register_pickle_by_value(sys.modules[__name__])  # workers know no test modules
    prepare_ray_environment()
    os.environ["RAY_AUTH_MODE"] = "disabled"  # as `Cluster` starts its nodes
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0, "include_dashboard": False})
    try:
        for _ in range(4):
            cluster.add_node(num_cpus=1, num_gpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        plan = plan_from(
            {
                "models": {"fake": "/none.onnx"},
                "pools": {"gpu": {"replicas": 1, "max_replicas": 4, "gpus": 1, "cpus": 0, "runtime": "onnxruntime"}},
                "buckets": {"small": {"canvases": [[128, 128]], "batches": [1]}},
                "scheduling": {"max_chunk_s": 0.5},
                "slo_s": {"critical": 60, "normal": 300},
                "autoscaling": {"down_after_s": DOWN_AFTER_S},
            },
            tmp_path,
        )
        deploy(application(plan, sleeping_engines))
        yield Client.connect(cluster.address)
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
        del os.environ["RAY_AUTH_MODE"]
        unregister_pickle_by_value(sys.modules[__name__])


@dataclass
class Load:
    """Sends frames at a rate that may be changed, without waiting for answers."""

    client: Client
    rate_hz: float = 0.0
    stopped: bool = False

    async def run(self):
        """Until stopped; then the results of all frames."""
        sent, next_s = [], time.monotonic()
        while not self.stopped:
            sent.append(asyncio.create_task(self.client.submit_async(FRAME_HWC, camera=f"camera-{len(sent) % 8}")))
            next_s = max(next_s + 1 / self.rate_hz, time.monotonic() - 1)
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
        return await asyncio.gather(*sent)


def sizes():
    """Replicas that there are or shall be, and those that are ready."""
    states = serve.status().applications[APP_NAME].deployments["engine-gpu"].replica_states
    counts = {getattr(state, "value", state): count for state, count in states.items()}
    return sum(count for state, count in counts.items() if state != "STOPPING"), counts.get("RUNNING", 0)


async def until(holds):
    """Seconds until it holds."""
    begin_s = time.monotonic()
    while not holds(await asyncio.to_thread(sizes)):
        assert time.monotonic() - begin_s < GIVE_UP_S, f"replicas and ready ones: {sizes()}"
        await asyncio.sleep(POLL_S)
    return time.monotonic() - begin_s


async def step_up_and_down(client):
    """Once, four times, once: how long each change took, and what became of the frames."""
    load = Load(client, ONCE_HZ)
    sending = asyncio.create_task(load.run())
    await asyncio.sleep(20)  # the load itself: the averages have seen nothing else
    before = sizes()
    load.rate_hz = 4 * ONCE_HZ
    wanted_s = await until(lambda now: now[0] == 4)
    ready_s = wanted_s + await until(lambda now: now[1] == 4)
    load.rate_hz = ONCE_HZ
    down_s = await until(lambda now: now[0] == 1)
    load.stopped = True
    return before, wanted_s, ready_s, down_s, await sending


@pytest.mark.timeout(600)
def test_a_step_of_the_load_is_followed_up_and_down_and_no_frame_is_lost(cluster_client):
    """Four replicas are wanted within 15 s, whatever their start then takes; one again after the calm."""
    before, wanted_s, ready_s, down_s, results = asyncio.run(step_up_and_down(cluster_client))

    sys.stdout.write(
        f"\n4 replicas wanted after {wanted_s:.1f} s, ready after {ready_s:.1f} s; 1 again after {down_s:.1f} s\n"
    )
    assert before == (1, 1)
    assert wanted_s <= WANTED_WITHIN_S
    assert DOWN_AFTER_S <= down_s <= DOWN_WITHIN_S
    assert Counter(result.outcome.value for result in results) == {"finished": len(results)}
    assert cluster_client.status().outcomes == {"finished": len(results)}
