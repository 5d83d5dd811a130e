"""Which TensorRT engine each bucket of a plan is served by, where it lies, what a pool's engines need together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.engine_spec import ComputeCapability, EngineFacts, EngineSpec, Precision, ShapeProfile
from engines.tensorrt_library import TensorRtLibrary
from serve_app.plan import Bucket, Plan


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a plan's engines have in common.

    Attributes:
        compute_capability: of the GPU that they are for.
        precision: in which numbers they compute.
        workspace_bytes: what one kernel may take for itself; None: the builder's own choice.
    """

    compute_capability: ComputeCapability
    precision: Precision = Precision.FP16
    workspace_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """Device memory that one replica of a pool needs for its engines.

    Attributes:
        arena_bytes: the activations of all its engines, which share one buffer: the largest need of any.
        sum_bytes: what the activations would take with a buffer for each engine.
        weights_bytes: the weights of all its engines.
    """

    arena_bytes: int
    sum_bytes: int
    weights_bytes: int


def bucket_spec(bucket: Bucket, model_path: Path, options: EngineOptions) -> EngineSpec:
    """The engine of one bucket: the narrowest profile that holds its canvases and batches."""
    return _spec(model_path, ShapeProfile.around(bucket.canvases, bucket.batches), options)


def wide_specs(
    plan: Plan, pool: str, model_paths: Mapping[str, Path], options: EngineOptions
) -> Mapping[str, EngineSpec]:
    """What the engines of a pool would be without buckets: one a model, over all its canvases and batches."""
    specs: dict[str, EngineSpec] = {}
    for model, path in model_paths.items():
        buckets = [bucket for bucket in plan.buckets_of(pool) if bucket.model == model]
        if buckets:
            canvases = [canvas for bucket in buckets for canvas in bucket.canvases]
            batches = sorted({batch for bucket in buckets for batch in bucket.batches})
            specs[model] = _spec(path, ShapeProfile.around(canvases, batches), options)
    return specs


def pool_memory(facts: Sequence[EngineFacts]) -> PoolMemory:
    """What these engines of one replica need; at least one."""
    activations = [engine.activation_bytes for engine in facts]
    return PoolMemory(max(activations), sum(activations), sum(engine.weights_bytes for engine in facts))


def engine_folder(folder: Path, library: TensorRtLibrary, device_name: str | None) -> Path:
    """Where engines lie below a folder of them.

    TensorRT measures its kernels on the very model of GPU that is there, so each model has a folder of its own. What
    TensorRT for RTX builds is for a compute capability, whoever has it.
    """
    if library.is_rtx or device_name is None:
        return folder
    return folder / (re.sub(r"[^A-Za-z0-9.-]+", "-", device_name).strip("-.") or "gpu")


def _spec(model_path: Path, profile: ShapeProfile, options: EngineOptions) -> EngineSpec:
    return EngineSpec(
        model_path, profile, options.precision, options.compute_capability, workspace_bytes=options.workspace_bytes
    )
