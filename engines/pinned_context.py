"""One execution context of TensorRT for one exact shape, never given another: changing shapes stalls a device.

It has run on a hand-written fake of TensorRT's runtime, never on a device.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from engines.cuda_driver import CudaDriver
from engines.cuda_graphs import capture
from engines.device_memory import BufferSet, DeviceMemory, MemoryNeeds
from engines.errors import DeviceError, DeviceLostError, EngineFileError, EngineMemoryError
from engines.graph import INPUT_NAME
from engines.tensorrt_load import PROFILE_INDEX, LoadedEngine

FLOAT32_BYTES = 4

_log = logging.getLogger(__name__)


class PinnedContext:
    """A context, the memory that it is bound to, and its CUDA graph for each buffer set."""

    def __init__(self, shape: tuple[int, ...], loaded: LoadedEngine, driver: CudaDriver, stream: int) -> None:
        """Take the input's shape `(N, height, width, 3)` and where to run; `open` makes the context."""
        self.shape = shape
        self.output_shape: tuple[int, ...] = ()
        self.needs = MemoryNeeds()
        self._loaded = loaded
        self._calls = loaded.calls
        self._driver = driver
        self._stream = stream
        self._context: Any = None
        self._graphs: dict[int, int] = {}

    def open(self) -> None:
        """Make the context and give it its shape, once for its life.

        Raises:
            EngineMemoryError: no room.
            DeviceError: TensorRT refuses a step.
            EngineFileError: the engine's output has no fixed size for this shape.
        """
        calls = self._calls
        self._context = self._loaded.create_context()
        calls.ask(
            "IExecutionContext.set_optimization_profile_async",
            self._context.set_optimization_profile_async,
            PROFILE_INDEX,
            self._stream,
        )
        self._driver.synchronize_stream(self._stream)
        calls.ask("IExecutionContext.set_input_shape", self._context.set_input_shape, INPUT_NAME, self.shape)
        unknown = calls.ask("IExecutionContext.infer_shapes", self._context.infer_shapes)
        output_name = self._loaded.output_name
        shape = calls.ask("IExecutionContext.get_tensor_shape", self._context.get_tensor_shape, output_name)
        self.output_shape = tuple(shape)
        if unknown or min(self.output_shape, default=-1) < 1:
            raise EngineFileError(
                f"engine: got the output shape {self.output_shape} and the unknown shapes {unknown} for an input of "
                f"{self.shape}, allowed are fixed ones; export the model again with framelane export"
            )
        self.needs = MemoryNeeds(
            self._activation_bytes(), math.prod(self.shape), FLOAT32_BYTES * math.prod(self.output_shape)
        )

    def bind(self, memory: DeviceMemory) -> None:
        """Compute in this memory from now on; graphs of the old one are freed."""
        self._free_graphs()
        self._calls.tell(
            "IExecutionContext.set_device_memory",
            self._context.set_device_memory,
            memory.arena.address,
            memory.arena.num_bytes,
        )

    def capture(self, buffers: tuple[BufferSet, BufferSet]) -> str | None:
        """Make a CUDA graph for each buffer set; the context has run once in its present memory.

        Returns:
            None, or why there is none: `begin` then gives the network to the stream by itself each time.

        Raises:
            DeviceLostError: the device is gone.
        """
        try:
            capturable = getattr(self._context, "is_stream_capturable", None)  # TensorRT for RTX only
            if capturable is not None:
                self._calls.ask("IExecutionContext.is_stream_capturable", capturable, self._stream)
            for one in buffers:
                self._set_addresses(one)
                self._graphs[one.device_input] = capture(self._driver, self._stream, self._enqueue)
        except DeviceLostError:
            raise
        except (DeviceError, EngineMemoryError) as err:
            self._free_graphs()
            return str(err)
        return None

    def begin(self, buffers: BufferSet) -> None:
        """Give the network to the stream: from `device_input` to `device_output`.

        Raises:
            EngineMemoryError: TensorRT found no room.
            DeviceError: it refused.
        """
        executable = self._graphs.get(buffers.device_input)
        if executable is not None:
            self._driver.launch(executable, self._stream)
        else:
            self._set_addresses(buffers)
            self._enqueue()

    def close(self) -> None:
        """Free graphs and context; never raises."""
        self._free_graphs()
        self._context = None

    def _activation_bytes(self) -> int:
        """What this shape needs: less than the profile's largest where the engine was built so."""
        needed = self._calls.ask(
            "IExecutionContext.update_device_memory_size_for_shapes",
            self._context.update_device_memory_size_for_shapes,
        )
        # 0 is also the answer to an error; the profile's need is enough for each of its shapes.
        return int(needed) or self._loaded.activation_bytes()

    def _set_addresses(self, buffers: BufferSet) -> None:
        name = "IExecutionContext.set_tensor_address"
        self._calls.ask(name, self._context.set_tensor_address, INPUT_NAME, buffers.device_input)
        self._calls.ask(name, self._context.set_tensor_address, self._loaded.output_name, buffers.device_output)

    def _enqueue(self) -> None:
        self._calls.ask("IExecutionContext.execute_async_v3", self._context.execute_async_v3, self._stream)

    def _free_graphs(self) -> None:
        for executable in self._graphs.values():
            self._driver.destroy_executable(executable)
        self._graphs.clear()
