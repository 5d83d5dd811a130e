"""The TensorRT runner on stand-ins of driver and runtime (simulated, see `simulated/`), and the real one's refusal."""

from __future__ import annotations

import pytest

from engines.engine_spec import BuiltEngine, ComputeCapability, EngineFacts, Precision, ShapeProfile
from engines.errors import EngineFileError
from engines.spec import CanvasShape, HeadKind, ModelInfo, WarmShape
from engines.tensorrt_calls import RuntimeCalls
from engines.tensorrt_library import load_tensorrt
from engines.tensorrt_load import LoadedEngine

pytestmark = pytest.mark.tensorrt


def test_the_runner_keeps_its_promises_through_its_whole_life(simulated):
    """Warm and infer at each shape, one arena, no second shape for a context, uploads beside the running batch."""
    simulated.assert_all_passed("runner_life", at_least=30)


def test_the_runner_names_what_went_wrong_and_leaks_nothing(simulated):
    """False, None and errors of each call, out of memory, foreign plans, a lost device, closing."""
    simulated.assert_all_passed("runner_refusals", at_least=60)


def test_the_real_runtime_refuses_a_damaged_plan_and_its_words_are_quoted():
    """The logger that TensorRT is given works with the real bindings; no GPU is needed to refuse."""
    library = load_tensorrt("tensorrt_rtx")
    shape = WarmShape(CanvasShape(64, 64), 1)
    facts = EngineFacts(
        library=library.name,
        library_version=library.version,
        compute_capability=ComputeCapability(8, 9),
        precision=Precision.FP32,
        profile=ShapeProfile(shape, shape, shape),
        onnx_sha256="0123456789abcdef",
        activation_bytes=1,
        weights_bytes=1,
        build_s=1.0,
    )
    info = ModelInfo(("thing",), 32, HeadKind.RAW)
    loaded = LoadedEngine(BuiltEngine(b"garbage", facts), info, library, RuntimeCalls(library))
    with pytest.raises(EngineFileError) as caught:
        loaded.open()
    loaded.close()
    message = str(caught.value)
    assert "Runtime.deserialize_cuda_engine: got None" in message
    assert "Internal Error" in message
    assert message.endswith("delete it from the engine cache and build it again")
