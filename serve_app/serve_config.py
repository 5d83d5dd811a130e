"""The Serve config of our application, and Serve's client that takes it. The policy of pools that grow stands there.

`serve.run` knows no application-level policy, so every way to deploy goes through a config: the same as `serve deploy`
with `serve.yaml`, which leaves the application on the cluster. This is the only file that knows Serve's own client.
"""

from __future__ import annotations

import time
from typing import Any

from ray import serve
from ray.serve._private.client import ServeControllerClient
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from serve_app.app_name import APP_NAME
from serve_app.plan import Plan
from serve_app.plan_content import plan_content
from serve_app.serve_autoscaling import POLICY, grows

# How often Serve is asked whether all replicas are warm.
POLL_S = 0.1
FAILED = ("DEPLOY_FAILED", "NOT_STARTED")


def application_config(plan: Plan) -> dict[str, Any]:
    """One of `applications` in a Serve config: our application with the whole plan as its argument."""
    config: dict[str, Any] = {
        "name": APP_NAME,
        "route_prefix": None,
        "import_path": "serve_app.app:build",
        "args": {"plan": plan_content(plan)},
    }
    return config | {"autoscaling_policy": {"policy_function": POLICY}} if grows(plan) else config


def apply(plan: Plan) -> None:
    """Let the connected Serve build and start our application; other applications stay as they are.

    Raises:
        RuntimeError: it could not be built or started, with Serve's reason.
    """
    _submit([*_others(), application_config(plan)])
    while True:
        told = serve.status().applications.get(APP_NAME)
        if told is not None and told.status == "RUNNING":
            return
        if told is not None and told.status in FAILED:
            raise RuntimeError(told.message)
        time.sleep(POLL_S)


def withdraw() -> None:
    """Take our application off the connected Serve, so that its controller does not bring it back when it recovers."""
    _submit(_others())
    serve.delete(APP_NAME)


def _submit(applications: list[dict[str, Any]]) -> None:
    config = {"proxy_location": "Disabled", "applications": applications}
    _client().deploy_apps(ServeDeploySchema.model_validate(config))


def _others() -> list[dict[str, Any]]:
    """The configs of other applications that were deployed by one: what a config leaves out, Serve deletes."""
    applications = _client().get_serve_details()["applications"]
    configs = {name: told["deployed_app_config"] for name, told in applications.items() if name != APP_NAME}
    return [config for config in configs.values() if config]


def _client() -> ServeControllerClient:
    client = _get_global_client()
    if client is None:
        raise RuntimeError("Serve does not run on this Ray")
    return client
