"""`framelane simulate`: a plan against a trace on a virtual clock, with the very scheduler that serves."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape

from serve_app.cli.console import errors, output, progress
from serve_app.config import load_plan, plan_path
from serve_app.errors import FramelaneError, InvalidPlanError
from serve_app.latency import LatencyModel, LatencyTable, Origin
from serve_app.latency_file import load_table
from serve_app.plan import Plan
from serve_app.plan_machine import machine_of
from serve_app.scheduler import Scheduler
from serve_app.simulation.failures import DEFAULT_SLOW_FACTOR, Failure, FailureKind
from serve_app.simulation.gpu_tables import FIGURES, figure_named, gpu_table
from serve_app.simulation.simulate import Simulation
from serve_app.simulation.simulated_calls import (
    DEFAULT_AFTER_S,
    DEFAULT_BEFORE_S,
    DEFAULT_DETECT_S,
    DEFAULT_RESTART_S,
    SimulatedCalls,
)
from serve_app.simulation.simulated_scaling import DEFAULT_START_UP_S, SimulatedScaling
from serve_app.simulation.simulation_plots import save_plots
from serve_app.simulation.simulation_report import SimulationReport, offered_use, report
from serve_app.simulation.simulation_table import (
    class_table,
    ends_table,
    pool_table,
    scaling_table,
    summary_line,
    sweep_table,
)
from serve_app.simulation.trace_file import load_trace
from serve_app.simulation.traces import FleetSpec, TraceSource

# A sweep of more loads is a slip of the pen.
MAX_LOADS = 200
FAIL_AT = "seconds of 0 or more, S:POOL, or KIND@S:POOL with KIND die, hang, slow or slowN"
ASSUMED = LatencyTable("nothing measured: 130 ns a pixel, as of a YOLOv8n on two CPU cores", Origin.ASSUMED, {})


def simulate(
    plan: Annotated[str, typer.Argument(help="Plan YAML, or a bundled one such as bundled:demo.")],
    trace: Annotated[Path, typer.Argument(help="A frame log (.jsonl), or the YAML of a fleet.")],
    latency: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE",
            help=f"A latency table, or a GPU's by name ({', '.join(FIGURES)}), for all models or each: MODEL=NAME. "
            "Default: the plan's.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Take a table that was measured on another machine.")] = False,
    believed: Annotated[
        Path | None, typer.Option(help="A table that the scheduler starts from, instead of the true one.")
    ] = None,
    replicas: Annotated[
        list[str] | None, typer.Option(metavar="N|POOL=N", help="Replicas of every pool, or of one.")
    ] = None,
    fail_at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[KIND@]S[:POOL]",
            help="After so many seconds a replica dies; or KIND: die, hang, slow (10 times), slow4 (4 times).",
        ),
    ] = None,
    load: Annotated[float, typer.Option(help="The trace at so many times its rate.")] = 1.0,
    sweep: Annotated[
        str | None, typer.Option(metavar="load=FROM:TO:STEP", help="One simulation a load, instead of --load.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="How long a fleet sends; default: as its file says.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the scatter of batches and of a fleet; default: 0, and the fleet's.")
    ] = None,
    before_ms: Annotated[float, typer.Option(help="From a decision until its batch can run.")] = round(
        DEFAULT_BEFORE_S * 1000, 3
    ),
    after_ms: Annotated[float, typer.Option(help="From the end of a run to the answer.")] = round(
        DEFAULT_AFTER_S * 1000, 3
    ),
    detect_s: Annotated[float, typer.Option(help="From a replica's death until it is noticed.")] = DEFAULT_DETECT_S,
    restart_s: Annotated[float, typer.Option(help="From then until it is replaced.")] = DEFAULT_RESTART_S,
    autoscale: Annotated[
        bool, typer.Option("--autoscale", help="Pools with max_replicas grow and shrink as they do in service.")
    ] = False,
    start_up_s: Annotated[
        float, typer.Option(help="With --autoscale: from a replica's start until it is warm.")
    ] = DEFAULT_START_UP_S,
    tick_ms: Annotated[float, typer.Option(help="The router decides once for all of so long; 0: at each event.")] = 0.0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write all figures into this file.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Draw pictures into this folder.")] = None,
) -> None:
    """Play a trace against a plan on a virtual clock: who is in time, what the devices do, where it queues."""
    loads = _loads(sweep) if sweep is not None else [load]
    checked = _with_replicas(load_plan(plan_path(plan)), replicas or [])
    table = _table(checked, latency or [], force=force)
    start = _loaded(believed, checked, force=True) if believed is not None else table
    calls = SimulatedCalls(before_ms / 1000, after_ms / 1000, detect_s, restart_s, tick_ms / 1000)
    failures = _failures(fail_at or [], checked)
    starts_s = start_up_s if autoscale else None
    source = _with_seconds(load_trace(trace), trace, seconds, seed)
    reports: list[SimulationReport] = []
    with progress() as shown:
        task = shown.add_task("simulating", total=len(loads))
        for each in loads:
            lots = random.Random(seed or 0)  # noqa: S311
            reports.append(_one(checked, source, each, table, start, lots, calls, failures, starts_s))
            shown.advance(task)
    label = f"SIMULATED; latencies {table.origin.value}: {table.machine}"
    _print(reports, label)
    if json_path is not None:
        _write_json(json_path, plan, trace, table, reports)
    if plots is not None:
        for path in save_plots(plots, reports, f"{Path(plan).name}, {trace.name}. {label}"):
            output.print(f"plot: {escape(str(path))}", highlight=False)


def _one(
    plan: Plan,
    source: TraceSource,
    load: float,
    table: LatencyTable,
    start: LatencyTable,
    lots: random.Random,
    calls: SimulatedCalls,
    failures: Sequence[Failure],
    start_up_s: float | None,
) -> SimulationReport:
    frames = source.at_load(load)
    scheduler = Scheduler(plan, LatencyModel(start))
    scaling = None if start_up_s is None else SimulatedScaling(plan, scheduler.loads, start_up_s=start_up_s)
    begin_s = time.perf_counter()
    run = Simulation(
        plan, scheduler, LatencyModel(table), lots.gauss, calls=calls, failures=failures, scaling=scaling
    ).run(frames)
    took_s = time.perf_counter() - begin_s
    errors.print(f"load {load:g}: {len(frames):,} frames simulated in {took_s:.1f} s", highlight=False)
    if scaling is None:
        return report(run, offered_use=offered_use(plan, frames, LatencyModel(table)), load=load)
    use = offered_use(_at_its_largest(plan), frames, LatencyModel(table))
    return report(run, offered_use=use, load=load, scaling=scaling.figures(frames, LatencyModel(table)))


def _at_its_largest(plan: Plan) -> Plan:
    """The plan with every pool as large as it may grow: of that capacity a load is a share."""
    pools = tuple(dataclasses.replace(pool, num_replicas=pool.max_replicas or pool.num_replicas) for pool in plan.pools)
    return dataclasses.replace(plan, pools=pools)


def _print(reports: Sequence[SimulationReport], label: str) -> None:
    output.print(escape(label), highlight=False, style="bold", soft_wrap=True)
    if len(reports) > 1:
        output.print(sweep_table(reports))
        return
    output.print(summary_line(reports[0]), highlight=False)
    output.print(class_table(reports[0]))
    output.print(ends_table(reports[0]))
    output.print(pool_table(reports[0]))
    sizes = scaling_table(reports[0])
    if sizes is not None:
        output.print(sizes)


def _write_json(path: Path, plan: str, trace: Path, table: LatencyTable, reports: Sequence[SimulationReport]) -> None:
    content = {
        "kind": "simulated",
        "plan": plan,
        "trace": str(trace),
        "latency": {"machine": table.machine, "origin": table.origin.value},
        "runs": [each.as_json() for each in reports],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as err:
        raise FramelaneError(f"--json: {path} cannot be written ({err.strerror}); choose another file") from err


def _table(plan: Plan, options: Sequence[str], *, force: bool) -> LatencyTable:
    """The table that options ask for; else the plan's; else none."""
    if not options:
        if plan.latency is None:
            return ASSUMED
        return _loaded(Path(plan.latency), plan, force=force)
    if len(options) == 1 and options[0] not in FIGURES and "=" not in options[0]:
        path = Path(options[0])
        if not path.suffix and not path.exists():
            figure_named(options[0])  # says which names there are
        return _loaded(path, plan, force=force)
    figures = {}
    for option in options:
        model, _, name = option.rpartition("=")
        named = [model] if model else list(plan.models)
        figures.update(dict.fromkeys(named, figure_named(name)))
    return gpu_table(plan, figures)


def _loaded(path: Path, plan: Plan, *, force: bool) -> LatencyTable:
    """A table that knows every model of the plan; shapes that it lacks are interpolated."""
    table = load_table(path, machine=machine_of(plan), force=force)
    known = sorted({key.model for key in table.entries})
    missing = [name for name in plan.models if name not in known]
    if missing:
        raise InvalidPlanError(
            f"latency table {path}: got models {', '.join(known)}, needed are all of the plan: {', '.join(missing)} is "
            "missing; run framelane profile with this plan"
        )
    return table


def _with_replicas(plan: Plan, options: Sequence[str]) -> Plan:
    """The plan with other replica counts."""
    names = [pool.name for pool in plan.pools]
    for option in options:
        pool_name, _, text = option.rpartition("=")
        if pool_name and pool_name not in names:
            raise InvalidPlanError(f"--replicas: got pool {pool_name!r}, allowed are the plan's: {', '.join(names)}")
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000:
            raise InvalidPlanError(f"--replicas: got {option!r}, allowed is a whole number from 1 to 10,000, or POOL=N")
        pools = tuple(
            dataclasses.replace(pool, num_replicas=int(text)) if pool_name in ("", pool.name) else pool
            for pool in plan.pools
        )
        plan = dataclasses.replace(plan, pools=pools)
    return plan


def _failures(options: Sequence[str], plan: Plan) -> list[Failure]:
    names = [pool.name for pool in plan.pools]
    failures = []
    for option in options:
        rest, _, pool = option.partition(":")
        what, _, text = rest.rpartition("@")
        at_s = _number("--fail-at", option, text, FAIL_AT)
        if at_s < 0:
            raise FramelaneError(f"--fail-at: got {option!r}, allowed is {FAIL_AT}")
        if pool and pool not in names:
            raise FramelaneError(f"--fail-at: got pool {pool!r}, allowed are the plan's: {', '.join(names)}")
        kind, factor = _kind(what or "die", option)
        failures.append(Failure(at_s, pool or None, kind, factor))
    return failures


def _kind(what: str, option: str) -> tuple[FailureKind, float]:
    """What befalls a replica, and how many times slower it becomes."""
    slow, _, times = what.partition("slow")
    if not slow and what.startswith("slow"):
        factor = _number("--fail-at", option, times, FAIL_AT) if times else DEFAULT_SLOW_FACTOR
        if factor < 1:
            raise FramelaneError(f"--fail-at: got {option!r}, allowed is {FAIL_AT}; a slow one takes longer")
        return FailureKind.SLOW, factor
    try:
        return FailureKind(what), 1.0
    except ValueError:
        raise FramelaneError(f"--fail-at: got {option!r}, allowed is {FAIL_AT}") from None


def _loads(sweep: str) -> list[float]:
    """The loads of `load=FROM:TO:STEP`, both ends included."""
    what, _, values = sweep.partition("=")
    parts = values.split(":")
    allowed = "load=FROM:TO:STEP such as load=0.5:3:0.25, all above 0 and FROM at most TO"
    if what != "load" or len(parts) != 3:
        raise FramelaneError(f"--sweep: got {sweep!r}, allowed is {allowed}")
    first, last, step = (_number("--sweep", sweep, part, allowed) for part in parts)
    if not 0 < first <= last or step <= 0:
        raise FramelaneError(f"--sweep: got {sweep!r}, allowed is {allowed}")
    if (last - first) / step > MAX_LOADS:
        raise FramelaneError(f"--sweep: got {sweep!r}, allowed are {MAX_LOADS} loads; take a larger STEP")
    return [round(float(each), 6) for each in np.arange(first, last + step / 2, step)]


def _number(option: str, got: str, text: str, allowed: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise FramelaneError(f"{option}: got {got!r}, allowed is {allowed}")
    return number


def _with_seconds(source: TraceSource, path: Path, seconds: float | None, seed: int | None) -> TraceSource:
    """A fleet for so long and with this seed; a recorded trace has its own."""
    if isinstance(source, FleetSpec):
        duration_s = source.duration_s if seconds is None else seconds
        return dataclasses.replace(source, duration_s=duration_s, seed=source.seed if seed is None else seed)
    if seconds is not None:
        raise FramelaneError(f"--seconds: got {seconds:g} for {path}, which is a recorded trace; it is for fleets only")
    return source
