"""Starting and finding Ray: a local one for this process, or the one that serves already."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serve_app import serve_config
from serve_app.app_name import APP_NAME, HTTP_APP_NAME, ROUTER_NAME
from serve_app.config import prepare_ray_environment, ray_address, state_folder
from serve_app.engine_store import remove_store
from serve_app.errors import ServiceUnavailableError
from serve_app.http_rules import KEEP_ALIVE_S, HttpRules
from serve_app.pool_trouble import telling_line

SERVICE_FILE = "service.json"
LOCK_FILE = "service.lock"
# A Ray head that takes longer to accept a connection is of no use to cameras.
CONNECT_TIMEOUT_S = 5.0


class ServiceState(str, Enum):
    """Where a hosted service stands."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class ServiceNote:
    """What `framelane up` notes of the service it hosts.

    Attributes:
        state: whether it serves already, or still.
        pid: the hosting process.
        pid_started_ticks: when that process began, in the kernel's ticks since boot: tells it from a later process that
            got the same id.
        address: of its Ray cluster; empty while it starts.
        plan: the plan's path.
    """

    state: ServiceState
    pid: int
    pid_started_ticks: int
    address: str
    plan: str


def start_ray(num_cpus: int | None = None, metrics_port: int | None = None) -> str:
    """Start a Ray of our own on this machine, without dashboard; returns its address.

    Its agent exports metrics all the same, on this port or on a free one.

    Raises:
        ServiceUnavailableError: the folder for temporary files has too long a path for Ray's sockets.
    """
    prepare_ray_environment()
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=True,
            logging_level=logging.ERROR,
            _metrics_export_port=metrics_port,
        )
    except OSError as err:
        if "AF_UNIX path" not in str(err):
            raise
        raise ServiceUnavailableError(
            f"service: the path of Ray's folder for sockets is too long ({' '.join(str(err).split())}); set RAY_TMPDIR "
            "to a folder with a short path, such as /tmp"
        ) from err
    return str(ray.get_runtime_context().gcs_address)


def connect_ray(address: str | None = None) -> ServiceNote | None:
    """Connect this process to a running Ray, unless it is connected already.

    Args:
        address: of a Ray cluster, or `auto` for the one of this machine; None: what `RAY_ADDRESS` says, else the
            service that `framelane up` started. Another Ray that happens to run here is never taken by guess.

    Returns:
        The service of `framelane up`, if that is where this process is connected now.

    Raises:
        ServiceUnavailableError: none is known, or it cannot be reached.
    """
    note = read_note()
    if ray.is_initialized():
        return note if note is not None and note.address == ray.get_runtime_context().gcs_address else None
    target = address or ray_address() or (note.address if note else None)
    if target == "" and note is not None:
        raise ServiceUnavailableError(f"service: it is still {note.state.value} (process {note.pid}); try again soon")
    if target is None:
        raise ServiceUnavailableError(
            "service: none of yours runs on this machine; start one with: framelane up, or name a Ray cluster's address"
        )
    _check_port(target)
    prepare_ray_environment()
    _use_ray_token()
    _quiet_serve()
    try:
        ray.init(address=target, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as err:
        raise _unreachable(target, str(err)) from err
    return note if note is not None and target == note.address else None


def _check_port(address: str) -> None:
    """Find out in seconds that nobody listens at `host:port`, where Ray would try for a minute."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()) or "/" in host:
        return  # `auto`, or a scheme that only Ray understands
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as err:
        raise _unreachable(address, str(err)) from err


def _unreachable(address: str, reason: str) -> ServiceUnavailableError:
    first_line = (reason.splitlines() or [""])[0][:150]
    return ServiceUnavailableError(
        f"service: no Ray can be reached at {address} ({first_line}); start a service with: framelane up"
    )


def _quiet_serve() -> None:
    """Leave Serve's errors only: its routine messages on standard error mean nothing to our users."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)


def _use_ray_token() -> None:
    """Send this user's Ray token, if there is one.

    Ray 2.60 starts local clusters with token authentication on, but a process that joins one only sends the token when
    its mode is set before Ray is imported, which a library cannot arrange; without it the join is refused.
    """
    try:
        from ray._private.authentication import authentication_token_setup as setup
    except ImportError:  # another Ray, which may not need it
        return
    logging.getLogger(setup.__name__).setLevel(logging.ERROR)
    setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def router_handle() -> DeploymentHandle[Any]:
    """The handle of the connected Ray's application.

    Serve forgets which deployment is an application's first when a new version of it is refused, though the old one
    goes on; its deployments are still known by name.

    Raises:
        RayServeException: there is none.
    """
    try:
        return serve.get_app_handle(APP_NAME)
    except RayServeException as err:
        try:
            return serve.get_deployment_handle(ROUTER_NAME, APP_NAME)
        except KeyError:
            raise err from None


def deploy(application: serve.Application, http: HttpRules | None = None) -> DeploymentHandle[Any]:
    """Deploy an application on the connected Ray and wait until every replica is warm.

    Args:
        application: ours.
        http: where Serve listens if it is started by this; None: nowhere, callers use Python handles.

    Raises:
        ServiceUnavailableError: it did not start; the message carries Serve's own.
    """
    _quiet_serve()
    if http is None:
        serve.start(proxy_location="Disabled")
    else:
        serve.start(
            proxy_location="EveryNode",
            http_options={"host": http.host, "port": http.port, "keep_alive_timeout_s": KEEP_ALIVE_S},
        )
    is_first = APP_NAME not in serve.status().applications
    try:
        return serve_config.run(application)
    except RuntimeError as err:
        reason = deployment_message() or str(err)
        if is_first:  # else what served before goes on
            delete_application()
        raise ServiceUnavailableError(f"service: did not start: {reason}") from err


def delete_application() -> None:
    """Take the application off the connected Ray, with the engines that its cluster holds; disks keep theirs."""
    _let_go()
    if HTTP_APP_NAME in serve.status().applications:
        serve_config.delete(HTTP_APP_NAME)
    serve_config.delete()
    remove_store()


def _let_go() -> None:
    """Tell the router that this is no update: it keeps no replica that Serve stops."""
    with contextlib.suppress(RayServeException, RayError, TimeoutError):
        router_handle().let_go.remote().result(timeout_s=CONNECT_TIMEOUT_S)


def deployment_message() -> str:
    """The last line of what the first failed deployment says: the error of its replica's constructor."""
    application = serve.status().applications.get(APP_NAME)
    deployments = application.deployments.values() if application else ()
    return telling_line("\n".join(deployment.message for deployment in deployments))


@contextmanager
def deployed(application: serve.Application, http: HttpRules | None = None) -> Iterator[DeploymentHandle[Any]]:
    """Deploy an application on the connected Ray, and stop Serve at the end; see `deploy`."""
    handle = deploy(application, http)
    try:
        yield handle
    finally:
        with _silence():
            _let_go()
            serve.shutdown()  # type: ignore[no-untyped-call]


def stop_ray() -> None:
    """Stop the Ray that `start_ray` started, or disconnect from the one found by `connect_ray`."""
    with _silence():
        ray.shutdown()


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what Ray prints to standard output: on every shutdown it reports the end of its own actors as errors."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextmanager
def hosting() -> Iterator[None]:
    """Be the one process that hosts this user's service; the lock is gone with the process, however it ends.

    Raises:
        ServiceUnavailableError: another one hosts it, or is about to.
    """
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise ServiceUnavailableError(
                "up: a service runs already, or is starting or stopping; look at: framelane status"
            ) from err
        try:
            yield
        finally:
            (folder / SERVICE_FILE).unlink(missing_ok=True)


def write_note(state: ServiceState, address: str, plan: str) -> None:
    """Note that this process hosts a service; within `hosting`."""
    note = ServiceNote(state, os.getpid(), _started_ticks(os.getpid()) or 0, address, plan)
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{SERVICE_FILE}.{os.getpid()}"
    unfinished.write_text(json.dumps(asdict(note)))
    unfinished.replace(folder / SERVICE_FILE)


def read_note() -> ServiceNote | None:
    """The service that `framelane up` hosts for this user, if its process still runs."""
    path = state_folder() / SERVICE_FILE
    try:
        content = json.loads(path.read_text())
        note = ServiceNote(**(content | {"state": ServiceState(content["state"])}))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return note if _started_ticks(note.pid) == note.pid_started_ticks else None


def _started_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)); None if there is no such process or it has exited."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
