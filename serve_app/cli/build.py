"""`framelane build`: builds the TensorRT engines of a plan, and says what memory they need."""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from engines.device_facts import DeviceFacts, open_device
from engines.engine_cache import EngineCache
from engines.engine_spec import BuiltEngine, ComputeCapability, EngineFacts, EngineSpec, Precision
from engines.errors import EngineBuildError, EngineError
from engines.prepared_graph import PreparedGraph, prepared_onnx
from engines.tensorrt_build import Verbosity
from engines.tensorrt_build import build as build_engine
from engines.tensorrt_library import LIBRARIES, TensorRtLibrary, load_tensorrt
from engines.timing_cache import TimingCache
from serve_app.bucket_engines import EngineOptions, bucket_spec, engine_folder, pool_memory, wide_specs
from serve_app.cli.build_tables import EngineRow, engine_table, memory_lines
from serve_app.cli.console import errors, output
from serve_app.config import engine_cache_folder, load_plan, model_path, plan_path
from serve_app.errors import FramelaneError
from serve_app.plan import Plan, Runtime
from serve_app.plan_schema import MAX_WORKSPACE_MIB
from serve_app.precision_check import PrecisionCheck


def build(
    plan: Annotated[str, typer.Argument(help="The plan's YAML file, or bundled:NAME.")],
    cache: Annotated[
        Path | None, typer.Option(help="Folder of built engines. Default: the plan's.", show_default=False)
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(metavar="X.Y", help="For which GPU, such as 8.9; may be repeated. Default: the GPU here."),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="In which numbers they compute. Default: the plan's.", show_default=False)
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(help="Folder of frames on which FP16 must find what FP32 finds. Default: the plan's, or scenes."),
    ] = None,
    library: Annotated[
        str | None, typer.Option(help=f"Who builds: {' or '.join(LIBRARIES)}. Default: the first that is installed.")
    ] = None,
    workspace_mib: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_WORKSPACE_MIB, help="What one kernel may take for itself. Default: the plan's."),
    ] = None,
    verbosity: Annotated[
        Verbosity, typer.Option(help="What an engine tells a profiler of its layers.")
    ] = Verbosity.LEAN,
    compare_wide: Annotated[
        bool, typer.Option("--compare-wide", help="Build one engine over all canvases and batches too, to compare.")
    ] = False,
) -> None:
    """Build one TensorRT engine a bucket, with the narrow profile of its canvases and batches.

    TensorRT for RTX builds on any machine for any GPU; TensorRT builds for the GPU that is here. Engines that are in
    the folder already are taken from it.
    """
    loaded = _with_options(load_plan(plan_path(plan)), cache, precision, frames, workspace_mib)
    tensorrt = load_tensorrt(library)
    here = _gpu_here()
    folder = engine_folder(engine_cache_folder(loaded), tensorrt, here.name if here else None)
    check = PrecisionCheck(Path(loaded.engines.frames) if loaded.engines.frames else None)
    capability_here = here.compute_capability if here else None
    work = _Builder(tensorrt, EngineCache(folder), verbosity, capability_here, check, checks_all=frames is not None)
    models = {bucket.model for pool in _tensorrt_pools(loaded) for bucket in loaded.buckets_of(pool)}
    paths = {name: model_path(source) for name, source in loaded.models.items() if name in models}
    graphs = {name: prepared_onnx(path, loaded.engines.precision) for name, path in paths.items()}
    for capability in _capabilities(compute_capability, capability_here, tensorrt):
        options = EngineOptions(capability, loaded.engines.precision, loaded.engines.workspace_bytes)
        _build_all(loaded, paths, graphs, options, work, compare_wide=compare_wide)
    output.print(f"engines: {work.cache.folder}", highlight=False, soft_wrap=True)


def _with_options(
    plan: Plan, cache: Path | None, precision: Precision | None, frames: Path | None, workspace_mib: int | None
) -> Plan:
    """The plan, built as the command says where it says something."""
    given = {
        "cache": str(cache.expanduser()) if cache else None,
        "precision": precision,
        "frames": str(frames.expanduser()) if frames else None,
        "workspace_bytes": workspace_mib * 2**20 if workspace_mib else None,
    }
    said = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(plan, engines=dataclasses.replace(plan.engines, **said))  # type: ignore[arg-type]


def _build_all(
    plan: Plan,
    paths: Mapping[str, Path],
    graphs: Mapping[str, PreparedGraph],
    options: EngineOptions,
    work: _Builder,
    *,
    compare_wide: bool,
) -> None:
    """Build for one GPU, and print what the engines are and what they need."""
    rows = _build_buckets(plan, paths, graphs, options, work)
    title = f"compute capability {options.compute_capability}, {options.precision.value}, {work.library}"
    output.print(engine_table(rows, title))
    for pool in _tensorrt_pools(plan):
        names = [bucket.name for bucket in plan.buckets_of(pool)]
        memory = pool_memory([row.facts for row in rows if row.bucket in names])
        wide_bytes = None
        if compare_wide:
            specs = wide_specs(plan, pool, paths, options)
            wide = [work.engine(f"wide {model}", spec, graphs[model]).facts for model, spec in specs.items()]
            wide_bytes = pool_memory(wide).arena_bytes
        for line in memory_lines(pool, memory, wide_bytes):
            output.print(line, highlight=False, soft_wrap=True)


def _tensorrt_pools(plan: Plan) -> list[str]:
    """The pools that TensorRT serves, by name; all where it serves none, to see what their engines would be."""
    served = [pool.name for pool in plan.pools if pool.runtime is Runtime.TENSORRT]
    return served or [pool.name for pool in plan.pools]


@dataclass(frozen=True, slots=True)
class _Made:
    """An engine's facts, the bytes of its plan, how long it took to have it, and whether it was built for that."""

    facts: EngineFacts
    num_plan_bytes: int
    taken_s: float
    was_built: bool


@dataclass(frozen=True, slots=True)
class _Builder:
    """Builds engines one after the other, each with a progress bar.

    `checks_all`: graphs are compared also where their engines are in the folder: the user names frames now.
    """

    library: TensorRtLibrary
    cache: EngineCache
    verbosity: Verbosity
    device: ComputeCapability | None
    check: PrecisionCheck
    checks_all: bool

    def engine(self, name: str, spec: EngineSpec, graph: PreparedGraph) -> _Made:
        """Take one engine from the folder, or build it."""
        was_built = False
        started_s = time.perf_counter()
        if self.checks_all:
            self.check.check(spec, graph)
        with _progress() as shown:
            task = shown.add_task(f"{name}, {spec.compute_capability}", total=1.0)
            make = functools.partial(
                build_engine,
                timing_cache=TimingCache(self.cache.folder),
                on_progress=lambda fraction, _: shown.update(task, completed=fraction),
                verbosity=self.verbosity,
                device=self.device,
            )

            def build_it(spec: EngineSpec, graph: PreparedGraph, library: TensorRtLibrary) -> BuiltEngine:
                nonlocal was_built
                was_built = True
                self.check.check(spec, graph)
                return make(spec, graph, library)

            built = self.cache.get_or_build(spec, graph, self.library, build=build_it, verbosity=self.verbosity)
        return _Made(built.facts, len(built.plan_bytes), time.perf_counter() - started_s, was_built)


def _build_buckets(
    plan: Plan,
    paths: Mapping[str, Path],
    graphs: Mapping[str, PreparedGraph],
    options: EngineOptions,
    work: _Builder,
) -> list[EngineRow]:
    rows = []
    for bucket in (bucket for pool in _tensorrt_pools(plan) for bucket in plan.buckets_of(pool)):
        spec = bucket_spec(bucket, paths[bucket.model], options)
        made = work.engine(bucket.name, spec, graphs[bucket.model])
        rows.append(EngineRow(bucket.name, bucket.model, made.facts, made.num_plan_bytes, made.taken_s, made.was_built))
    return rows


def _gpu_here() -> DeviceFacts | None:
    """The first GPU that this process may see; None where there is none, or none that answers."""
    try:
        with closing(open_device(0)) as device:
            return device.facts()
    except EngineError:
        return None


def _capabilities(
    wanted: list[str] | None, here: ComputeCapability | None, library: TensorRtLibrary
) -> list[ComputeCapability]:
    """For which GPUs to build, each once."""
    if wanted:
        return list(dict.fromkeys(_parse_capability(text) for text in wanted))
    if here is not None:
        return [here]
    cure = "name it: --compute-capability 8.9" if library.is_rtx else "build on the machine that has it"
    raise EngineBuildError(f"compute capability: got none, and no GPU here that answers; {cure}")


def _parse_capability(text: str) -> ComputeCapability:
    match = re.fullmatch(r"(\d{1,2})\.(\d)", text, re.ASCII)
    if match is None:
        raise FramelaneError(
            f"--compute-capability: got {text!r}, allowed is MAJOR.MINOR, such as 8.9 "
            "(https://developer.nvidia.com/cuda-gpus lists them)"
        )
    return ComputeCapability(int(match[1]), int(match[2]))


def _progress() -> Progress:
    """A bar on standard error that disappears when it is done."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,  # it would leave empty lines in a log
    )
