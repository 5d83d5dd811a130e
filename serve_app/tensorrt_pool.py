"""The engines of a TensorRT pool's replica: found or built before it is ready, and sharing one GPU.

Its parts have run on stand-ins of driver and runtime (simulated); no line of it has run on a device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.device_facts import Device, DeviceFacts, open_device
from engines.engine_cache import Build, EngineCache
from engines.engine_spec import BuiltEngine, ComputeCapability, EngineSpec
from engines.errors import DeviceError
from engines.gpu_device import GpuDevice
from engines.prepared_graph import PreparedGraph, prepared_onnx
from engines.tensorrt_build import build
from engines.tensorrt_library import TensorRtLibrary, load_tensorrt
from engines.tensorrt_run import TensorRtEngine
from engines.timing_cache import TimingCache
from serve_app.bucket_engines import EngineOptions, bucket_spec, engine_folder
from serve_app.config import model_path
from serve_app.engine_supply import Store, engine_for
from serve_app.plan import Plan
from serve_app.pool_engines import PoolEngines
from serve_app.precision_check import PrecisionCheck

# Ray shows a replica the GPUs that it has reserved, and each replica uses the first.
ORDINAL = 0


@dataclass(frozen=True, slots=True)
class GpuParts:
    """What the engines of a replica are made with.

    Attributes:
        library: the TensorRT that builds and runs.
        facts: of the GPU, as it is before it is used.
        nvml: to ask it later.
        device: the GPU, not yet open.
        build: builds one engine; `engines.tensorrt_build.build`.
    """

    library: TensorRtLibrary
    facts: DeviceFacts
    nvml: Device
    device: GpuDevice
    build: Callable[..., BuiltEngine] = build

    @property
    def compute_capability(self) -> ComputeCapability:
        """For which engines are built; raises `DeviceError` where the driver does not say."""
        if self.facts.compute_capability is None:
            raise DeviceError(
                f"GPU {self.facts.name}: its driver does not say which compute capability it has, so no engine can be "
                "chosen for it; update the driver"
            )
        return self.facts.compute_capability

    def cache_in(self, folder: Path) -> EngineCache:
        """The engines that are good for this GPU, in a folder of built engines."""
        return EngineCache(engine_folder(folder, self.library, self.facts.name))

    def build_with(self, timings: TimingCache) -> Build:
        """The builder for this GPU, as a cache calls it."""

        def build_here(spec: EngineSpec, graph: PreparedGraph, library: TensorRtLibrary) -> BuiltEngine:
            return self.build(spec, graph, library, timing_cache=timings, device=self.facts.compute_capability)

        return build_here

    def close(self) -> None:
        """Free what is on the GPU, and ask it no more; calling it again does nothing."""
        self.device.close()
        self.nvml.close()


def gpu_here() -> GpuParts:
    """The real parts: whichever TensorRT is installed, and the first GPU that this process may see.

    Raises:
        EngineLibraryError: no TensorRT, no driver, or no NVML.
        DeviceError: no GPU for this process.
    """
    library, nvml = load_tensorrt(), open_device(ORDINAL)
    try:
        return GpuParts(library, nvml.facts(), nvml, GpuDevice(ORDINAL))
    except BaseException:
        nvml.close()
        raise


def tensorrt_engines(
    plan: Plan, pool: str, *, parts: GpuParts, folder: Path, store: Store | None, claimant: str
) -> PoolEngines:
    """The engines of a pool, each from this machine's cache, from the cluster's store, or built now.

    Args:
        plan: whose buckets.
        pool: which of its pools.
        parts: the GPU and the library.
        folder: of built engines on this machine; see `bucket_engines.engine_folder`.
        store: of the cluster; None: there is none.
        claimant: names this process in the cluster, unlike any other.

    Raises:
        EngineError: no engine of this plan can be built or run here; says why, and `parts` are closed.
    """
    try:
        engines = _engines(plan, pool, parts, parts.cache_in(folder), store, claimant)
    except BaseException:
        parts.close()
        raise
    return PoolEngines(engines, parts.nvml, parts.close)


def _engines(
    plan: Plan, pool: str, parts: GpuParts, cache: EngineCache, store: Store | None, claimant: str
) -> dict[str, TensorRtEngine]:
    options = EngineOptions(parts.compute_capability, plan.engines.precision, plan.engines.workspace_bytes)
    check = PrecisionCheck(Path(plan.engines.frames) if plan.engines.frames else None)
    build_here = parts.build_with(TimingCache(cache.folder))

    def checked_build(spec: EngineSpec, graph: PreparedGraph, library: TensorRtLibrary) -> BuiltEngine:
        check.check(spec, graph)
        return build_here(spec, graph, library)

    graph_of = functools.lru_cache(maxsize=None)(prepared_onnx)
    parts.device.open()
    engines = {}
    for bucket in plan.buckets_of(pool):
        spec = bucket_spec(bucket, model_path(plan.models[bucket.model]), options)
        graph = graph_of(spec.model_path, spec.precision)
        built = engine_for(
            spec, graph, parts.library, cache=cache, build=checked_build, store=store, claimant=claimant,
            device_name=parts.facts.name,
        )  # fmt: skip
        engines[bucket.name] = TensorRtEngine(
            built, graph.info, library=parts.library, device=parts.device, limits=plan.detection
        )
    return engines
