"""What the tests on a GPU run with: the GPU, models, frames and sizes; the simulated run has small ones of its own.

Never run on a device so far.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.engine_spec import BuiltEngine, EngineSpec, Precision, ShapeProfile
from engines.prepared_graph import PreparedGraph, prepared_onnx
from engines.spec import CanvasShape, WarmShape
from engines.timing_cache import TimingCache
from serve_app.check_frames import drawn_scenes
from serve_app.config import model_path
from serve_app.tensorrt_pool import GpuParts, gpu_here

MODELS = ("inspection-light", "inspection-full")
# TensorRT measures kernels while it builds: minutes for a large profile.
TIMEOUT_S = 1800


@dataclass(frozen=True)
class Machine:
    """A GPU and what is done with it.

    Attributes:
        parts: the GPU afresh; whoever opens it closes it.
        driver_version: of NVIDIA's driver.
        folder: of built engines and of models that tests make; each engine is built once in a run.
        models: bundled ones, by name.
        frames_hwc: on which runners are compared.
        large: the shape whose activations are weighed.
        shapes: those of the benchmark.
        repeats: timed batches of each.
    """

    parts: Callable[[], GpuParts]
    driver_version: Callable[[], str]
    folder: Path
    models: Mapping[str, Path]
    frames_hwc: list[Any]
    large: WarmShape
    shapes: tuple[WarmShape, ...]
    repeats: int


def gpu_machine(folder: Path) -> Machine:
    """The real one."""
    return Machine(
        parts=gpu_here,
        driver_version=_driver_version,
        folder=folder,
        models={name: model_path(f"bundled:{name}") for name in MODELS},
        frames_hwc=[frame.image_hwc for frame in drawn_scenes()],
        large=WarmShape(CanvasShape(1280, 1280), 8),
        shapes=tuple(
            WarmShape(CanvasShape(*size), batch)
            for size, batches in (((320, 320), (1, 8)), ((640, 640), (1, 8)), ((1088, 1920), (1, 2)))
            for batch in batches
        ),
        repeats=50,
    )


def built_engine(
    machine: Machine, parts: GpuParts, path: Path, precision: Precision, profile: ShapeProfile
) -> tuple[BuiltEngine, PreparedGraph]:
    """An engine of a model and its graph, built unless an earlier test has."""
    graph, cache = prepared_onnx(path, precision), parts.cache_in(machine.folder)
    spec = EngineSpec(path, profile, precision, parts.compute_capability)
    build = parts.build_with(TimingCache(cache.folder))
    return cache.get_or_build(spec, graph, parts.library, build=build), graph


def _driver_version() -> str:
    pynvml = importlib.import_module("pynvml")
    pynvml.nvmlInit()
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()
