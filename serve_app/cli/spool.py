"""`framelane spool show` and `drop`: what lies in the spool, and what was set aside there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from serve_app.cli.console import output
from serve_app.errors import FramelaneError, InvalidPlanError, TicketUnknownError

if TYPE_CHECKING:
    from serve_app.client import Client
    from serve_app.spool.spool import AsideFrame
    from serve_app.spool.spool_status import SpoolStatus

spool = typer.Typer(no_args_is_help=True, help="Show the frames of durable cameras, and what was set aside.")

AddressOption = Annotated[str | None, typer.Option(help="A Ray cluster to use, such as 10.0.0.5:6379 or auto.")]
MIB = 2**20


@spool.command()
def show(address: AddressOption = None) -> None:
    """Show how much lies in the spool, and the records that were set aside."""
    client, status = _spool_of(address)
    for line in status_lines(status):
        output.print(line, highlight=False)
    if status.problem is None and status.num_aside:
        output.print(_aside_table(client.spool.aside()))


@spool.command()
def drop(
    frame: Annotated[str, typer.Argument(help="The id of a frame that `framelane spool show` lists as set aside.")],
    out: Annotated[Path | None, typer.Option(help="Write its bytes here, damaged as they are.")] = None,
    address: AddressOption = None,
) -> None:
    """Remove a record that was set aside; its ticket was answered as failed, and stays so."""
    if out is not None and out.exists():
        raise FramelaneError(f"--out {out}: exists already; name a new file")
    client, _ = _spool_of(address)
    record = client.spool.drop_aside(frame)
    if record is None:
        raise TicketUnknownError(f"spool: no frame {frame!r} is set aside; look at: framelane spool show")
    if out is not None:
        out.write_bytes(record)
    output.print(f"removed {escape(frame)}, {len(record):,} bytes", highlight=False)


def status_lines(status: SpoolStatus) -> list[str]:
    """The spool in a few lines of markup."""
    oldest = f", the oldest for {status.oldest_age_s:.0f} s" if status.oldest_age_s is not None else ""
    place = f"spool {escape(status.place)} on node {escape(status.node)}"
    if status.problem is not None:
        lines = [f"{place}:", f"[bold red]takes no frames: {escape(status.problem)}[/]"]
    else:
        waiting = f"{status.num_pending} frames wait{oldest}, {status.num_in_flight} of them in flight"
        kept = f"{status.num_done} results are kept, {status.num_aside} records set aside"
        room = f"{status.num_bytes / MIB:,.1f} of {status.max_bytes / MIB:,.0f} MiB"
        lines = [f"{place}: {waiting}; {kept}; {room}"]
    return lines + [f"[bold red]{escape(warning)}[/]" for warning in status.warnings]


def _spool_of(address: str | None) -> tuple[Client, SpoolStatus]:
    from serve_app.client import Client

    client = Client.connect(address)
    status = client.spool_status()
    if status is None:
        raise InvalidPlanError(
            "spool: no camera of the service's plan is durable; set durable: true in a rule of cameras"
        )
    return client, status


def _aside_table(frames: list[AsideFrame]) -> Table:
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
    for heading in ("set aside", "camera", "bytes", "why"):
        table.add_column(heading, justify="right" if heading == "bytes" else "left")
    for frame in frames:
        table.add_row(escape(frame.frame_id), escape(frame.camera), f"{frame.num_bytes:,}", escape(frame.reason))
    return table
