"""`framelane up`, `down` and `status`: a service that runs in the background of this machine, or on a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from engines.device_facts import DeviceFacts
from serve_app.cli.console import output, progress
from serve_app.cli.spool import status_lines
from serve_app.config import load_plan, plan_path, state_folder
from serve_app.errors import InvalidPlanError, ServiceUnavailableError
from serve_app.frame_log import FrameLog
from serve_app.latency_file import load_table
from serve_app.model_check import check_models
from serve_app.plan_machine import machine_of
from serve_app.results import ServiceStatus

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
) -> None:
    """Start the service: on this machine, in the background, or deployed on a Ray cluster."""
    path = plan_path(plan)
    checked = load_plan(path)  # a mistake in the plan is told here, before anything starts
    if address is None:  # on a cluster the models lie on its machines
        try:
            check_models(checked)
            if checked.frame_log is not None:
                FrameLog(Path(checked.frame_log)).check()
            if checked.latency is not None:
                load_table(Path(checked.latency), machine=machine_of(checked))
        except InvalidPlanError as err:
            raise InvalidPlanError(f"plan {path}: {err}") from err
    if address is not None:
        _deploy(path, address)
    elif foreground:
        _host(path)
    else:
        _start_background(path)


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


def status(address: AddressOption = None) -> None:
    """Show pools, replicas, waiting frames and how frames ended."""
    from serve_app.client import Client

    client = Client.connect(address)
    shown = client.status()
    output.print(_status_table(shown))
    ended = ", ".join(f"{count} {outcome}" for outcome, count in sorted(shown.outcomes.items())) or "none yet"
    output.print(f"frames: {ended}; {shown.num_in_flight} in flight; up for {shown.uptime_s:.0f} s", highlight=False)
    if shown.num_records_lost:
        output.print(f"[bold red]{shown.num_records_lost} records could not be written to the frame log[/]")
    spool = client.spool_status()
    for line in status_lines(spool) if spool is not None else ():
        output.print(line, highlight=False)


def _status_table(shown: ServiceStatus) -> Table:
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
    headings = ("pool", "waiting", "work s", "rung", "running", "replica", "node", "batches", "warm s", "memory GiB")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("pool", "replica", "node") else "right")
    for pool in shown.pools:
        rows = pool.replicas or (None,)
        for index, replica in enumerate(rows):
            first = ("",) * 5
            if index == 0:
                work_s, rung = f"{pool.backlog_s:.2f}", str(pool.rung)
                first = (pool.name, str(pool.num_waiting), work_s, rung, str(pool.num_running))
            if replica is None:
                table.add_row(*first, "[bold red]none ready[/]", "", "", "", "")
                continue
            memory = _of_gib(replica.device)
            table.add_row(
                *first, replica.replica, replica.node, str(replica.num_batches), f"{replica.warm_s:.1f}", memory
            )
    return table


def _of_gib(device: DeviceFacts) -> str:
    if device.used_bytes is None or device.total_bytes is None:
        return "–"
    return f"{device.used_bytes / 2**30:.1f} of {device.total_bytes / 2**30:.1f}"


def _deploy(path: Path, address: str) -> None:
    """Leave the application on a cluster that goes on without us."""
    from serve_app.app import application
    from serve_app.ray_session import connect_ray, deploy

    connect_ray(address)
    with progress() as shown:
        shown.add_task(f"deploying {path.name} on {address}", total=None)
        deploy(application(load_plan(path)))
    output.print(f"deployed on {address}", highlight=False)


def _host(path: Path) -> None:
    """Run Ray and the application as children of this process until it is told to stop."""
    from serve_app.app import application
    from serve_app.ray_session import (
        ServiceState,
        check_room,
        deployed,
        hosting,
        start_ray,
        stop_ray,
        write_note,
    )

    stop = threading.Event()
    with contextlib.ExitStack() as at_end:
        at_end.enter_context(hosting())
        write_note(ServiceState.STARTING, "", str(path))
        _stop_on_signals(stop)
        with progress() as shown:
            shown.add_task("starting Ray and warming engines", total=None)
            address = start_ray()
            at_end.callback(stop_ray)
            _stop_on_signals(stop)  # again: Ray has put in its own handlers, which leave without cleaning up
            plan = load_plan(path)
            check_room(plan)
            at_end.enter_context(deployed(application(plan)))
        write_note(ServiceState.SERVING, address, str(path))
        output.print(f"serving {path} on {address} (process {os.getpid()})", highlight=False)
        stop.wait()
        # Before Ray goes: clients read it and stay away from a store that is about to end, which would end them.
        write_note(ServiceState.STOPPING, address, str(path))


def _stop_on_signals(stop: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def _start_background(path: Path) -> None:
    """Start `_host` as a process of its own and wait until it serves."""
    from serve_app.ray_session import read_note

    running = read_note()
    if running is not None:
        raise ServiceUnavailableError(
            f"up: a service runs already (process {running.pid}); stop it with: framelane down"
        )
    _log_path().parent.mkdir(parents=True, exist_ok=True)
    with _log_path().open("ab") as log:  # never cut what another service is writing
        written_before = log.tell()
        host = subprocess.Popen(
            [sys.executable, "-m", "serve_app.cli", "up", str(path), "--foreground"],
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
    output.print(f"serving {escape(str(path))} (process {note.pid}); stop it with: framelane down", highlight=False)


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
