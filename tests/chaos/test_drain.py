"""A machine is drained under load, on a cluster of three: replicas move first, and no frame is lost."""

from __future__ import annotations

import logging

import pytest
import ray
from ray._private import state
from ray.cluster_utils import Cluster
from told_service import Load, healthy, pids, show, told_service, until

from serve_app.cli.drain import drain
from serve_app.config import prepare_ray_environment
from serve_app.errors import FramelaneError
from serve_app.ray_nodes import living_nodes


@pytest.fixture
def cluster():
    """A head that holds the router, and two machines of one replica each."""
    prepare_ray_environment()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    cluster.wait_for_nodes()
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def router_node() -> str:
    """Where the router lives: with a single one its callers would have to connect anew."""
    actors = state.actors().values()
    return next(
        each["Address"]["NodeID"] for each in actors if each["ActorClassName"].endswith(":router") and is_alive(each)
    )


def is_alive(actor) -> bool:
    """Whether an actor of the table runs."""
    return actor["State"] == "ALIVE"


def test_a_drained_machine_loses_no_frame(cluster, tmp_path, capsys):
    """Without room elsewhere it is refused; with room replicas move, and all frames finish."""
    with told_service(tmp_path, num_cpus=1) as client:
        until("two replicas", lambda: healthy(client) == 2)
        (pool,) = client.status().pools
        node_id = next(each.node for each in pool.replicas if not router_node().startswith(each.node))
        with pytest.raises(FramelaneError, match="for which no other node has room now"):
            drain(node_id)
        with pytest.raises(FramelaneError, match="allowed are the nodes that are alive"):
            drain("nowhere")
        (head,) = [node for node in living_nodes() if node.is_head]
        with pytest.raises(FramelaneError, match="is the head"):
            drain(head.node_id, force=True)
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        with Load(client) as load:
            load.goes_on()
            until("room elsewhere", lambda: any(node.free.get("CPU") == 1.0 for node in living_nodes()))
            until("drained", lambda: drain(node_id, wait=True, timeout_s=60.0) is None)
            load.goes_on()
            until("two replicas", lambda: healthy(client) == 2)
        show(f"longest: critical {load.longest_s('critical'):.2f} s, normal {load.longest_s('normal'):.2f} s")
        assert {outcome for _, outcome in load.outcomes()} == {"finished"}
        assert len(pids(tmp_path)) == 2
    assert f"drained {node_id}" in capsys.readouterr().out
