"""Pools on machines: three workers with labels and make-believe GPUs, started as `cluster.yaml` does, real frames."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cluster_world import StartedCluster
from service_world import Command

WORKERS = {"a": {"gpu": "l4", "rack": "north"}, "b": {"gpu": "l4", "rack": "south"}, "c": {"gpu": "t4"}}
PLAN = {
    "models": {"light": "bundled:inspection-light"},
    "pools": {
        "l4": {
            "replicas": 2, "cpus": 0.5, "gpus": 0.5, "runtime": "onnxruntime", "labels": {"gpu": "in(l4, a10)"},
            "max_replicas_per_node": 1,
        },
        "rest": {"replicas": 2, "cpus": 0.5, "labels": {"gpu": "!l4"}},
        "free": {"replicas": 3, "cpus": 0},
    },
    "buckets": {
        "vga": {"pool": "l4", "canvases": [[480, 640]]},
        "small": {"pool": "rest", "canvases": [[256, 320]]},
        "tiny": {"pool": "free", "canvases": [[128, 160]]},
    },
    "slo_s": {"critical": 60, "normal": 60},
}  # fmt: skip

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]  # four nodes start one after the other

# What a process that joins the cluster can say of it: where replicas are, and whether new and old clients are served.
LOOK = """
import json, sys
from collections import defaultdict
import numpy as np, ray
from serve_app.client import Client
from serve_app.cluster_machines import replica_actors

client = Client.connect(sys.argv[1])
labels = {node["NodeID"]: node["Labels"] for node in ray.nodes()}
places = defaultdict(list)
for actor in replica_actors():
    found = labels[actor.node_id.hex()]
    places[actor.name.split("#")[1]].append(found.get("gpu", "head") + found.get("rack", ""))
outcomes = [client.detect(np.zeros((h, w, 3), np.uint8)).outcome.value for h, w in ((480, 640), (256, 320), (128, 160))]
print(json.dumps({"places": {name: sorted(where) for name, where in places.items()}, "outcomes": outcomes}))
"""
# What `serve deploy` asks of Serve, without the dashboard between; waits until Serve has made up its mind.
APPLY = """
import json, sys, time
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
from serve_app.ray_session import connect_ray

connect_ray(sys.argv[1])
application = {"name": "framelane", "route_prefix": None, "import_path": "serve_app.app:build"} | {
    "args": {"plan": sys.argv[2]}
}
_get_global_client().deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}))
give_up_s = time.monotonic() + 60
while (told := serve.status().applications["framelane"]).status == "DEPLOYING" and time.monotonic() < give_up_s:
    time.sleep(0.2)
print(json.dumps({"status": told.status, "message": told.message}))
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The real command, in a folder of this module."""
    return Command(tmp_path_factory.mktemp("placement"))


@pytest.fixture(scope="module")
def cluster(command):
    """A head and three workers, of which two have GPUs of one kind."""
    started = StartedCluster(command.folder, command.environment)
    command.environment = started.environment
    try:
        started.start_head()
        for name, labels in WORKERS.items():
            started.start_worker(name, labels)
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def plan_file(command):
    """Writes the plan, with changes to pool l4."""

    def write(**changes) -> Path:
        path = command.folder / f"{'-'.join(changes) or 'plan'}.yaml"
        path.write_text(yaml.safe_dump(PLAN | {"pools": PLAN["pools"] | {"l4": PLAN["pools"]["l4"] | changes}}))
        return path

    return write


@pytest.fixture(scope="module")
def service(cluster, command, plan_file):
    """The plan, deployed as `cluster.yaml` does it."""
    process = command("up", plan_file(), "--address", cluster.address, "--wait", "60")
    assert process.returncode == 0, process.stderr
    return cluster


def said(command, program, *arguments):
    """What a program of its own process printed."""
    process = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=command.folder, env=command.environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def seen(service, command):
    """What a new client sees of the service: replicas' machines, outcomes of a frame of each pool."""
    return said(command, LOOK, service.address)


def test_pools_stand_where_their_labels_say_and_take_turns(seen):
    """One of l4 on each l4 machine, the others where gpu is not l4, and what reserves nothing spreads as well."""
    places = seen["places"]

    assert places["engine-l4"] == ["l4north", "l4south"]
    assert set(places["engine-rest"]) <= {"t4"}
    assert len(set(places["engine-free"])) == 3
    assert "head" not in places["router"]
    assert seen["outcomes"] == ["finished"] * 3


def test_a_plan_without_room_is_refused_and_the_service_goes_on(service, command, plan_file, seen):
    """What our own replicas hold counts as free: twice as many GPUs fit, a third machine is missing."""
    fits = command("up", plan_file(gpus=2), "--address", service.address, "--dry-run")
    refused = command("up", plan_file(replicas=3), "--address", service.address)

    assert (fits.returncode, "nothing was deployed" in fits.stdout) == (0, True), fits.stderr
    assert refused.returncode == 1
    text = " ".join(refused.stderr.split())
    assert "pools.l4: got 3 replicas of 0.5 GPUs and 0.5 CPUs each on machines with gpu=in(l4, a10), at most 1" in text
    assert "there is room for 2" in text
    assert "the service goes on with its plan" in text
    assert said(command, LOOK, service.address) == seen


def test_serve_deploy_of_a_plan_without_room_leaves_the_old_replicas(service, command, plan_file, seen):
    """The application's builder refuses on the cluster; old replicas stay, and new clients still find them."""
    told = said(command, APPLY, service.address, plan_file(labels={"gpu": "l5"}))

    assert told["status"] == "DEPLOY_FAILED"
    assert "pools.l4.labels: got gpu=l5, which no machine has; labels that there are: gpu=l4 (2 mach" in told["message"]
    assert said(command, LOOK, service.address) == seen


def test_the_service_is_taken_off_by_its_address(service, command):
    """Last: the cluster goes on without it."""
    assert command("down", "--address", service.address).returncode == 0

    process = command("status", "--address", service.address)
    assert process.returncode == 1
    assert "no application 'framelane' answers" in " ".join(process.stderr.split())
