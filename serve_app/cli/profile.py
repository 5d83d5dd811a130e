"""`framelane profile`: measures how long each shape of a plan takes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serve_app.cli.console import output, progress
from serve_app.config import load_plan, plan_path
from serve_app.errors import InvalidPlanError
from serve_app.latency import LatencyTable
from serve_app.latency_file import save_table
from serve_app.model_check import check_models
from serve_app.profile import num_shapes, profile_plan


def profile(
    plan: Annotated[
        str | None, typer.Argument(help="The plan's YAML file, or bundled:NAME; none: see --running.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write the table.")] = Path("latency.json"),
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs a shape.")] = 10,
    running: Annotated[
        bool, typer.Option("--running", help="Measure nothing: take what the running service has learnt.")
    ] = False,
) -> None:
    """Measure how long each shape of a plan keeps the device, and write the table for plan and simulate.

    Nothing else should run on the machine meanwhile.
    """
    if running == (plan is not None):
        raise InvalidPlanError("profile: got both or none of PLAN and --running, allowed is one of them")
    found = _of_service() if plan is None else _measured(plan, repeats)
    save_table(out, found)
    output.print(_table(found))
    output.print(f"{out}: {len(found.entries)} shapes on {found.machine}", highlight=False)


def _of_service() -> LatencyTable:
    from serve_app.client import Client  # brings Ray

    return Client.connect().latency_table()


def _measured(plan: str, repeats: int) -> LatencyTable:
    from serve_app.app import make_engines

    loaded = load_plan(plan_path(plan))
    check_models(loaded)
    with progress() as shown:
        task = shown.add_task("measuring", total=num_shapes(loaded))

        def advance(*_: object) -> None:
            shown.advance(task)

        return profile_plan(loaded, make_engines, repeats=repeats, on_shape=advance)


def _table(found: LatencyTable) -> Table:
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
    for heading in ("model", "canvas", "batch", "ms", "± ms", "ns/px", "samples"):
        table.add_column(heading, justify="left" if heading in ("model", "canvas") else "right")
    for key, latency in sorted(found.entries.items()):
        table.add_row(
            key.model, str(key.canvas), str(key.batch), f"{latency.run_s * 1e3:.2f}", f"{latency.spread_s * 1e3:.2f}",
            f"{latency.run_s / (key.canvas.num_px * key.batch) * 1e9:.0f}", str(latency.num_samples),
        )  # fmt: skip
    return table
