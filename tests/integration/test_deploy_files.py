"""The files that people deploy with are what Ray accepts: Serve's config, the cluster launcher's, KubeRay's."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from cluster_world import start_command, variables
from jsonschema import Draft7Validator
from ray._common.utils import import_attr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

from serve_app.app_name import APP_NAME, HTTP_APP_NAME
from serve_app.config import bundled_plans, load_plan, prepare_ray_environment
from serve_app.errors import InvalidPlanError
from serve_app.model_check import check_models
from serve_app.placement import ROUTER_LABELS
from serve_app.serve_autoscaling import POLICY

ROOT = Path(__file__).parents[2]
CLUSTERS = ["cluster.yaml", "deploy/cluster-aws.yaml"]


def text_of(name):
    """A file of the project."""
    return (ROOT / name).read_text(encoding="utf-8")


def ray_service():
    """The RayService, as the operator reads it."""
    return next(yaml.safe_load_all(text_of("deploy/kuberay/rayservice.yaml")))


@pytest.fixture
def our_environment(monkeypatch):
    """What Ray's processes read, as `framelane up` sets it for a Ray of its own."""
    for name in [name for name in os.environ if name.startswith(("RAY_", "MALLOC_"))]:
        monkeypatch.delenv(name)
    before = dict(os.environ)
    monkeypatch.setattr(os, "environ", dict(before))
    prepare_ray_environment()
    return {name: value for name, value in os.environ.items() if before.get(name) != value}


def test_the_serve_config_is_valid_and_its_application_builds():
    """Serve's own schema takes the file, and its import path, with its arguments, gives router and pools."""
    config = ServeDeploySchema.model_validate(yaml.safe_load(text_of("serve_app/serve.yaml")))
    (application,) = config.applications
    assert (application.name, application.import_path) == ("framelane", "serve_app.app:build")
    # As the controller calls it: arguments as a dict, which Serve turns into what the builder's annotation says.
    built = call_user_app_builder_with_args_if_necessary(import_attr(application.import_path), application.args)
    assert built._bound_deployment.name == "router"


def test_the_serve_config_with_http_is_valid_and_asks_for_keys(tmp_path, monkeypatch):
    """The one of docs/http.md: where Serve listens is not the plan's to say, so anybody might call."""
    monkeypatch.delenv("FRAMELANE_HTTP_KEYS", raising=False)
    (block,) = re.findall(r"^```yaml\n(proxy_location.*?)^```$", text_of("docs/http.md"), re.MULTILINE | re.DOTALL)
    config = ServeDeploySchema.model_validate(yaml.safe_load(block))
    ours, http = config.applications
    assert (ours.name, http.name, http.route_prefix) == (APP_NAME, HTTP_APP_NAME, "/")
    assert ours.import_path == "serve_app.app:build"
    assert ours.autoscaling_policy["policy_function"] == POLICY

    plan = {"models": {"full": "bundled:inspection-light"}, "buckets": {"vga": {"canvases": [[480, 640]]}}}

    def built(**rules):
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan | {"http": rules}))
        arguments = http.args | {"plan": str(tmp_path / "plan.yaml")}
        return call_user_app_builder_with_args_if_necessary(import_attr(http.import_path), arguments)

    with pytest.raises(InvalidPlanError, match=r"http\.keys: got none"):
        built()
    assert built(keys="keys.yaml")._bound_deployment.name == "http"
    assert built(allow_anonymous=True, critical_port=8001)._bound_deployment.name == "http"


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_config_is_what_the_launcher_takes(name):
    """What `ray up` does first: fill in the defaults, then check against Ray's own schema."""
    validate_config(prepare_config(yaml.safe_load(text_of(name))))


@pytest.mark.parametrize("of", ["head", "worker"])
@pytest.mark.parametrize("name", CLUSTERS)
def test_machines_start_ray_with_what_a_local_service_sets(name, of, our_environment):
    """Ray's processes read their environment once; and only who sends the token may join."""
    command = start_command(yaml.safe_load(text_of(name)), of)

    assert variables(command) == our_environment | {"RAY_AUTH_MODE": "token"}


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_head_starts_the_workers_takes_no_replicas_and_deploys(name):
    """Without the launcher's config the head would wait for workers that nobody starts."""
    config = yaml.safe_load(text_of(name))
    (label,) = (f"--labels={key}={value.removeprefix('!')}" for key, value in ROUTER_LABELS.items())
    *_, deploys = config["head_start_ray_commands"]

    assert {"--num-cpus=0", "--autoscaling-config=~/ray_bootstrap_config.yaml", label} <= set(
        start_command(config, "head").split()
    )
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert re.fullmatch(r"\S+/framelane up ~/framelane/plan.yaml --address auto (--wait 900|--may-grow)", deploys)


def test_groups_of_a_cloud_say_their_labels():
    """GPU machines in groups by label, and each group within the cluster's bound."""
    config = yaml.safe_load(text_of("deploy/cluster-aws.yaml"))
    groups = {name: kind for name, kind in config["available_node_types"].items() if kind["resources"].get("GPU")}

    assert {name: kind["labels"] for name, kind in groups.items()} == {"gpu-l4": {"gpu": "l4"}, "gpu-t4": {"gpu": "t4"}}
    assert sum(kind["max_workers"] for kind in groups.values()) <= config["max_workers"]


# The fields that our RayService uses, by KubeRay 1.7's reference (ray.io/v1); an unknown one is an error here, because
# the operator's API server would drop it in silence.
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
TEMPLATE = {
    "type": "object", "required": ["spec"], "additionalProperties": False,
    "properties": {"metadata": {"type": "object"}, "spec": {"type": "object", "required": ["containers"]}},
}  # fmt: skip
HEAD_GROUP = {
    "type": "object", "required": ["rayStartParams", "template"], "additionalProperties": False,
    "properties": {"labels": TEXTS, "rayStartParams": TEXTS, "resources": TEXTS, "template": TEMPLATE},
}  # fmt: skip
COUNTS = {name: {"type": "integer", "minimum": 0} for name in ("replicas", "minReplicas", "maxReplicas")}
WORKER_GROUP = HEAD_GROUP | {
    "required": ["groupName", "minReplicas", "maxReplicas", "template"],
    "properties": HEAD_GROUP["properties"] | COUNTS | {"groupName": {"type": "string"}},
}
SECRET_KEY = {"type": "object", "required": ["name", "key"], "additionalProperties": False, "properties": {
    "name": {"type": "string"}, "key": {"type": "string"},
}}  # fmt: skip
RAY_CLUSTER = {
    "type": "object", "required": ["headGroupSpec"], "additionalProperties": False,
    "properties": {
        "rayVersion": {"type": "string"},
        "enableInTreeAutoscaling": {"type": "boolean"},
        "autoscalerOptions": {
            "type": "object", "additionalProperties": False,
            "properties": {"version": {"enum": ["v1", "v2"]}, "idleTimeoutSeconds": {"type": "integer"}},
        },
        "authOptions": {"type": "object", "properties": {"mode": {"enum": ["disabled", "token"]}}},
        "gcsFaultToleranceOptions": {
            "type": "object", "additionalProperties": False,
            "properties": {
                "redisAddress": {"type": "string"},
                "redisPassword": {
                    "type": "object", "additionalProperties": False,
                    "properties": {"valueFrom": {"type": "object", "properties": {"secretKeyRef": SECRET_KEY}}},
                },
            },
        },
        "headGroupSpec": HEAD_GROUP,
        "workerGroupSpecs": {"type": "array", "items": WORKER_GROUP},
    },
}  # fmt: skip
RAY_SERVICE = {
    "type": "object", "required": ["apiVersion", "kind", "metadata", "spec"], "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayService"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object", "required": ["serveConfigV2", "rayClusterConfig"], "additionalProperties": False,
            "properties": {
                "serveConfigV2": {"type": "string"},
                "upgradeStrategy": {
                    "type": "object",
                    "properties": {"type": {"enum": ["NewCluster", "NewClusterWithIncrementalUpgrade", "None"]}},
                },
                "excludeHeadPodFromServeSvc": {"type": "boolean"},
                "rayClusterConfig": RAY_CLUSTER,
            },
        },
    },
}  # fmt: skip


def test_the_ray_service_has_the_fields_that_the_operator_knows():
    """Names, nesting and types; the cluster's own Kubernetes objects are checked by its API server."""
    assert [error.message for error in Draft7Validator(RAY_SERVICE).iter_errors(ray_service())] == []


def test_the_ray_services_application_is_the_one_of_the_serve_config():
    """Serve's schema takes it; it has a route, without which no proxy is ever ready, and grows by the operator."""
    spec = ray_service()["spec"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(spec["serveConfigV2"]))
    (application,) = config.applications

    assert (application.name, application.import_path) == ("framelane", "serve_app.app:build")
    assert application.args == {"plan": "/etc/framelane/plan.yaml", "may_grow": True}
    assert (config.proxy_location, application.route_prefix) == ("EveryNode", "/framelane")
    assert spec["rayClusterConfig"]["enableInTreeAutoscaling"]


def test_every_pod_is_like_the_other_machines(our_environment):
    """Same image and environment, nobody is root, what is mounted is there; only workers have GPUs."""
    cluster = ray_service()["spec"]["rayClusterConfig"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    for group in (head, *workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        given = {entry["name"]: entry["value"] for entry in container["env"]}
        assert given.items() >= our_environment.items()
        assert container["image"] == f"framelane:{version_of('framelane')}"
        assert pod["securityContext"]["runAsNonRoot"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (group is not head)
    assert head["labels"] == {key: value.removeprefix("!") for key, value in ROUTER_LABELS.items()}
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert len({tuple(group["labels"].items()) for group in workers}) == len(workers)
    assert cluster["rayVersion"] == version_of("ray")


def test_redis_is_what_the_ray_service_looks_for():
    """The service's name, its port and the secret are the same in both files."""
    service, redis = yaml.safe_load_all(text_of("deploy/kuberay/redis.yaml"))
    options = ray_service()["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    (container,) = redis["spec"]["template"]["spec"]["containers"]

    assert options["redisAddress"] == f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert container["env"][0]["valueFrom"] == options["redisPassword"]["valueFrom"]
    assert service["spec"]["selector"] == redis["spec"]["template"]["metadata"]["labels"]


def test_the_image_is_built_of_what_is_here_and_runs_as_nobody():
    """A pinned base, sources that exist, and the user that the pods expect; it cannot be built in these tests."""
    lines = re.sub(r"\\\n\s*", "", text_of("deploy/Dockerfile")).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    sources = [word for step, rest in steps if step == "COPY" for word in rest.split()[:-1]]

    assert {step for step, _ in steps} <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV"}
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", steps[0][1])
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [rest for step, rest in steps if step == "USER"] == ["1000"]


def version_of(distribution):
    """The version that this project pins, or has."""
    if distribution == "framelane":
        return re.search(r'^version = "(.+)"$', text_of("pyproject.toml"), re.MULTILINE)[1]
    return re.search(rf"^{distribution}==(.+)$", text_of("constraints.txt"), re.MULTILINE)[1]


@pytest.mark.parametrize("path", bundled_plans(), ids=lambda path: path.stem)
def test_every_bundled_plan_and_its_models_are_sound(path):
    """Their models travel with the package and take every canvas."""
    check_models(load_plan(path))
