"""The head dies and comes back, with Ray's own memory in a real Redis: what becomes of frames meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

# The cluster and the command are those of the integration tests.
sys.path.append(str(Path(__file__).parents[1] / "integration"))
from cluster_world import StartedCluster, free_port
from service_world import Command

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server (apt-get install it)")

PLAN = {
    "models": {"light": "bundled:inspection-light"},
    "pools": {"cpu": {"replicas": 2, "cpus": 0.5, "threads": 1, "max_replicas_per_node": 1}},
    "buckets": {"small": {"canvases": [[128, 160]], "batches": [1, 2]}},
    "slo_s": {"critical": 20, "normal": 20},
}
DEADLINE_S = 150.0
# A camera on a worker, as an actor of the cluster: it needs no head. Each frame leaves a line, and so does its outcome.
CAMERA = """
import sys
import ray
from serve_app.ray_session import connect_ray

@ray.remote(num_cpus=0, label_selector={"rack": "1"}, lifetime="detached", name="camera", namespace="test")
class Camera:
    def start(self, path):
        import threading
        threading.Thread(target=self.run, args=(path,), daemon=True).start()

    def run(self, path):
        import time
        import numpy as np
        from serve_app.client import Client
        client = Client.connect()
        number = 0
        with open(path, "a", buffering=1) as log:
            while True:
                number += 1
                begun_s = time.monotonic()
                print("sent", number, file=log)
                try:
                    outcome = client.detect(np.zeros((120, 160, 3), np.uint8), camera="belt").outcome.value
                except Exception as err:
                    outcome = type(err).__name__
                print("done", number, outcome, round(time.monotonic() - begun_s, 3), file=log)
                time.sleep(0.1)

connect_ray(sys.argv[1])
ray.get(Camera.remote().start.remote(sys.argv[2]))
"""
# Ends a replica, and waits until Serve has put another one in its place.
REPLACE = """
import sys, time
import ray
from serve_app.cluster_machines import replica_actors
from serve_app.ray_session import connect_ray

def engines():
    return {actor.name for actor in replica_actors() if "#engine-cpu#" in actor.name and actor.node_id}

connect_ray(sys.argv[1])
before = engines()
ray.kill(ray.get_actor(min(before), namespace="serve"), no_restart=True)
while len(engines() - {min(before)}) < len(before):
    time.sleep(0.1)
"""


@pytest.fixture
def redis(tmp_path):
    """A Redis of our own."""
    port = free_port()
    with (tmp_path / "redis.log").open("wb") as log:
        process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path)], stdout=log, stderr=log
        )
    yield {"RAY_REDIS_ADDRESS": f"127.0.0.1:{port}"}
    process.terminate()
    process.wait(10)


@pytest.fixture
def cluster(tmp_path, redis):
    """A head that keeps its memory in Redis, and two workers that wait for it when it is gone."""
    command = Command(tmp_path)
    started = StartedCluster(tmp_path, command.environment)
    try:
        started.start_head(**redis)
        for rack in ("1", "2"):
            started.start_worker(f"rack{rack}", {"rack": rack})
        yield started
    finally:
        started.stop()


def lines_of(path):
    """What the camera has written: frames sent, and how those that ended have ended, with their seconds."""
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    sent = [int(number) for what, number, *_ in lines if what == "sent"]
    return sent, {int(number): (rest[0], float(rest[1])) for what, number, *rest in lines if what == "done"}


def until(is_so, *, deadline_s=DEADLINE_S):
    """Wait for it; the seconds that took."""
    begun_s = time.monotonic()
    while not is_so():
        assert time.monotonic() - begun_s < deadline_s
        time.sleep(0.1)
    return time.monotonic() - begun_s


def gcs_of(head):
    """The process of the head's store, a child of `ray start`."""
    for children in Path(f"/proc/{head.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            if b"gcs_server" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0]:
                return int(child)
    raise AssertionError("the head has no gcs_server")


@pytest.mark.timeout(900)
def test_frames_go_on_while_the_head_is_gone_and_after_it_has_come_back(cluster, redis, tmp_path):
    """Kill -9 of the head's store takes the head down; workers, routers and replicas go on and join the next head.

    Its Serve then replaces a replica that dies.
    """
    environment, command = cluster.environment, Command(tmp_path)
    command.environment = environment
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    deployed = command("up", "plan.yaml", "--address", cluster.address, "--wait", "60")
    assert deployed.returncode == 0, deployed.stderr
    log = tmp_path / "camera.txt"
    subprocess.run([sys.executable, "-c", CAMERA, cluster.address, log], env=environment, check=True, timeout=100)
    until(lambda: len(lines_of(log)[1]) >= 10)

    head = cluster.processes["head"]
    os.kill(gcs_of(head), signal.SIGKILL)
    gone_s = until(lambda: head.poll() is not None)
    ended_before = len(lines_of(log)[1])
    until(lambda: len(lines_of(log)[1]) >= ended_before + 20)
    cluster.start_head(**redis)
    ended_before = len(lines_of(log)[1])
    until(lambda: len(lines_of(log)[1]) >= ended_before + 20)
    back_s = until(lambda: command("status", "--address", cluster.address).returncode == 0)
    subprocess.run([sys.executable, "-c", REPLACE, cluster.address], env=environment, check=True, timeout=DEADLINE_S)
    ended_before = len(lines_of(log)[1])
    until(lambda: len(lines_of(log)[1]) >= ended_before + 20)

    sent, ended = lines_of(log)
    slowest_s = max(seconds for _, seconds in ended.values())
    seen = {"head_gone_s": gone_s, "status_again_s": back_s, "num_frames": len(ended), "slowest_s": slowest_s}
    print(json.dumps(seen))  # noqa: T201 (chaos tests print their figures)
    assert {outcome for outcome, _ in ended.values()} == {"finished"}
    assert len(sent) - len(ended) <= 1  # the one on its way
