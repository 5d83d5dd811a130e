"""From a prepared ONNX graph to a serialised TensorRT engine with one narrow profile.

One way for TensorRT 10, 11 and TensorRT for RTX; where they differ stands in `tensorrt_library`. TensorRT for RTX
builds here without a GPU, for any. Nothing that it built has run on a device, and plain TensorRT has not run at all.
"""

from __future__ import annotations

import gc
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum
from typing import Any

from engines.build_progress import BuildProgress, BuildWatch, make_monitor
from engines.builder_log import BuilderLog, make_logger
from engines.engine_spec import BuiltEngine, ComputeCapability, EngineFacts, EngineSpec, Precision
from engines.errors import EngineBuildError
from engines.graph import INPUT_NAME
from engines.prepared_graph import PreparedGraph
from engines.spec import WarmShape, check_shapes
from engines.tensorrt_library import TensorRtLibrary, set_target, strongly_typed_flags
from engines.timing_cache import TimingCache

# ONNX Runtime's quantizer writes int32 biases and uint8 activations unless it is told not to; TensorRT takes neither.
QUANTIZED_CURE = (
    "in a graph with Q/DQ nodes TensorRT takes symmetric int8 weights and activations and float biases: quantize it "
    "again so (in ONNX Runtime QInt8, ActivationSymmetric, and QuantizeBias false)"
)
_BUILDING = threading.Lock()


class Verbosity(Enum):
    """What an engine can tell a profiler of its layers."""

    LEAN = "lean"
    """Their names; the library's default."""
    DETAILED = "detailed"
    """Their formats and kernels too: a larger file, for looking into an engine."""


def build(
    spec: EngineSpec,
    graph: PreparedGraph,
    library: TensorRtLibrary,
    *,
    timing_cache: TimingCache | None = None,
    on_progress: BuildProgress | None = None,
    verbosity: Verbosity = Verbosity.LEAN,
    device: ComputeCapability | None = None,
) -> BuiltEngine:
    """Build one engine; takes from a second to many minutes, and every core it can get.

    All of it runs in a thread of its own. Python raises an interrupt in the main thread only, and inside a callback of
    the library that would be lost, or end the process. So it reaches the caller, once the builder has stopped at its
    next step.

    Args:
        spec: what to build.
        graph: the ONNX graph of `spec.model_path` in `spec.precision`.
        library: the TensorRT that builds.
        timing_cache: timings of earlier builds; only plain TensorRT has any.
        on_progress: told how far the build is; what it raises stops the build and is raised here.
        verbosity: what the engine can tell of its layers.
        device: compute capability of the GPU that is there; plain TensorRT builds for no other.

    Raises:
        CanvasError: the model cannot take a shape of the profile.
        EngineBuildError: the parser or the builder refused; says why.
    """
    check_shapes(_corners(spec), graph.info)
    watch = BuildWatch(on_progress)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tensorrt-build") as thread:
        running = thread.submit(
            _build_here, spec, graph, library, watch, timing_cache=timing_cache, verbosity=verbosity, device=device
        )
        try:
            return running.result()
        except BaseException:
            watch.cancel()  # leaving the block waits until the builder has stopped
            raise
        finally:
            del running  # it holds the exception, whose traceback holds this frame


def _build_here(
    spec: EngineSpec,
    graph: PreparedGraph,
    library: TensorRtLibrary,
    watch: BuildWatch,
    *,
    timing_cache: TimingCache | None,
    verbosity: Verbosity,
    device: ComputeCapability | None,
) -> BuiltEngine:
    """The build itself: every call of the library that may call back is made here, never in the main thread.

    A builder that is freed while another is being made stops the whole process: making one holds a lock of the library
    and calls the logger, freeing one holds Python's lock and waits for the library's (seen with TensorRT for RTX
    1.7.1). So a process makes one build at a time, its garbage collector rests meanwhile, and no traceback keeps a
    builder.
    """
    with _BUILDING, _collector_paused():
        try:
            return _build_alone(
                spec, graph, library, watch, timing_cache=timing_cache, verbosity=verbosity, device=device
            )
        except BaseException as err:
            traceback.clear_frames(err.__traceback__)
            raise


def _build_alone(
    spec: EngineSpec,
    graph: PreparedGraph,
    library: TensorRtLibrary,
    watch: BuildWatch,
    *,
    timing_cache: TimingCache | None,
    verbosity: Verbosity,
    device: ComputeCapability | None,
) -> BuiltEngine:
    started_s = time.perf_counter()
    log = BuilderLog()
    module, logger = library.module, make_logger(library.module, log)
    builder = module.Builder(logger)
    network = builder.create_network(strongly_typed_flags(library))
    _parse(module.OnnxParser(network, logger), graph, spec, log)
    config = builder.create_builder_config()
    set_target(library, config, spec.compute_capability, device)
    _configure(module, config, spec, verbosity)
    _add_profile(builder, network, config, spec, log)
    if timing_cache is not None:
        timing_cache.attach(config, library, spec.compute_capability)
    monitor = make_monitor(module, watch)  # the configuration does not keep it alive
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if watch.failure is not None:
        raise watch.failure
    if plan is None:
        raise _refused(spec, library, log.reason)
    if log.impossible_shape is not None:
        raise _refused(spec, library, log.impossible_shape)
    if timing_cache is not None:
        timing_cache.keep(config, library, spec.compute_capability)
    plan_bytes = bytes(plan)
    facts = EngineFacts(
        library=library.name,
        library_version=library.version,
        compute_capability=spec.compute_capability,
        precision=spec.precision,
        profile=spec.profile,
        onnx_sha256=graph.sha256,
        activation_bytes=_activation_bytes(log, library, logger, plan_bytes),
        weights_bytes=log.weights_bytes or len(plan_bytes),
        build_s=time.perf_counter() - started_s,
    )
    return BuiltEngine(plan_bytes, facts)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python from freeing what lies in reference cycles; what is counted is freed as ever."""
    was_running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_running:
            gc.enable()


def _corners(spec: EngineSpec) -> tuple[WarmShape, WarmShape, WarmShape]:
    return spec.profile.min_shape, spec.profile.opt_shape, spec.profile.max_shape


def _parse(parser: Any, graph: PreparedGraph, spec: EngineSpec, log: BuilderLog) -> None:
    """Fill the network; every error names its node."""
    if parser.parse(graph.onnx_bytes):
        return
    problems = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = f"node {error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
        problems.append(f"{node}{' '.join(error.desc().split())[:200]}")
    cure = QUANTIZED_CURE if spec.precision is Precision.AS_IS else "export it again with framelane export"
    raise EngineBuildError(
        f"model {spec.model_path}: got a graph that TensorRT cannot parse ({'; '.join(problems) or log.reason}); {cure}"
    )


def _configure(module: Any, config: Any, spec: EngineSpec, verbosity: Verbosity) -> None:
    if spec.workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, spec.workspace_bytes)
    levels = module.ProfilingVerbosity
    config.profiling_verbosity = levels.DETAILED if verbosity is Verbosity.DETAILED else levels.LAYER_NAMES_ONLY
    # Lets a context ask for the memory of its own shape instead of the profile's largest; since TensorRT 10.10.
    feature = getattr(module.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10", None)
    if feature is not None:
        config.set_preview_feature(feature, True)  # positional in the bindings
    # On Ampere and newer it would multiply FP32 with ten bits of mantissa; whoever asks for fewer bits says so.
    if spec.precision is not Precision.AS_IS:
        config.clear_flag(module.BuilderFlag.TF32)
    # TensorRT for RTX captures a CUDA graph only of engines that never allocate by themselves (its 1.2 release notes).
    flag = getattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    if flag is not None:
        config.set_flag(flag)


def _add_profile(builder: Any, network: Any, config: Any, spec: EngineSpec, log: BuilderLog) -> None:
    """Give the builder the one profile, and read back that it took it as it was meant."""
    if network.num_inputs != 1 or network.get_input(0).name != INPUT_NAME:
        names = ", ".join(network.get_input(index).name for index in range(network.num_inputs)) or "none"
        raise EngineBuildError(f"model {spec.model_path}: got the inputs {names}, allowed is {INPUT_NAME} alone")
    wanted = [(shape.batch, *shape.canvas, 3) for shape in _corners(spec)]
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT_NAME, *wanted)
    index = config.add_optimization_profile(profile)
    if index != 0:
        raise EngineBuildError(f"model {spec.model_path}: got a refusal of the profile {spec.profile} ({log.reason})")
    taken = [tuple(shape) for shape in profile.get_shape(INPUT_NAME)]
    if taken != wanted:
        raise EngineBuildError(f"model {spec.model_path}: wanted the profile {wanted}, but the builder took {taken}")


def _activation_bytes(log: BuilderLog, library: TensorRtLibrary, logger: Any, plan_bytes: bytes) -> int:
    """From the builder's log, since without a GPU nothing can be asked; else from the engine itself."""
    if log.activation_bytes is not None:
        return log.activation_bytes
    engine = library.module.Runtime(logger).deserialize_cuda_engine(plan_bytes)
    if engine is None:
        raise EngineBuildError(
            f"{library}: got a build without the line 'Total Activation Memory' in its log, and no GPU to ask the "
            "engine itself; build on a machine with a GPU, or with a version of the library that prints it"
        )
    return int(engine.device_memory_size_v2)


def _refused(spec: EngineSpec, library: TensorRtLibrary, reason: str) -> EngineBuildError:
    is_limited = spec.workspace_bytes is not None
    workspace = f", workspace {spec.workspace_bytes} bytes" if is_limited else ""
    cures = f"{'allow a larger workspace, ' if is_limited else ''}choose other canvases, or export the model again"
    return EngineBuildError(
        f"model {spec.model_path}: got the profile {spec.profile}, precision {spec.precision.value}, compute "
        f"capability {spec.compute_capability}{workspace}; {library} refuses to build it ({reason}); {cures} with "
        "framelane export"
    )
