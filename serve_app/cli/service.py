"""`framelane up` and `down`: a service that runs in the background of this machine, or on a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from serve_app.cli.console import errors, output, progress
from serve_app.cli.http_flags import HttpFlags, shown_at
from serve_app.config import load_plan, plan_path, state_folder
from serve_app.errors import InvalidPlanError, ServiceUnavailableError
from serve_app.frame_log import FrameLog
from serve_app.http_rules import HttpRules
from serve_app.latency_file import load_table
from serve_app.model_check import check_models
from serve_app.plan import Plan
from serve_app.plan_machine import machine_of

if TYPE_CHECKING:
    from serve_app.ray_session import ServiceNote

# Loading and warming a few CPU models takes seconds; building TensorRT engines can take many minutes.
START_TIMEOUT_S = 1800.0
STOP_TIMEOUT_S = 60.0

PlanArgument = Annotated[str, typer.Argument(help="The plan's YAML file, or a bundled one such as bundled:demo.")]
AddressOption = Annotated[str | None, typer.Option(help="A Ray cluster to use, such as 10.0.0.5:6379 or auto.")]


def up(
    plan: PlanArgument = "bundled:demo",
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, and stop with Ctrl-C.")] = False,
    address: AddressOption = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that machines of the cluster may take to join.")] = 0.0,
    may_grow: Annotated[bool, typer.Option("--may-grow", help="The cluster gets machines as they are needed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say whether the cluster has room.")] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=1024, max=65535, help="Where this machine's Ray exports metrics; else a port that is free."),
    ] = None,
    http: Annotated[bool, typer.Option("--http", help="Serve HTTP too; see docs/http.md.")] = False,
    http_port: Annotated[
        int | None, typer.Option(min=1024, max=65535, help="Where to listen for HTTP; else the plan's http.port.")
    ] = None,
    http_host: Annotated[str | None, typer.Option(help="At which address; else the plan's http.host.")] = None,
) -> None:
    """Start the service: on this machine, in the background, or deployed on a Ray cluster.

    A cluster has one service: where it runs already, it gets the new plan.
    """
    if address is None and (wait or may_grow or dry_run):
        raise InvalidPlanError("up: --wait, --may-grow and --dry-run are for a cluster; name it with --address")
    path = plan_path(plan)
    checked = load_plan(path)  # a mistake in the plan is told here, before anything starts
    if address is None:  # on a cluster the models lie on its machines
        check_files(checked, path)
    if address is not None and metrics_port is not None:
        raise ServiceUnavailableError(
            f"up: got --metrics-port {metrics_port} with --address {address}, allowed is one: a cluster's ports are "
            "set by: ray start --metrics-export-port"
        )
    flags = HttpFlags(http, http_port, http_host)
    rules = flags.rules(checked)
    if rules.is_on:
        _check_http(checked, rules, is_here=address is None)
    if address is not None:
        _deploy(path, address, flags, wait_s=wait, may_grow=may_grow, dry_run=dry_run)
    elif foreground:
        _host(path, metrics_port, flags)
    else:
        _start_background(path, metrics_port, flags)


def _check_http(plan: Plan, rules: HttpRules, *, is_here: bool) -> None:
    from serve_app.http.deployment import check_http

    check_http(replace(plan, http=rules), is_here=is_here)


def check_files(plan: Plan, path: Path) -> None:
    """Raise `InvalidPlanError` if a file that this plan names is of no use on this machine."""
    try:
        check_models(plan)
        if plan.frame_log is not None:
            FrameLog(Path(plan.frame_log)).check()
        if plan.latency is not None:
            load_table(Path(plan.latency), machine=machine_of(plan))
    except InvalidPlanError as err:
        raise InvalidPlanError(f"plan {path}: {err}") from err


def down(address: AddressOption = None) -> None:
    """Stop the service that `framelane up` started."""
    from serve_app.ray_session import connect_ray, delete_application, read_note

    if address is not None:
        connect_ray(address)
        delete_application()
        output.print(f"deleted from {address}", highlight=False)
        return
    note = read_note()
    if note is None:
        raise ServiceUnavailableError("down: no service of yours runs on this machine; start one with: framelane up")
    os.kill(note.pid, signal.SIGTERM)
    give_up_s = time.monotonic() + STOP_TIMEOUT_S
    with progress() as shown:
        shown.add_task("stopping", total=None)
        while read_note() is not None:
            if time.monotonic() > give_up_s:
                raise ServiceUnavailableError(
                    f"down: process {note.pid} has not stopped in {STOP_TIMEOUT_S:.0f} s; look at {_log_path()}"
                )
            time.sleep(0.1)
    output.print("stopped", highlight=False)


def _deploy(path: Path, address: str, flags: HttpFlags, *, wait_s: float, may_grow: bool, dry_run: bool) -> None:
    """Leave the application on a cluster that goes on without us, if there is room; one that serves is updated."""
    from serve_app.app import application
    from serve_app.http.deployment import deploy_http
    from serve_app.ray_session import connect_ray, deploy
    from serve_app.revision import running_revision
    from serve_app.room_check import check_room, telling_who_waits
    from serve_app.update import update

    def warn(text: str) -> None:
        errors.print(f"[bold yellow]{escape(text)}[/]", highlight=False)

    connect_ray(address)
    plan = flags.plan(path)
    with progress() as shown:
        task = shown.add_task(f"looking for room on {address}", total=None)
        for warning in check_room(plan, may_grow=may_grow, wait_s=wait_s):
            warn(warning)
        done = "new plan for the service" if running_revision() else "deployed"
        if dry_run:
            done = "room for this plan, nothing was deployed"
        else:
            shown.update(task, description=f"deploying {path.name} on {address}")
            with telling_who_waits(plan, warn):
                if running_revision():
                    update(plan, lambda news: shown.update(task, description=escape(news)))
                else:
                    deploy(application(plan), plan.http if plan.http.is_on else None)
                if plan.http.is_on:
                    deploy_http(plan)
    output.print(f"{done} on {address}", highlight=False)


def _host(path: Path, metrics_port: int | None, flags: HttpFlags) -> None:
    """Run Ray and the application as children of this process until it is told to stop."""
    from serve_app.app import application
    from serve_app.http.deployment import deploy_http
    from serve_app.ray_session import (
        ServiceState,
        deployed,
        hosting,
        start_ray,
        stop_ray,
        write_note,
    )
    from serve_app.room_check import check_room

    stop = threading.Event()
    with contextlib.ExitStack() as at_end:
        at_end.enter_context(hosting())
        write_note(ServiceState.STARTING, "", str(path))
        _stop_on_signals(stop)
        with progress() as shown:
            shown.add_task("starting Ray and warming engines", total=None)
            address = start_ray(metrics_port=metrics_port)
            at_end.callback(stop_ray)
            _stop_on_signals(stop)  # again: Ray has put in its own handlers, which leave without cleaning up
            plan = flags.plan(path)
            check_room(plan)
            at_end.enter_context(deployed(application(plan), plan.http if plan.http.is_on else None))
            if plan.http.is_on:
                deploy_http(plan)
        write_note(ServiceState.SERVING, address, str(path))
        output.print(f"serving {path} on {address} (process {os.getpid()}){shown_at(plan.http)}", highlight=False)
        stop.wait()
        # Before Ray goes: clients read it and stay away from a store that is about to end, which would end them.
        write_note(ServiceState.STOPPING, address, str(path))


def _stop_on_signals(stop: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def _start_background(path: Path, metrics_port: int | None, flags: HttpFlags) -> None:
    """Start `_host` as a process of its own and wait until it serves."""
    from serve_app.ray_session import read_note

    running = read_note()
    if running is not None:
        raise ServiceUnavailableError(
            f"up: a service runs already (process {running.pid}); stop it with: framelane down"
        )
    exported = [] if metrics_port is None else ["--metrics-port", str(metrics_port)]
    _log_path().parent.mkdir(parents=True, exist_ok=True)
    with _log_path().open("ab") as log:  # never cut what another service is writing
        written_before = log.tell()
        host = subprocess.Popen(
            [sys.executable, "-m", "serve_app.cli", "up", str(path), "--foreground", *exported, *flags.arguments()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        note = _served_by(host, written_before)
    except BaseException:  # Ctrl-C too: nothing goes on in the background that nobody waits for
        host.terminate()
        host.wait()
        raise
    at = shown_at(flags.plan(path).http)
    output.print(f"serving {escape(str(path))} (process {note.pid}){at}; stop it with: framelane down", highlight=False)


def _served_by(host: subprocess.Popen[bytes], written_before: int) -> ServiceNote:
    """Wait until the host serves; raises `ServiceUnavailableError` with what it wrote if it does not."""
    from serve_app.ray_session import ServiceState, read_note

    give_up_s = time.monotonic() + START_TIMEOUT_S
    with progress() as shown:
        shown.add_task("starting Ray and warming engines", total=None)
        while True:
            note = read_note()
            if note is not None and note.pid == host.pid and note.state is ServiceState.SERVING:
                return note
            if host.poll() is not None or time.monotonic() > give_up_s:
                reason = _log_path().read_bytes()[written_before:].decode(errors="replace").strip()[-1500:]
                raise ServiceUnavailableError(
                    f"up: the service did not start; its log {_log_path()} ends with:\n{reason}"
                )
            time.sleep(0.1)


def _log_path() -> Path:
    return state_folder() / "service.log"
