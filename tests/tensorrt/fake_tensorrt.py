"""TensorRT's runtime, written by hand: the calls that the runner makes, with the real bindings' names and signatures.

`test_tensorrt_names.py` compares it with the real ones. Its "kernels" run the ONNX graph by ONNX Runtime when their
turn comes on the stand-in's stream, from and to the addresses that the context was given. What misuses the API is
recorded.
"""

# ruff: noqa: D101, D102 - NVIDIA documents them

from __future__ import annotations

import ctypes
import json
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np

from engines.onnx_library import onnxruntime

WEIGHTS_BYTES = 4096
CONTEXT_BYTES = 512
KERNEL_NS_PER_PX = 10
ALIGNMENT_BYTES = 256


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class DynamicShapesKernelSpecializationStrategy(IntEnum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class TensorIOMode(IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(Enum):
    FLOAT = 0
    HALF = 1
    UINT8 = 7


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    def __init__(self) -> None:
        pass

    def log(self, severity, msg):
        raise NotImplementedError


@dataclass
class Fault:
    """What a call answers instead of doing its work, and what the logger is told."""

    answer: Any
    message: str | None = None
    nth: int = 1


@dataclass
class World:
    """What the fake's objects share: the driver, what a test makes fail, and what was seen."""

    driver: Any
    faults: dict[str, Fault] = field(default_factory=dict)
    misuses: list[str] = field(default_factory=list)
    allocates_in_enqueue: bool = False
    is_capturable: bool = True
    context_class: type = object
    shrinks: bool = True
    contexts: weakref.WeakSet = field(default_factory=weakref.WeakSet)
    engines: weakref.WeakSet = field(default_factory=weakref.WeakSet)
    runtimes: weakref.WeakSet = field(default_factory=weakref.WeakSet)
    configs: list[Any] = field(default_factory=list)
    arenas: list[tuple[int, int]] = field(default_factory=list)
    enqueued: list[tuple[int, ...]] = field(default_factory=list)

    def reset(self) -> None:
        """Forget faults and what was seen."""
        self.__init__(self.driver)

    def refused(self, name: str, logger: ILogger) -> tuple[bool, Any]:
        """Whether this call is to fail, and with which answer."""
        fault = self.faults.get(name)
        if fault is None:
            return False, None
        fault.nth -= 1
        if fault.nth:
            return False, None
        del self.faults[name]
        if fault.message is not None:
            logger.log(Severity.ERROR, fault.message)
        if isinstance(fault.answer, Exception):
            raise fault.answer
        return True, fault.answer

    def live(self) -> tuple[int, int, int]:
        """How many contexts, engines and runtimes there are."""
        return len(self.contexts), len(self.engines), len(self.runtimes)


WORLD = World(None)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        failed, _ = WORLD.refused("Runtime", logger)
        if failed:
            msg = "pybind11: factory function returned nullptr"
            raise TypeError(msg)
        WORLD.runtimes.add(self)

    def deserialize_cuda_engine(self, serialized_engine):
        failed, answer = WORLD.refused("deserialize_cuda_engine", self._logger)
        if failed:
            return answer
        header, _, graph = serialized_engine.partition(b"\n")
        try:
            facts = json.loads(header)
        except ValueError:
            self._logger.log(Severity.ERROR, "Error Code 1: Serialization (magicTag does not match)")
            return None
        weights = WORLD.driver.allocate(WEIGHTS_BYTES)
        if weights is None:
            self._logger.log(Severity.ERROR, "Error Code 2: OutOfMemory (requested 4096 bytes)")
            return None
        return ICudaEngine(self, facts, graph, weights)


class IRuntimeConfig:
    def __init__(self) -> None:
        self.strategy = ExecutionContextAllocationStrategy.STATIC
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY
        WORLD.configs.append(self)

    def set_execution_context_allocation_strategy(self, strategy=ExecutionContextAllocationStrategy.STATIC):
        self.strategy = strategy


class ICudaEngine:
    def __init__(self, runtime, facts, graph, weights) -> None:
        self._runtime = runtime
        self._logger = runtime._logger
        self._facts = facts
        self._weights = weights
        self._session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.num_io_tensors = len(facts["tensors"])
        self._live_contexts = weakref.WeakSet()
        WORLD.engines.add(self)

    def __del__(self) -> None:
        if len(self._live_contexts):
            WORLD.misuses.append("an engine was freed before its contexts")
        WORLD.driver.free(self._weights)

    def get_tensor_name(self, index):
        return self._facts["tensors"][index][0]

    def get_tensor_mode(self, name):
        return TensorIOMode[self._tensor(name)[1]]

    def get_tensor_dtype(self, name):
        return DataType[self._tensor(name)[2]]

    def get_tensor_shape(self, name):
        return tuple(self._tensor(name)[3])

    def get_tensor_profile_shape(self, name, profile_index):
        assert (self._tensor(name)[1], profile_index) == ("INPUT", 0)
        return [tuple(shape) for shape in self._facts["profile"]]

    def get_device_memory_size_for_profile_v2(self, profile_index):
        return self._need(self._facts["profile"][2]) if profile_index == 0 else 0

    def create_runtime_config(self):
        failed, answer = WORLD.refused("create_runtime_config", self._logger)
        return answer if failed else IRuntimeConfig()

    def create_execution_context(self, strategy=ExecutionContextAllocationStrategy.STATIC):
        failed, answer = WORLD.refused("create_execution_context", self._logger)
        if failed:
            return answer
        if isinstance(strategy, IRuntimeConfig):
            strategy = strategy.strategy
        if strategy is not ExecutionContextAllocationStrategy.USER_MANAGED:
            WORLD.misuses.append(f"a context of strategy {strategy.name}")
        memory = WORLD.driver.allocate(CONTEXT_BYTES)
        if memory is None:
            self._logger.log(Severity.ERROR, "Error Code 1: Cuda Runtime (out of memory)")
            return None
        context = WORLD.context_class(self, memory)
        self._live_contexts.add(context)
        return context

    def _tensor(self, name):
        return next(tensor for tensor in self._facts["tensors"] if tensor[0] == name)

    def _need(self, shape) -> int:
        return self._facts["activation_bytes_per_px"] * math.prod(shape[:3])


class IExecutionContext:
    def __init__(self, engine, memory) -> None:
        self._engine = engine
        self._logger = engine._logger
        self._memory = memory
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._arena = (0, 0)
        WORLD.contexts.add(self)

    def __del__(self) -> None:
        WORLD.driver.free(self._memory)

    def set_optimization_profile_async(self, profile_index, stream_handle):
        failed, answer = WORLD.refused("set_optimization_profile_async", self._logger)
        if failed:
            return answer
        return profile_index == 0 and stream_handle != 0

    def set_input_shape(self, name, shape):
        failed, answer = WORLD.refused("set_input_shape", self._logger)
        if failed:
            return answer
        if self._shape:
            WORLD.misuses.append(f"a context of shape {self._shape} was given {tuple(shape)}")
        self._shape = tuple(shape)
        low, _, high = self._engine.get_tensor_profile_shape(name, 0)
        return all(a <= b <= c for a, b, c in zip(low, self._shape, high, strict=True))

    def infer_shapes(self):
        failed, answer = WORLD.refused("infer_shapes", self._logger)
        return answer if failed else []

    def get_tensor_shape(self, name):
        failed, answer = WORLD.refused("get_tensor_shape", self._logger)
        if failed:
            return answer
        if self._engine.get_tensor_mode(name) is TensorIOMode.INPUT:
            return self._shape
        return self._engine._session.run(None, {"frames_nhwc": np.zeros(self._shape, np.uint8)})[0].shape

    def update_device_memory_size_for_shapes(self):
        failed, answer = WORLD.refused("update_device_memory_size_for_shapes", self._logger)
        if failed:
            return answer
        largest = self._engine.get_device_memory_size_for_profile_v2(0)
        return self._engine._need(self._shape) if WORLD.shrinks else largest

    def set_device_memory(self, memory, size):
        failed, answer = WORLD.refused("set_device_memory", self._logger)
        if failed:
            return answer
        need = self._engine._need(self._shape)
        if memory % ALIGNMENT_BYTES or size < need or not WORLD.driver.holds(memory, size):
            WORLD.misuses.append(f"memory of {size} bytes at {memory:#x} for a need of {need}")
        self._arena = (memory, size)
        WORLD.arenas.append(self._arena)
        return None

    def set_tensor_address(self, name, memory):
        failed, answer = WORLD.refused("set_tensor_address", self._logger)
        if failed:
            return answer
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        failed, answer = WORLD.refused("execute_async_v3", self._logger)
        if failed:
            return answer
        if WORLD.allocates_in_enqueue:
            scratch = WORLD.driver.allocate(ALIGNMENT_BYTES)
            if scratch is None:
                self._logger.log(Severity.ERROR, "Error Code 1: Cuda Runtime (operation not permitted when capturing)")
                return False
            WORLD.driver.free(scratch)
        shape, arena, output_name = self._shape, self._arena, self._engine.get_tensor_name(1)
        source, target = self._addresses["frames_nhwc"], self._addresses[output_name]
        session, need = self._engine._session, self._engine._need(shape)

        def kernel() -> int:
            """Compute, in just the memory that was named when this was enqueued."""
            batch_nhwc = _view(source, np.uint8, shape)
            output = session.run(None, {"frames_nhwc": batch_nhwc})[0] if batch_nhwc is not None else None
            answer = _view(target, np.float32, output.shape) if output is not None else None
            if answer is None or not WORLD.driver.holds(arena[0], need):
                WORLD.misuses.append("a kernel used memory that is not there")
                return 700
            ctypes.memset(arena[0], 0xEE, need)
            answer[:] = output
            WORLD.enqueued.append(shape)
            return 0

        duration_ns = KERNEL_NS_PER_PX * math.prod(shape[:3])
        if WORLD.driver.launch(stream_handle, kernel, duration_ns):
            self._logger.log(Severity.ERROR, "Error Code 1: Cuda Driver (launch refused)")
            return False
        return True


class RtxExecutionContext(IExecutionContext):
    """What only TensorRT for RTX has."""

    def is_stream_capturable(self, stream):
        return WORLD.is_capturable and stream != 0


def bindings(*, is_rtx: bool) -> SimpleNamespace:
    """The fake as a module; plain TensorRT has no kernel specialisation and cannot be asked about capture."""
    WORLD.context_class = RtxExecutionContext if is_rtx else IExecutionContext
    module = SimpleNamespace(
        Runtime=Runtime,
        ILogger=ILogger,
        ICudaEngine=ICudaEngine,
        IExecutionContext=WORLD.context_class,
        IRuntimeConfig=IRuntimeConfig,
        ExecutionContextAllocationStrategy=ExecutionContextAllocationStrategy,
        TensorIOMode=TensorIOMode,
        DataType=DataType,
        __version__="0.0-fake",
    )
    if is_rtx:
        module.DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy
    return module


def plan_bytes(
    graph: bytes,
    profile: Sequence[Sequence[int]],
    output_dims: Sequence[int],
    *,
    activation_bytes_per_px: int,
    output_type: str = "FLOAT",
    more_outputs: Sequence[str] = (),
) -> bytes:
    """A plan that the fake loads: an ONNX graph with uint8 input, and what TensorRT would have noted beside it."""
    tensors = [
        ["frames_nhwc", "INPUT", "UINT8", [-1, -1, -1, 3]],
        *([name, "OUTPUT", output_type, list(output_dims)] for name in ("output0", *more_outputs)),
    ]
    header = {
        "tensors": tensors,
        "profile": [list(shape) for shape in profile],
        "activation_bytes_per_px": activation_bytes_per_px,
    }
    return json.dumps(header).encode() + b"\n" + graph


def _view(address: int, dtype, shape):
    """Device memory as an array, or None where none is allocated."""
    num_bytes = np.dtype(dtype).itemsize * math.prod(shape)
    if not WORLD.driver.holds(address, num_bytes):
        return None
    return np.frombuffer((ctypes.c_uint8 * num_bytes).from_address(address), dtype).reshape(shape)
