"""The build with plain TensorRT, on a stand-in of its builder: simulated, it has neither built nor run here.

What the real builder of TensorRT for RTX does is tested in `tests/tensorrt`.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.engine_spec import ComputeCapability, EngineSpec, Precision, ShapeProfile
from engines.errors import EngineBuildError
from engines.prepared_graph import PreparedGraph
from engines.spec import CanvasShape, HeadKind, ModelInfo
from engines.tensorrt_build import Verbosity, build
from engines.tensorrt_library import TensorRtLibrary
from engines.timing_cache import TimingCache

L4 = ComputeCapability(8, 9)
SPEC = EngineSpec(
    Path("belt.onnx"),
    ShapeProfile.around([CanvasShape(480, 640)], [1, 4]),
    Precision.FP32,
    L4,
    workspace_bytes=2**20,
)
GRAPH = PreparedGraph(b"onnx", ModelInfo(("part",), 32, HeadKind.RAW), sha256="ab" * 32, weights_bytes=7)
MEMORY_LINES = ("Total Activation Memory: 1000 bytes", "Total Weights Memory: 70 bytes")


class SimulatedTimings:
    """A timing cache that counts its kernels."""

    def __init__(self, stored) -> None:
        self.kernels = stored

    def serialize(self):
        """Its bytes."""
        return self.kernels

    def combine(self, other, _ignore_mismatch):
        """Keep what both know."""
        self.kernels = max(self.kernels, other.kernels, key=len)
        return True


class SimulatedConfig:
    """A builder configuration."""

    profiling_verbosity = progress_monitor = timings = None

    def __init__(self, told) -> None:
        self.told = told

    def set_memory_pool_limit(self, pool, num_bytes):
        """Note the limit."""
        self.told[pool] = num_bytes

    def clear_flag(self, flag):
        """Note what is off."""
        self.told[flag] = False

    def set_preview_feature(self, feature, enable):
        """Note the feature."""
        self.told[feature] = enable

    def add_optimization_profile(self, profile):
        """Its index."""
        return 0 if profile.shapes else -1

    def create_timing_cache(self, stored):
        """One with these timings."""
        return SimulatedTimings(stored)

    def set_timing_cache(self, timings, _ignore_mismatch):
        """Use it."""
        self.timings = timings
        return True

    def get_timing_cache(self):
        """The one in use."""
        return self.timings


class SimulatedProfile:
    """An optimisation profile."""

    shapes = ()

    def set_shape(self, _name, *shapes):
        """Keep the corners."""
        self.shapes = shapes

    def get_shape(self, _name):
        """The corners, as the bindings give them."""
        return [list(shape) for shape in self.shapes]


class SimulatedBuilder:
    """A builder whose builds take two steps and measure one kernel."""

    create_optimization_profile = SimulatedProfile

    def __init__(self, module, logger) -> None:
        self.module, self.logger = module, logger

    def create_network(self, flags):
        """A network with the runner's input."""
        self.module.told["flags"] = flags
        frames = SimpleNamespace(name="frames_nhwc")
        return SimpleNamespace(num_inputs=1, get_input=lambda _index: frames)

    def create_builder_config(self):
        """An empty one."""
        return SimulatedConfig(self.module.told)

    def build_serialized_network(self, _network, config):
        """The plan; None if the monitor says stop."""
        self.module.told["verbosity"] = config.profiling_verbosity
        config.progress_monitor.phase_start("Building engine", None, 2)
        for step in range(2):
            if not config.progress_monitor.step_complete("Building engine", step):
                return None
        if config.timings is not None:
            config.timings.kernels += b"k"
        for line in self.module.lines:
            self.logger.log(SimpleNamespace(name="INFO"), line)
        return b"the plan"


class SimulatedTensorRt:
    """The part of TensorRT's module that a build touches; records what it was told.

    Attributes:
        lines: what the builder logs.
        engine_memory: what a deserialised engine says it needs; None: it cannot be deserialised.
        told: the options that the builder was given.
    """

    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    BuilderFlag = SimpleNamespace(TF32="tf32")
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    ProfilingVerbosity = SimpleNamespace(DETAILED="detailed", LAYER_NAMES_ONLY="names")
    ILogger = IProgressMonitor = object

    def __init__(self, lines=MEMORY_LINES, engine_memory=None, *, has_resize=True) -> None:
        self.lines, self.engine_memory = lines, engine_memory
        self.told = {}
        self.PreviewFeature = SimpleNamespace(RUNTIME_ACTIVATION_RESIZE_10_10="resize") if has_resize else object()

    def Builder(self, logger):  # noqa: N802  # the bindings' name
        """A builder."""
        return SimulatedBuilder(self, logger)

    def OnnxParser(self, _network, _logger):  # noqa: N802
        """A parser that takes everything."""
        return SimpleNamespace(parse=lambda _content: True)

    def Runtime(self, _logger):  # noqa: N802
        """A runtime with one engine."""
        engine = self.engine_memory and SimpleNamespace(device_memory_size_v2=self.engine_memory)
        return SimpleNamespace(deserialize_cuda_engine=lambda _plan: engine)


def library_of(module):
    """TensorRT 11, simulated."""
    return TensorRtLibrary("tensorrt", "11.4.0.106", module)


def test_the_builder_is_told_what_the_spec_says():
    """A strongly typed network, the workspace's limit, the verbosity, memory that shrinks with the shape."""
    module = SimulatedTensorRt()
    engine = build(SPEC, GRAPH, library_of(module), device=L4, verbosity=Verbosity.DETAILED)
    assert module.told == {"flags": 2, "workspace": 2**20, "verbosity": "detailed", "resize": True, "tf32": False}
    assert engine.plan_bytes == b"the plan"
    assert (engine.facts.library, engine.facts.activation_bytes, engine.facts.weights_bytes) == ("tensorrt", 1000, 70)


def test_a_version_without_the_preview_feature_builds_all_the_same():
    """It came with TensorRT 10.10."""
    module = SimulatedTensorRt(has_resize=False)
    build(SPEC, GRAPH, library_of(module), device=L4)
    assert "resize" not in module.told


@pytest.mark.parametrize("device", [None, ComputeCapability(9, 0)], ids=["no-gpu", "another-gpu"])
def test_nothing_is_built_for_a_gpu_that_is_not_there(device):
    """The error comes before the build."""
    module = SimulatedTensorRt()
    with pytest.raises(EngineBuildError, match="builds only for the GPU that is there"):
        build(SPEC, GRAPH, library_of(module), device=device)
    assert "verbosity" not in module.told


def test_a_profile_that_the_builder_takes_otherwise_is_refused(monkeypatch):
    """What was asked is read back, so that facts never say more than the engine can."""
    monkeypatch.setattr(SimulatedProfile, "get_shape", lambda *_: [[1, 480, 640, 3]] * 3)
    with pytest.raises(EngineBuildError, match=r"wanted the profile .*\(4, 480, 640, 3\).* took .*\(1, 480, 640, 3\)"):
        build(SPEC, GRAPH, library_of(SimulatedTensorRt()), device=L4)


def test_memory_that_the_log_does_not_give_is_asked_of_the_engine():
    """Where there is a GPU an engine can be deserialised; its word counts."""
    module = SimulatedTensorRt(lines=(), engine_memory=4096)
    facts = build(SPEC, GRAPH, library_of(module), device=L4).facts
    assert (facts.activation_bytes, facts.weights_bytes) == (4096, len(b"the plan"))


def test_an_engine_of_unknown_memory_is_refused():
    """An arena of a guessed size would be overrun."""
    module = SimulatedTensorRt(lines=())
    with pytest.raises(EngineBuildError, match="without the line 'Total Activation Memory' in its log"):
        build(SPEC, GRAPH, library_of(module), device=L4)


def test_each_build_adds_its_timings_to_those_before(tmp_path):
    """Three builds, three kernels."""
    timings, library = TimingCache(tmp_path), library_of(SimulatedTensorRt())
    for _ in range(3):
        build(SPEC, GRAPH, library, device=L4, timing_cache=timings)
    assert timings.path(library, L4).read_bytes() == b"kkk"


def test_a_build_that_was_stopped_leaves_no_timings(tmp_path):
    """What it measured may be half."""

    def stop(_fraction, _phase):
        raise KeyError("stop")

    timings, library = TimingCache(tmp_path), library_of(SimulatedTensorRt())
    with pytest.raises(KeyError, match="stop"):
        build(SPEC, GRAPH, library, device=L4, timing_cache=timings, on_progress=stop)
    assert list(tmp_path.iterdir()) == []
