"""The second Serve application: HTTP in front of the first one, on which nothing there depends."""

# No `from __future__ import annotations` here: Serve looks at the annotation of `build` itself, not at its name.
import socket
from contextlib import closing
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application

from serve_app import serve_config
from serve_app.app import HEALTH_PERIOD_S, HEALTH_TIMEOUT_S, QUIET, SURGE_PERCENT
from serve_app.app_name import CRITICAL_DOOR_NAME, HTTP_APP_NAME, HTTP_NAME
from serve_app.config import http_keys_path, load_plan, plan_path
from serve_app.errors import InvalidPlanError, ServiceUnavailableError
from serve_app.http.critical_door import CriticalDoor
from serve_app.http.replica import HttpReplica
from serve_app.key_file import load_keys
from serve_app.placement import router_options
from serve_app.plan import Plan
from serve_app.pool_trouble import telling_line

ROUTE = "/"
# Beside the requests that the door lets in: those that it refuses, probes, and people who look at a page.
SPARE_REQUESTS = 200
# What waits at Serve's proxy for a place; beyond it Serve answers 503 itself.
MAX_QUEUED = 200
# Requests end within their deadlines, and so do tickets; what an update replaces waits for them.
GRACEFUL_SHUTDOWN_S = 600.0


class HttpAppArgs(BaseModel):
    """The arguments of the application in a Serve config file (`applications[].args`)."""

    model_config = ConfigDict(extra="forbid")

    plan: str
    """The plan of the application `framelane`: its path, or `bundled:NAME`."""
    version: str = ""
    """Any text; `serve deploy` looks at the arguments only: change it when the plan's `http` section has changed."""


def build(args: HttpAppArgs) -> Application:
    """Build the application of a plan file, where a Serve config says `import_path: serve_app.http.deployment:build`.

    Raises:
        InvalidPlanError: unsound, or anybody who reaches Serve could call: where it listens stands in the config.
    """
    plan = load_plan(plan_path(args.plan))
    if http_keys_path(plan) is None and not plan.http.allow_anonymous:
        raise InvalidPlanError(
            "http.keys: got none, allowed is a file of API keys: with a Serve config HTTP may listen on every address; "
            "make keys (framelane key), and name their file in the plan or in FRAMELANE_HTTP_KEYS, or set "
            "http.allow_anonymous: true"
        )
    return http_application(plan)


def http_application(plan: Plan) -> Application:
    """The application of a plan whose `http` section says how to serve it."""
    path = http_keys_path(plan)
    keys = None if path is None else str(path)
    options: dict[str, Any] = {
        "logging_config": QUIET,
        "graceful_shutdown_timeout_s": GRACEFUL_SHUTDOWN_S,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": HEALTH_PERIOD_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
        "max_surge_percent": SURGE_PERCENT,
    } | router_options()
    door = None
    if plan.http.critical_port is not None:
        door = serve.deployment(name=CRITICAL_DOOR_NAME, **options)(CriticalDoor).bind(plan, keys)
    deployment = serve.deployment(
        name=HTTP_NAME,
        num_replicas=plan.http.num_replicas,
        max_ongoing_requests=plan.http.max_requests + SPARE_REQUESTS,
        max_queued_requests=MAX_QUEUED,
        **options,
    )(serve.ingress()(HttpReplica))
    return deployment.bind(plan, keys, door)


def check_http(plan: Plan, *, is_here: bool) -> None:
    """Raise before anything starts what would keep HTTP from being served.

    Args:
        plan: what is to be served.
        is_here: whether Serve's proxy runs on this machine.

    Raises:
        InvalidPlanError: the keys, or that there are none.
        ServiceUnavailableError: something else listens at the port.
    """
    keys = http_keys_path(plan)
    plan.http.check_reach(has_keys=keys is not None)
    if is_here:  # on a cluster the file lies on its machines
        if keys is not None and not load_keys(keys):
            raise InvalidPlanError(f"keys {keys}: got none, so nobody could call; make one: framelane key NAME")
        _check_port(plan.http.host, plan.http.port, "--http-port, or http.port")
        if plan.http.critical_port is not None:
            _check_port(plan.http.host, plan.http.critical_port, "http.critical_port")


def deploy_http(plan: Plan) -> None:
    """Deploy it on the connected Serve, or update it there, and wait until it answers.

    Raises:
        ServiceUnavailableError: Serve runs without proxies, or it did not start.
    """
    if serve_config.proxy_location() == "Disabled":
        raise ServiceUnavailableError(
            "http: Serve was started without HTTP on this cluster, which cannot be changed while it runs; stop the "
            "service (framelane down), and start it with: framelane up --http"
        )
    try:
        serve_config.run(http_application(plan), HTTP_APP_NAME, ROUTE)
    except RuntimeError as err:
        reason = _reason() or str(err)
        raise ServiceUnavailableError(f"http: did not start: {reason}") from err


def is_http_deployed() -> bool:
    """Whether the connected Serve has it."""
    return HTTP_APP_NAME in serve.status().applications


def _reason() -> str:
    told = serve.status().applications.get(HTTP_APP_NAME)
    return telling_line("\n".join(each.message for each in told.deployments.values())) if told else ""


def _check_port(host: str, port: int, named_by: str) -> None:
    """Serve would try for ever to get a port that somebody has."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as err:
            raise ServiceUnavailableError(
                f"http: {host}:{port} cannot be listened at ({(err.strerror or str(err)).lower()}); choose another "
                f"with {named_by} in the plan"
            ) from err
