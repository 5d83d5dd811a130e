"""Deploys applications through a Serve config, where the policy of pools that grow must stand.

`serve.run` knows no application-level policy. So an application that was made here travels packed, as the argument of a
builder that unpacks it, in the same kind of config as `serve.yaml`. Only this file knows Serve's own client.
"""

# No `from __future__ import annotations` here: Serve looks at the annotation of `unpacked` itself, not at its name.
import base64
import time
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import cloudpickle, serve
from ray.serve import Application
from ray.serve._private.client import ServeControllerClient
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from serve_app.app_name import APP_NAME
from serve_app.serve_autoscaling import POLICY

# How often Serve is asked whether all replicas are warm.
POLL_S = 0.1


class PackedApplication(BaseModel):
    """The arguments of `unpacked`."""

    model_config = ConfigDict(extra="forbid")

    pickled: str
    """The application in Ray's pickle, as base64."""


def unpacked(args: PackedApplication) -> Application:
    """Give back an application; Serve calls this on the cluster, with code that is the same there."""
    application: Application = cloudpickle.loads(base64.b64decode(args.pickled))
    return application


def submit(application: Application, name: str = APP_NAME, route_prefix: str | None = None) -> None:
    """Let the connected Serve start an application of ours, or update it; others stay as they are. Does not wait.

    Args:
        application: what is deployed.
        name: as which.
        route_prefix: what HTTP calls to it begin with; None: there are none.
    """
    packed = PackedApplication(pickled=base64.b64encode(cloudpickle.dumps(application)).decode())  # type: ignore[no-untyped-call]
    config: dict[str, Any] = {
        "name": name,
        "route_prefix": route_prefix,
        "import_path": "serve_app.serve_config:unpacked",
        "args": packed.model_dump(),
    }
    if name == APP_NAME:
        config["autoscaling_policy"] = {"policy_function": POLICY}
    _submit([*_others(name), config])


def run(application: Application, name: str = APP_NAME, route_prefix: str | None = None) -> DeploymentHandle[Any]:
    """The same, and wait until every replica is warm.

    Raises:
        RuntimeError: it did not start; with Serve's reason.
    """
    submit(application, name, route_prefix)
    while True:
        told = serve.status().applications.get(name)
        if told is not None and told.status is ApplicationStatus.RUNNING:
            return serve.get_app_handle(name)
        if told is not None and told.status is ApplicationStatus.DEPLOY_FAILED:
            raise RuntimeError(told.message)
        time.sleep(POLL_S)


def delete(name: str = APP_NAME) -> None:
    """Take an application off the connected Serve, and out of the config that a new controller would begin with."""
    _submit(_others(name))
    serve.delete(name)


def proxy_location() -> str:
    """Where the connected Serve runs its HTTP proxies: `Disabled`, `HeadOnly` or `EveryNode`."""
    location = _client().get_serve_details()["proxy_location"]
    return str(getattr(location, "value", location))


def _submit(applications: list[dict[str, Any]]) -> None:
    # What a running Serve has is not changed by this; but a new controller begins with the config.
    config = {"proxy_location": proxy_location(), "applications": applications}
    _client().deploy_apps(ServeDeploySchema.model_validate(config))


def _others(name: str) -> list[dict[str, Any]]:
    """The configs of other applications that were deployed by one: what a new config leaves out, Serve deletes."""
    applications = _client().get_serve_details()["applications"]
    configs = {other: told["deployed_app_config"] for other, told in applications.items() if other != name}
    return [config for config in configs.values() if config]


def _client() -> ServeControllerClient:
    client = _get_global_client()
    if client is None:
        raise RuntimeError("Serve does not run on this Ray")
    return client
