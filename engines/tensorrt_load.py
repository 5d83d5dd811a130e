"""A serialised engine made ready to run, once it is known to be what its facts say.

It has run on a hand-written fake of TensorRT's runtime, never on a device.
"""

from __future__ import annotations

from typing import Any

from engines.engine_spec import BuiltEngine
from engines.errors import DeviceError, EngineFileError
from engines.graph import INPUT_NAME
from engines.spec import HeadKind, ModelInfo, WarmShape
from engines.tensorrt_calls import RuntimeCalls
from engines.tensorrt_library import TensorRtLibrary

# Every engine is built with just one optimization profile.
PROFILE_INDEX = 0


def shape_nhwc(shape: WarmShape) -> tuple[int, int, int, int]:
    """A warm shape as an array has it."""
    return (shape.batch, shape.canvas.height, shape.canvas.width, 3)


class LoadedEngine:
    """TensorRT's runtime and engine of one plan. Its execution contexts must be gone before `close`."""

    def __init__(self, built: BuiltEngine, info: ModelInfo, library: TensorRtLibrary, calls: RuntimeCalls) -> None:
        """Take what is to be loaded; `open` does it."""
        self._built = built
        self._info = info
        self._library = library
        self.calls = calls
        self._runtime: Any = None
        self._engine: Any = None
        self.output_name = ""

    def open(self) -> None:
        """Load the weights onto the current device.

        Raises:
            EngineFileError: the plan cannot be loaded here, or is another one than its facts say.
            EngineMemoryError: no room for the weights.
            DeviceError: TensorRT's runtime does not start.
        """
        trt = self._library.module
        self._runtime = self.calls.ask("Runtime", trt.Runtime, self.calls.logger)
        try:
            self._engine = self.calls.ask(
                "Runtime.deserialize_cuda_engine", self._runtime.deserialize_cuda_engine, self._built.plan_bytes
            )
        except DeviceError as err:
            raise EngineFileError(
                f"engine of {self._name()}: got a plan that {self._library} does not load here ({err}); it was made by "
                "another version or for another GPU, or is damaged: delete it from the engine cache and build it again"
            ) from err
        self._check()

    def create_context(self) -> Any:
        """An execution context that computes in memory which it is given."""
        trt = self._library.module
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        name = "ICudaEngine.create_execution_context"
        if not self._library.is_rtx:
            return self.calls.ask(name, self._engine.create_execution_context, strategy)
        # TensorRT for RTX compiles kernels on the device. Left alone it runs general ones first and changes to those of
        # the shape when they are ready, which a captured graph would never see. Its own graph capture stays off (the
        # default): a graph of ours also fixes the addresses of a buffer set.
        config = self.calls.ask("ICudaEngine.create_runtime_config", self._engine.create_runtime_config)
        config.set_execution_context_allocation_strategy(strategy)
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        return self.calls.ask(name, self._engine.create_execution_context, config)

    def activation_bytes(self) -> int:
        """What a context needs at most, by TensorRT's own account."""
        return int(self._engine.get_device_memory_size_for_profile_v2(PROFILE_INDEX))

    def close(self) -> None:
        """Let go of both, the engine first."""
        self._engine = None
        self._runtime = None

    def _name(self) -> str:
        return f"model {self._built.facts.onnx_sha256[:12]}, profile {self._built.facts.profile}"

    def _check(self) -> None:
        """Compare the engine with what it is said to be: a foreign one must never answer."""
        difference = self._difference()
        if difference is not None:
            raise EngineFileError(
                f"engine of {self._name()}: {difference}; the file is not what its name says: delete it from the "
                "engine cache and build it again"
            )

    def _difference(self) -> str | None:
        """What is not as said; answered, not raised, since an error's frames would keep the engine on the device."""
        trt, engine, profile = self._library.module, self._engine, self._built.facts.profile
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        if inputs != [INPUT_NAME] or len(outputs) != 1:
            return f"got inputs {inputs} and outputs {outputs}, allowed are the input {INPUT_NAME} and one output"
        self.output_name = outputs[0]
        types = (engine.get_tensor_dtype(INPUT_NAME), engine.get_tensor_dtype(self.output_name))
        if types != (trt.DataType.UINT8, trt.DataType.FLOAT):
            return f"got {types[0]} in and {types[1]} out, allowed are UINT8 in and FLOAT out"
        ranges = [tuple(dims) for dims in engine.get_tensor_profile_shape(INPUT_NAME, PROFILE_INDEX)]
        wanted = [shape_nhwc(shape) for shape in (profile.min_shape, profile.opt_shape, profile.max_shape)]
        if ranges != wanted:
            return f"got the profile (min, opt, max) {ranges}, allowed by its facts is {wanted}"
        dims = tuple(engine.get_tensor_shape(self.output_name))
        is_end_to_end = self._info.head is HeadKind.END_TO_END
        num_values = 6 if is_end_to_end else 4 + len(self._info.class_names)
        if len(dims) != 3 or dims[2 if is_end_to_end else 1] not in (num_values, -1):
            return f"got an output of shape {dims}, allowed are 3 axes, and {num_values} values a box"
        return None
