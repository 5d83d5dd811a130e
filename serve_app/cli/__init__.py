"""The `framelane` command: errors in plain words, no traceback for a user's mistake."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer
from rich.markup import escape

from engines.errors import EngineError
from serve_app import scheduler
from serve_app.allocator import share_arenas
from serve_app.cli import (
    build,
    demo,
    detect,
    drain,
    export,
    key,
    parity,
    plan,
    profile,
    report,
    service,
    simulate,
    spool,
    status,
    stream,
    update,
)
from serve_app.cli.console import errors, output
from serve_app.errors import FramelaneError

app = typer.Typer(
    name="framelane",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        how = "" if str(scheduler.__file__).endswith(".py") else " (scheduler compiled)"
        output.print(f"framelane {metadata.version('framelane')}{how}", highlight=False)
        raise typer.Exit


@app.callback()
def framelane(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Serve YOLO detectors to mixed-resolution cameras: every frame at its own size, critical ones first."""


# In the order in which one meets them.
app.command()(demo.demo)
app.command()(detect.detect)
app.command()(stream.stream)
app.command()(service.up)
app.command()(status.status)
app.command()(update.update)
app.command()(service.down)
app.command()(drain.drain)
app.command()(report.report)
app.command()(plan.plan)
app.command()(simulate.simulate)
app.command()(profile.profile)
app.command()(export.export)
app.command()(build.build)
app.command()(parity.parity)
app.command()(key.key)
app.add_typer(spool.spool, name="spool")


def main() -> None:
    """Run the command; what users can mend is told in one line, with exit status 1."""
    share_arenas()
    try:
        app()
    except (FramelaneError, EngineError) as err:
        errors.print(f"[bold red]error:[/] {escape(str(err))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except OSError as err:
        where = f" {err.filename}:" if err.filename else ""
        errors.print(f"[bold red]error:[/]{escape(where)} {escape(err.strerror or str(err))}", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("interrupted", highlight=False)
        sys.exit(130)
