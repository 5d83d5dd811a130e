"""Real builds with TensorRT for RTX on a machine without a GPU. No engine of these has run on a device."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from engines.engine_cache import EngineCache
from engines.engine_spec import ComputeCapability, EngineSpec, Precision, ShapeProfile
from engines.errors import CanvasError, EngineBuildError, EngineLibraryError
from engines.prepared_graph import PreparedGraph, prepared_onnx
from engines.spec import CanvasShape
from engines.tensorrt_build import Verbosity, build
from engines.tensorrt_library import load_tensorrt
from engines.timing_cache import TimingCache

pytestmark = pytest.mark.tensorrt

ROOT = Path(__file__).resolve().parents[2]
LIGHT = ROOT / "examples/inspection/framelane_inspection/models/inspection-light.onnx"
ADA, BLACKWELL = ComputeCapability(8, 9), ComputeCapability(12, 0)
# Wide, tall and with an optimum that is neither the smallest nor the largest: no two corners are alike.
CANVASES = [CanvasShape(448, 384), CanvasShape(320, 512), CanvasShape(480, 352)]


@pytest.fixture(scope="module")
def library():
    """TensorRT for RTX."""
    return load_tensorrt("tensorrt_rtx")


@pytest.fixture(scope="module")
def graph():
    """The small bundled model."""
    return prepared_onnx(LIGHT, Precision.FP32)


def spec_of(canvases=CANVASES, batches=(1, 2, 8), capability=ADA, **keywords):
    """An engine of the small bundled model."""
    profile = ShapeProfile.around(canvases, batches)
    return EngineSpec(LIGHT, profile, Precision.FP32, capability, **keywords)


def with_stride(graph, stride_px):
    """The same graph, said to take other canvases than it does."""
    return dataclasses.replace(graph, info=dataclasses.replace(graph.info, stride_px=stride_px))


def changed(graph, change):
    """The graph after `change(model)`."""
    model = onnx.load_model_from_string(graph.onnx_bytes)
    change(model)
    content = model.SerializeToString()
    return PreparedGraph(content, graph.info, hashlib.sha256(content).hexdigest(), graph.weights_bytes)


@pytest.fixture(scope="module")
def built(graph, library):
    """An engine with three different corners, and what its build told."""
    told = []
    engine = build(spec_of(), graph, library, on_progress=lambda fraction, phase: told.append((fraction, phase)))
    return engine, told


def test_an_engine_carries_the_profile_that_was_asked_for(built):
    """Each corner stands in the plan as (batch, height, width, channels); nothing can be deserialised without a GPU."""
    engine, _ = built
    assert engine.facts.profile == spec_of().profile
    for corner in [(1, 320, 352, 3), (8, 448, 384, 3), (8, 480, 512, 3)]:
        assert engine.plan_bytes.count(struct.pack("<4q", *corner)) >= 1, corner
    for other in [(1, 320, 320, 3), (8, 512, 512, 3), (8, 480, 480, 3)]:
        assert struct.pack("<4q", *other) not in engine.plan_bytes, other


def test_the_facts_say_what_was_built(built, graph, library):
    """Who, for what, from which graph; weights are those of the graph, activations more than the input alone."""
    facts = built[0].facts
    assert (facts.library, facts.library_version) == ("tensorrt_rtx", library.version)
    assert (facts.compute_capability, facts.precision, facts.onnx_sha256) == (ADA, Precision.FP32, graph.sha256)
    assert facts.weights_bytes == pytest.approx(graph.weights_bytes, rel=0.05)
    assert facts.activation_bytes > 8 * 480 * 512 * 3 * 4
    assert facts.build_s > 0


def test_progress_only_grows_and_reaches_the_end(built):
    """From nothing to 1, in many steps, each with the phase that the builder is in."""
    fractions = [fraction for fraction, _ in built[1]]
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert fractions == sorted(fractions)
    assert len(set(fractions)) > 100
    assert all(phase for _, phase in built[1])


def test_half_the_numbers_take_about_half_the_memory(built, library):
    """An FP16 graph becomes an FP16 engine: precision is a property of the graph alone."""
    half = prepared_onnx(LIGHT, Precision.FP16)
    spec = dataclasses.replace(spec_of(), precision=Precision.FP16)
    facts, full = build(spec, half, library).facts, built[0].facts
    assert 0.45 < facts.weights_bytes / full.weights_bytes < 0.6
    assert 0.45 < facts.activation_bytes / full.activation_bytes < 0.75


@pytest.mark.parametrize("verbosity", Verbosity, ids=lambda v: v.value)
def test_options_of_a_build_are_taken(graph, library, verbosity, tmp_path):
    """Workspace limit, verbosity and a timing cache, which does nothing here, are no obstacle."""
    spec = spec_of([CanvasShape(320, 320)], [1], workspace_bytes=64 * 2**20)
    engine = build(spec, graph, library, verbosity=verbosity, timing_cache=TimingCache(tmp_path))
    assert engine.facts.activation_bytes > 0
    assert list(tmp_path.iterdir()) == []


def test_the_timing_cache_of_tensorrt_for_rtx_still_does_nothing(library):
    """The reason why it is left out; a version in which it works would make this test fail."""
    config = library.module.Builder(library.module.Logger()).create_builder_config()
    timings = config.create_timing_cache(b"")
    with pytest.warns(DeprecationWarning, match="Timing cache operations are no-ops"):
        config.set_timing_cache(timings, False)


def test_two_gpus_give_two_files(graph, library, tmp_path):
    """One folder serves a cluster of both, and each engine is built once."""
    cache, builds = EngineCache(tmp_path), []

    def counting(spec, graph, library):
        builds.append(spec.compute_capability)
        return build(spec, graph, library)

    specs = [spec_of([CanvasShape(320, 320)], [1], capability) for capability in (ADA, BLACKWELL)]
    first = [cache.get_or_build(spec, graph, library, build=counting) for spec in specs]
    again = [cache.get_or_build(spec, graph, library, build=counting) for spec in specs]
    assert builds == [ADA, BLACKWELL]
    assert [engine.plan_bytes for engine in first] == [engine.plan_bytes for engine in again]
    assert sorted(path.name.split("_")[-2] for path in tmp_path.glob("*.engine")) == ["sm120", "sm89"]


def test_a_gpu_that_the_library_does_not_know_is_refused_with_those_it_does(graph, library):
    """Compute capability 9.0 is a data centre's GPU, which TensorRT for RTX does not serve."""
    with pytest.raises(EngineBuildError, match=r"got 9\.0, allowed with tensorrt_rtx .* are .*8\.9.*12\.0"):
        build(spec_of(capability=ComputeCapability(9, 0)), graph, library)


def test_a_canvas_off_the_stride_never_reaches_the_builder(graph, library):
    """The message names the next canvas that fits."""
    with pytest.raises(CanvasError, match="multiples of the model's stride, 32; the next one up is 672x672"):
        build(spec_of([CanvasShape(641, 641)], [1]), graph, library)


def test_a_canvas_that_the_network_cannot_take_is_refused_with_the_builders_reason(graph, library):
    """The model claims a stride that is not its own; the builder names the layer and the sizes."""
    with pytest.raises(EngineBuildError) as caught:
        build(spec_of([CanvasShape(641, 641)], [1]), with_stride(graph, 1), library)
    assert "/model.11/Concat: axis 2 dimensions must be equal" in str(caught.value)
    assert "1x641x641" in str(caught.value)
    assert "/_src/" not in str(caught.value)


def test_a_largest_canvas_that_cannot_run_is_refused_although_the_builder_only_warns(graph, library):
    """It would give an engine, which fails when the first such batch comes."""
    canvases = [CanvasShape(320, 320), CanvasShape(641, 641)]
    with pytest.raises(EngineBuildError, match="Profile kMAX values are not self-consistent"):
        build(spec_of(canvases, [1]), with_stride(graph, 1), library)


def test_a_profile_whose_optimum_lies_outside_is_refused(graph, library):
    """`ShapeProfile.around` cannot make one; who makes one by hand is told."""
    spec = spec_of([CanvasShape(320, 320)], [1, 2])
    profile = dataclasses.replace(spec.profile, opt_shape=spec.profile.opt_shape._replace(batch=3))
    with pytest.raises(EngineBuildError, match=r"refusal of the profile.*MIN<=OPT<=MAX"):
        build(dataclasses.replace(spec, profile=profile), graph, library)


def test_an_operator_that_the_library_does_not_have_is_named_with_its_node(graph, library):
    """So that its owner can find it in the model."""

    def use_a_plugin(model):
        sigmoid = next(node for node in model.graph.node if node.op_type == "Sigmoid")
        sigmoid.op_type, sigmoid.domain, sigmoid.name = "MadeUp", "made.up", "the made-up one"
        model.opset_import.add(domain="made.up", version=1)

    with pytest.raises(EngineBuildError, match=r"node the made-up one \(MadeUp\): .*[Pp]lugin"):
        build(spec_of(), changed(graph, use_a_plugin), library)


def test_a_quantized_graph_that_is_refused_is_told_how_to_be_quantized(graph, library):
    """ONNX Runtime's quantizer writes int32 biases by default, which no new export mends."""

    def quantize_a_bias(model):
        conv = next(node for node in model.graph.node if node.op_type == "Conv" and len(node.input) == 3)
        bias = next(one for one in model.graph.initializer if one.name == conv.input[2])
        scale = numpy_helper.from_array(np.float32(0.001), "bias_scale")
        zeros = numpy_helper.from_array(np.zeros(tuple(bias.dims), np.int32), "bias_int32")
        model.graph.initializer.extend([scale, zeros])
        conv.input[2] = "bias_float"
        node = helper.make_node("DequantizeLinear", ["bias_int32", "bias_scale"], ["bias_float"], "the bias")
        model.graph.node.insert(0, node)

    spec = dataclasses.replace(spec_of(), precision=Precision.AS_IS)
    with pytest.raises(EngineBuildError, match=r"node the bias .*Int32.*; in a graph with Q/DQ .*QuantizeBias false"):
        build(spec, changed(graph, quantize_a_bias), library)


def test_a_graph_that_is_no_onnx_is_refused(graph, library):
    """Such as a file that was cut short."""
    broken = dataclasses.replace(graph, onnx_bytes=graph.onnx_bytes[:1000])
    with pytest.raises(EngineBuildError, match=r"cannot parse \(.*[Ff]ailed to parse.*framelane export"):
        build(spec_of(), broken, library)


def test_a_graph_with_another_input_is_refused(graph, library):
    """The runner feeds camera bytes under one name."""

    def rename(model):
        for node in model.graph.node:
            node.input[:] = ["camera" if name == "frames_nhwc" else name for name in node.input]
        model.graph.input[0].name = "camera"

    with pytest.raises(EngineBuildError, match="got the inputs camera, allowed is frames_nhwc alone"):
        build(spec_of(), changed(graph, rename), library)


def test_what_the_listener_raises_stops_the_build(graph, library):
    """Long before the end, and comes out as it was."""
    told = []

    def listener(fraction, _phase):
        told.append(fraction)
        if fraction > 0.1:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        build(spec_of(), graph, library, on_progress=listener)
    assert max(told) < 0.2


INTERRUPTED = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
from test_tensorrt_build import LIGHT, Precision, build, load_tensorrt, prepared_onnx, spec_of
from engines.builder_log import BuilderLog

def interrupt(when):
    if when == {when!r} and not interrupt.sent:
        interrupt.sent = True
        os.kill(os.getpid(), signal.SIGINT)

def add(log, severity, text):
    if severity != "VERBOSE":
        interrupt("parsing")

interrupt.sent = False
BuilderLog.add = add
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start its children without
try:
    build(
        spec_of(), prepared_onnx(LIGHT, Precision.FP32), load_tensorrt(),
        on_progress=lambda fraction, _: fraction > 0.1 and interrupt("building"),
    )
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("when", ["parsing", "building"])
def test_an_interrupt_stops_the_build_and_arrives_as_one(when):
    """A real SIGINT in a process of its own, while the library calls back: it must not be lost or crash in there."""
    program = INTERRUPTED.format(root=str(ROOT), tests=str(Path(__file__).parent), when=when)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("interrupted\n", 0), done.stderr


REFUSED_THEN_BUILT = """
import gc, sys, threading
sys.path[:0] = [{root!r}, {tests!r}]
from test_tensorrt_build import *
from engines.builder_log import BuilderLog

library, graph = load_tensorrt(), prepared_onnx(LIGHT, Precision.FP32)
broken = dataclasses.replace(graph, onnx_bytes=graph.onnx_bytes[:1000])
small = spec_of([CanvasShape(320, 320)], [1])
keep = BuilderLog.add
BuilderLog.add = lambda log, severity, text: (severity != "VERBOSE" and gc.collect(), keep(log, severity, text))
gc.disable()

def work():
    for _ in range(3):
        try:
            build(small, broken, library)
        except EngineBuildError:
            pass
        build(small, graph, library)

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("built")
"""


def test_a_refused_build_leaves_no_builder_that_could_stop_the_process():
    """Freed by the collector, inside the logger of the next builder, it would wait for ever; two threads."""
    program = REFUSED_THEN_BUILT.format(root=str(ROOT), tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.returncode) == ("built\n", 0), done.stderr


def test_bindings_without_their_libraries_are_named():
    """The real bindings, where nothing brings `libtensorrt_rtx.so.1`."""
    program = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'onnxruntime_ep_nv_tensorrt_rtx' else find(name, *a)\n"
        "from engines.tensorrt_library import load_tensorrt\n"
        "try: load_tensorrt('tensorrt_rtx')\n"
        f"except Exception as err: print(type(err).__name__ == {EngineLibraryError.__name__!r}, err)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert done.stdout.startswith("True tensorrt_rtx: got Python bindings (tensorrt_rtx_bindings) without NVIDIA's")
    assert "libtensorrt_rtx.so.1" in done.stdout
