"""`framelane plan`: from traffic to a plan, and whether traffic still fits one."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from engines.engine_file import engines_in
from engines.engine_spec import Precision
from engines.graph import load_model, read_info
from engines.prepared_graph import prepared_onnx
from engines.spec import CanvasShape, ModelInfo
from serve_app.cli.console import errors, output
from serve_app.cli.options import ModelOption, model_file, model_source
from serve_app.cli.plan_tables import print_drift, print_proposal
from serve_app.config import load_plan, model_path, plan_path
from serve_app.errors import FramelaneError, InvalidPlanError
from serve_app.latency import LatencyModel, LatencyTable, Origin
from serve_app.latency_file import load_table
from serve_app.plan import Pool, Runtime
from serve_app.plan_machine import device_name, machine_of
from serve_app.planning.drift import Fit, compare
from serve_app.planning.engine_memory import EngineMemory
from serve_app.planning.plan_file import save_plan
from serve_app.planning.planner import propose
from serve_app.planning.proposal import PlannedModel, PlannerLimits, Proposal
from serve_app.planning.traffic import Traffic, merged
from serve_app.planning.traffic_file import load_traffic, save_traffic
from serve_app.planning.traffic_picture import save_picture_of

DRIFTED_STATUS = 2
# What the plan file allows for names.
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
DEFAULTS = PlannerLimits()


def plan(
    traffic: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="TRAFFIC…", help="Frame logs (.jsonl), histograms (.csv), camera lists (.yaml); they add up."
        ),
    ] = None,
    model: ModelOption = None,
    name: Annotated[str, typer.Option(help="The model's name in the plan and in the latency table.")] = "full",
    latency: Annotated[
        Path | None, typer.Option(help="Table of measured latencies; default: an assumed time per pixel.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Take a latency table of another machine.")] = False,
    max_canvases: Annotated[int, typer.Option(min=1, max=64, help="At most so many canvases.")] = DEFAULTS.max_canvases,
    max_buckets: Annotated[int, typer.Option(min=1, max=16, help="At most so many engines.")] = DEFAULTS.max_buckets,
    max_batch: Annotated[int, typer.Option(min=1, max=256, help="No larger batches.")] = DEFAULTS.max_batch,
    max_canvas: Annotated[str | None, typer.Option(metavar="HxW", help="Larger frames are shrunk onto it.")] = None,
    max_chunk_s: Annotated[
        float | None, typer.Option(min=0.001, help="No batch takes longer; default: a share of the critical deadline.")
    ] = None,
    memory_mib: Annotated[
        int | None, typer.Option(min=1, help="What the engines of one replica may hold, by estimate.")
    ] = None,
    engines: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Built engines of this model, whose memory counts.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Of engines on GPUs.")] = Precision.FP16,
    cpus: Annotated[float, typer.Option(min=0, help="CPUs that Ray reserves for a replica.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs that Ray reserves for a replica.")] = 0.0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the plan goes; an older one is kept.")] = Path(
        "plan.yaml"
    ),
    picture: Annotated[Path | None, typer.Option(help="Where the picture goes; default: beside the plan.")] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="TRAFFIC", help="Only say whether this traffic still fits the plan of --plan."),
    ] = None,
    plan_file: Annotated[
        str, typer.Option("--plan", help="The plan that --check compares with: a path, or a bundled one.")
    ] = "plan.yaml",
) -> None:
    """Choose canvases, engines, batches and replicas for given traffic, at the least device time.

    With --check: exit status 0 if the traffic fits the plan, 2 if it has drifted.
    """
    if check is not None:
        if traffic:
            raise FramelaneError(
                "plan: got TRAFFIC and --check, allowed is one of them; to plan anew leave out --check"
            )
        _check(check, plan_path(plan_file), latency, force=force)
        return
    if not traffic:
        raise FramelaneError(
            "plan: got no TRAFFIC, allowed are frame logs (.jsonl), .csv and .yaml files, or --check LOG"
        )
    if not re.fullmatch(NAME_PATTERN, name):
        raise FramelaneError(f"--name: got {name!r}, allowed are letters, digits, '_', '.' and '-', at most 64")
    table = _table(latency, [name], machine=device_name(_pool(cpus, gpus).runtime), force=force)
    limits = PlannerLimits(
        max_canvases=max_canvases,
        max_buckets=max_buckets,
        max_batch=max_batch,
        memory_bytes=None if memory_mib is None else memory_mib * 2**20,
        max_canvas=_parse_canvas(max_canvas) if max_canvas else None,
        max_chunk_s=max_chunk_s,
    )
    proposal = propose(
        merged(entry for path in traffic for entry in load_traffic(path)),
        _planned_model(model, name, functools.partial(_memory, is_gpu=gpus > 0, engines=engines, precision=precision)),
        LatencyModel(table),
        limits,
        pool=_pool(cpus, gpus),
    )
    if gpus:
        engines_as_planned = dataclasses.replace(proposal.plan.engines, precision=precision)
        proposal = dataclasses.replace(proposal, plan=dataclasses.replace(proposal.plan, engines=engines_as_planned))
    if latency is not None:
        with_table = dataclasses.replace(proposal.plan, latency=str(latency.resolve()))
        proposal = dataclasses.replace(proposal, plan=with_table)
    origin = table.origin if table else Origin.ASSUMED
    print_proposal(proposal, origin, table.machine if table else "")
    old = save_plan(out, proposal, sources=", ".join(path.name for path in traffic), origin=origin)
    save_traffic(_traffic_of(out), proposal.traffic)
    pictured = _save_picture(picture, out, proposal)
    files = [f"plan: {out}", f"its traffic: {_traffic_of(out)}"]
    files += [f"picture: {pictured}"] if pictured else []
    files += [f"the plan before: {old}"] if old else []
    output.print("\n" + "   ".join(files), highlight=False, soft_wrap=True)


def _check(log: Path, path: Path, latency: Path | None, *, force: bool) -> None:
    deployed = load_plan(path)
    table_path = latency or (Path(deployed.latency) if deployed.latency else None)
    planned_path = _traffic_of(path)
    planned: Traffic | None = load_traffic(planned_path) if planned_path.is_file() else None
    report = compare(
        deployed,
        load_traffic(log),
        LatencyModel(_table(table_path, list(deployed.models), machine=machine_of(deployed), force=force)),
        strides_px={name: _info(model_path(source)).stride_px for name, source in deployed.models.items()},
        planned=planned,
    )
    print_drift(report)
    if report.fit is Fit.DRIFTED:
        raise typer.Exit(DRIFTED_STATUS)


def _traffic_of(plan_yaml: Path) -> Path:
    """Where the traffic lies that a plan was made for."""
    return plan_yaml.with_suffix(".traffic.csv")


def _table(path: Path | None, models: list[str], *, machine: str | None, force: bool) -> LatencyTable | None:
    """The latency table; raises `InvalidPlanError` if it has nothing of one of these models."""
    if path is None:
        return None
    table = load_table(path, machine=machine, force=force)
    measured = sorted({key.model for key in table.entries})
    missing = [model for model in models if model not in measured]
    if missing:
        raise InvalidPlanError(
            f"latency table {path}: got times of {', '.join(measured)}, needed are those of {', '.join(missing)}; "
            "profile it, or name the model as the table does with --name"
        )
    return table


def _pool(cpus: float, gpus: float) -> Pool:
    if gpus:
        return Pool("gpu", num_cpus=cpus, num_gpus=gpus, runtime=Runtime.TENSORRT)
    return Pool("cpu", num_cpus=cpus)


def _memory(path: Path, *, is_gpu: bool, engines: Path | None, precision: Precision) -> EngineMemory:
    """What engines of a model hold; on a GPU by what the builder said of those in a folder."""
    if not is_gpu:
        if engines is not None:
            raise FramelaneError("--engines: got a folder for a plan without GPUs, allowed is with --gpus above 0")
        return EngineMemory(path.stat().st_size)
    graph = prepared_onnx(path, precision)
    if engines is None:
        return EngineMemory(graph.weights_bytes, shares_arena=True)
    facts = [engine.facts for engine in engines_in(engines) if engine.facts.onnx_sha256 == graph.sha256]
    if not facts:
        raise FramelaneError(
            f"--engines {engines}: got no engine of {path.name} in {precision.value}, allowed is a folder of the "
            "engine cache that has one or more; make them with: framelane build PLAN"
        )
    built: dict[int, int] = {}
    for engine in facts:  # other libraries and GPUs included: the largest counts
        canvas, batch = engine.profile.max_shape
        built[canvas.num_px * batch] = max(engine.activation_bytes, built.get(canvas.num_px * batch, 0))
    return EngineMemory(max(engine.weights_bytes for engine in facts), shares_arena=True, built=built)


def _planned_model(model: str | None, name: str, memory_of: Callable[[Path], EngineMemory]) -> PlannedModel:
    path = model_file(model)
    info = _info(path)
    if info.fixed_canvas is not None or info.fixed_batch is not None:
        raise InvalidPlanError(
            f"model {path}: got one for canvas {info.fixed_canvas or 'any'}, batch {info.fixed_batch or 'any'} only, "
            "allowed is one with free axes; export it with: framelane export MODEL.pt"
        )
    return PlannedModel(name, model_source(model), info.stride_px, memory_of(path))


def _info(path: Path) -> ModelInfo:
    return read_info(load_model(path), path.name)


def _parse_canvas(text: str) -> CanvasShape:
    height, _, width = text.lower().partition("x")
    if not (text.isascii() and height.isdigit() and width.isdigit()):
        raise FramelaneError(f"--max-canvas: got {text!r}, allowed is HEIGHTxWIDTH in px, such as 1088x1920")
    return CanvasShape(int(height), int(width))


def _save_picture(wanted: Path | None, out: Path, proposal: Proposal) -> Path | None:
    """Draw the picture; a missing matplotlib is an error only for those who asked for one."""
    path = wanted or out.with_suffix(".png")
    try:
        save_picture_of(proposal, path)
    except FramelaneError as err:
        if wanted is not None:
            raise
        errors.print(f"no {err}", highlight=False, soft_wrap=True)
        return None
    return path
