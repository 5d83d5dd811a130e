"""`framelane report`: what frame logs tell, as a page, pictures and figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from engines.errors import EngineError
from engines.graph import load_model, read_info
from serve_app.cli.console import errors, progress
from serve_app.config import load_plan, model_path, plan_path
from serve_app.errors import FramelaneError
from serve_app.latency import LatencyModel
from serve_app.latency_file import load_table
from serve_app.plan import Plan
from serve_app.planning.traffic_file import load_traffic
from serve_app.report.advice import USUAL_STRIDE_PX, Advice, advise
from serve_app.report.figures_json import figures_json
from serve_app.report.findings import Weight, findings
from serve_app.report.log_figures import LogFigures, read_logs
from serve_app.report.page import report_page
from serve_app.report.plots import save_plots

MARKS = {Weight.GOOD: "[green]✓[/]", Weight.NOTE: "[yellow]![/]", Weight.BAD: "[red]✗[/]"}


def report(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG…", help="Frame logs; of several routers give each.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the page goes.")] = Path("report.html"),
    plots: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Draw pictures into this folder.")] = None,
    plan_file: Annotated[
        str | None,
        typer.Option("--plan", help="The plan that served: its canvases, replicas and latencies are compared."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All figures to standard output, as JSON.")] = False,
) -> None:
    """Read frame logs and write one page: deadlines, latency by stage and size, slow frames, the planner's advice."""
    _check_paths(logs, out)
    plan = load_plan(plan_path(plan_file)) if plan_file is not None else None
    num_bytes = sum(path.stat().st_size for path in logs if path.is_file())
    with progress() as shown:
        task = shown.add_task("reading", total=num_bytes or None)
        figures = read_logs(logs, lambda read: shown.update(task, completed=read))
    advice = _advice(figures, plan, plan_path(plan_file) if plan_file is not None else None)
    _write(out, report_page(figures, advice))
    drawn = save_plots(plots, figures) if plots is not None else ()
    if as_json:
        sys.stdout.write(json.dumps(figures_json(figures, advice), indent=1) + "\n")
    else:
        _say(figures, advice)
    _tell_left_out(figures)
    for path in (out, *drawn):
        errors.print(f"{'page' if path is out else 'plot'}: {escape(str(path))}", highlight=False, soft_wrap=True)


def _check_paths(logs: Sequence[Path], out: Path) -> None:
    """No log twice, which would count its frames twice; and none that would be written over."""
    known: set[Path] = set()
    for path in logs:
        real = path.resolve()
        if real in known:
            raise FramelaneError(f"log {path}: got it twice, allowed is once: its frames would count twice")
        known.add(real)
    if out.resolve() in known:
        raise FramelaneError(f"--out: got {out}, which is one of the logs; name another file")


def _advice(figures: LogFigures, plan: Plan | None, path: Path | None) -> Advice:
    if plan is None or path is None:
        return advise(figures, None, LatencyModel(), strides_px={})
    table = load_table(Path(plan.latency), machine=None, force=True) if plan.latency else None
    planned_path = path.with_suffix(".traffic.csv")
    planned = load_traffic(planned_path) if planned_path.is_file() else None
    return advise(figures, plan, LatencyModel(table), strides_px=_strides_px(plan), planned=planned)


def _strides_px(plan: Plan) -> dict[str, int]:
    """Of the models that are on this machine: a report may be made far from the cluster."""
    strides_px = {}
    for name, source in plan.models.items():
        try:
            path = model_path(source)
            strides_px[name] = read_info(load_model(path), path.name).stride_px
        except (FramelaneError, EngineError, OSError) as err:
            errors.print(
                f"model {escape(name)}: {escape(str(err))}; its stride is taken to be {USUAL_STRIDE_PX} px",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
    return strides_px


def _write(out: Path, page: str) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as err:
        raise FramelaneError(f"--out: {out} cannot be written ({err.strerror}); choose another file") from err


def _say(figures: LogFigures, advice: Advice) -> None:
    """What stands out, in the words of the page."""
    from serve_app.cli.console import output

    for finding in findings(figures, advice):
        cure = f" [dim]Turn: {escape(finding.cure)}.[/]" if finding.cure else ""
        output.print(f"{MARKS[finding.weight]} {escape(finding.text)}{cure}", highlight=False, soft_wrap=True)


def _tell_left_out(figures: LogFigures) -> None:
    for file in figures.files:
        if file.num_foreign:
            errors.print(
                f"[yellow]{escape(str(file.path))}[/]: {file.num_foreign:,} lines that are no records were left out; "
                f"{escape(file.foreign[0])}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
        if file.is_torn:
            errors.print(
                f"[yellow]{escape(str(file.path))}[/]: its last line is torn and was left out",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
