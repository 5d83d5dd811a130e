"""The TensorRT runner: a pinned context a warm shape, replayed as a CUDA graph, uploads beside the running batch.

Every call is checked against the real bindings' signatures and has run on a hand-written fake of them and a stand-in of
the driver (simulated); no line of it has ever run on a device.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from engines.base import EngineMemory, EngineOutput
from engines.boxes import DetectionLimits, decode
from engines.device_memory import BufferSet, DeviceMemory, MemoryNeeds
from engines.engine_spec import BuiltEngine
from engines.errors import (
    CanvasError,
    DeviceError,
    DeviceLostError,
    EngineFileError,
    EngineMemoryError,
    ModelFileError,
    ShapeNotWarmError,
)
from engines.gpu_device import GpuDevice
from engines.letterbox import FILL
from engines.pinned_context import PinnedContext
from engines.spec import ModelInfo, WarmShape, check_shapes
from engines.tensorrt_calls import RuntimeCalls
from engines.tensorrt_library import TensorRtLibrary
from engines.tensorrt_load import LoadedEngine, shape_nhwc
from engines.uploads import pinned_view

_log = logging.getLogger(__name__)


class TensorRtEngine:
    """An `Engine` on TensorRT or TensorRT for RTX. Nothing is loaded before `warm`."""

    def __init__(
        self,
        built: BuiltEngine,
        info: ModelInfo,
        *,
        library: TensorRtLibrary,
        device: GpuDevice,
        limits: DetectionLimits | None = None,
    ) -> None:
        """Take a built engine, and tell the device what it will need.

        Args:
            built: the plan, for this GPU and this library's version.
            info: what its model says of itself.
            library: who built it.
            device: shared by all engines of the process, and open when `warm` is called.
            limits: which boxes are answered.
        """
        self._built = built
        self._info = info
        self._library = library
        self._device = device
        self._limits = limits or DetectionLimits()
        self._loaded: LoadedEngine | None = None
        self._contexts: dict[tuple[int, ...], PinnedContext] = {}
        self._told_of_capture = False
        device.declare(self, built.facts.activation_bytes)

    @property
    def model(self) -> ModelInfo:
        """What the model says of itself."""
        return self._info

    def warm(self, shapes: Sequence[WarmShape]) -> None:
        """See `Engine.warm`; if it fails, all that it had allocated is free again and older shapes stay warm.

        Raises:
            CanvasError: also a shape outside the engine's profile.
            EngineFileError: the plan cannot be loaded here, or is not what its facts say.
            ModelFileError: its weights are damaged.
            DeviceError: TensorRT or the driver refuses.
        """
        check_shapes(shapes, self._info)
        self._check_profile(shapes)
        wanted = {shape_nhwc(shape) for shape in shapes} - self._contexts.keys()
        fresh: list[PinnedContext] = []
        try:
            with self._told_apart():
                self._device.make_current()
                loaded = self._load()
                for shape in sorted(wanted, key=math.prod, reverse=True):
                    fresh.append(PinnedContext(shape, loaded, self._device.driver, self._device.stream))
                    fresh[-1].open()
                if fresh:
                    self._warm_contexts(fresh)
        except BaseException:
            for context in fresh:
                context.close()
            if not self._contexts:
                self._unload()
            raise

    def stage(self, batch_nhwc: npt.NDArray[np.uint8]) -> None:
        """See `Engine.stage`. An upload that fails here is done again, and its error raised, by `infer`."""
        if batch_nhwc.shape not in self._contexts:
            return
        try:
            self._device.make_current()
            self._device.uploads.stage(batch_nhwc)
        except (DeviceError, EngineMemoryError) as err:
            _log.info("a batch was not uploaded ahead: %s", err)

    def infer(self, batch_nhwc: npt.NDArray[np.uint8]) -> EngineOutput:
        """See `Engine.infer`.

        Raises:
            DeviceLostError: the device is gone; every later call raises it again.
            DeviceError: TensorRT or the driver refuses this batch; the engine stays usable.
        """
        context = self._contexts.get(batch_nhwc.shape)
        if context is None:
            warm = ", ".join(str(shape) for shape in sorted(self._contexts)) or "none yet"
            raise ShapeNotWarmError(
                f"batch: got shape {batch_nhwc.shape}, allowed are the warmed ones: {warm}; add the canvas to the plan"
            )
        started_s = time.perf_counter()
        with self._told_apart():
            self._device.make_current()
            with self._device.uploads.taken(batch_nhwc) as buffers:
                output = self._run(context, buffers)
                ran_s = time.perf_counter()
                # The boxes are read right from pinned memory; what is answered owns its arrays.
                detections = decode(output, self._info.head, self._limits)
        return EngineOutput(detections, run_s=ran_s - started_s, decode_s=time.perf_counter() - ran_s)

    def memory(self) -> EngineMemory:
        """What is in use on the whole GPU, by this engine, its neighbours and other processes."""
        return self._device.memory()

    def move(self, memory: DeviceMemory) -> None:
        """Go on in other memory, with new graphs; an engine that cannot is closed."""
        try:
            for context in self._contexts.values():
                self._try_out(context, memory)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free contexts, graphs and weights; the device's `close` frees the memory that engines share."""
        self._device.make_current_to_free()
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()
        self._unload()
        self._device.forget(self)

    def _warm_contexts(self, fresh: list[PinnedContext]) -> None:
        needs = MemoryNeeds()
        for context in [*fresh, *self._contexts.values()]:
            needs = needs.or_more(context.needs)
        with self._device.fitting(self, needs) as memory:
            for context in fresh:
                self._try_out(context, memory)
        self._contexts.update((context.shape, context) for context in fresh)

    def _try_out(self, context: PinnedContext, memory: DeviceMemory) -> None:
        """Run a grey batch as it is, capture, and run it from both buffer sets as later batches will."""
        first, second = memory.buffers
        context.bind(memory)
        self._run_grey(context, first)
        problem = context.capture(memory.buffers)
        if problem is not None and not self._told_of_capture:
            self._told_of_capture = True
            _log.warning("shape %s runs without a CUDA graph, somewhat slower: %s", context.shape, problem)
        self._run_grey(context, first)
        self._run_grey(context, second)

    def _run_grey(self, context: PinnedContext, buffers: BufferSet) -> None:
        self._device.uploads.fill(buffers, np.full(context.shape, FILL, np.uint8))
        if not np.isfinite(self._run(context, buffers)).all():
            raise ModelFileError(
                f"engine of model {self._built.facts.onnx_sha256[:12]}: got values that are no numbers on a plain grey "
                f"frame of shape {context.shape}, its weights are damaged or too large for "
                f"{self._built.facts.precision.value}; export the model again, or build it in fp32"
            )

    def _run(self, context: PinnedContext, buffers: BufferSet) -> npt.NDArray[np.float32]:
        """Run what is being uploaded; answers a view of pinned memory, valid while the set is taken."""
        driver, stream = self._device.driver, self._device.stream
        driver.wait(stream, buffers.uploaded)
        context.begin(buffers)
        driver.download(buffers.pinned_output, buffers.device_output, context.needs.output_bytes, stream)
        driver.record(buffers.answered, stream)
        driver.synchronize_event(buffers.answered)
        return pinned_view(buffers.pinned_output, np.float32, context.output_shape)

    def _load(self) -> LoadedEngine:
        if self._loaded is None:
            self._loaded = LoadedEngine(self._built, self._info, self._library, RuntimeCalls(self._library))
            self._loaded.open()
        return self._loaded

    def _unload(self) -> None:
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        """After a refusal, see whether it was the device: TensorRT's False and None do not tell."""
        try:
            yield
        except DeviceLostError:
            raise
        except (DeviceError, EngineFileError, EngineMemoryError):
            self._device.drain()  # raises DeviceLostError if so; else nothing that was begun runs any longer
            raise

    def _check_profile(self, shapes: Sequence[WarmShape]) -> None:
        smallest, largest = self._built.facts.profile.min_shape, self._built.facts.profile.max_shape
        lowest, highest = shape_nhwc(smallest), shape_nhwc(largest)
        for shape in shapes:
            if any(not low <= size <= high for low, size, high in zip(lowest, shape_nhwc(shape), highest, strict=True)):
                raise CanvasError(
                    f"canvas {shape.canvas}, batch {shape.batch}: got a shape outside the engine's profile, allowed "
                    f"are {smallest.canvas} to {largest.canvas} in batches of {smallest.batch} to {largest.batch}; add "
                    "the shape to the plan and build its engine: framelane build PLAN"
                )
