"""One TensorRT engine by itself, for shapes that no plan names: what `framelane parity` compares.

It has run on stand-ins of driver and runtime (simulated), never on a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.base import Engine, EngineMemory, EngineOutput
from engines.engine_spec import EngineSpec, Precision, ShapeProfile
from engines.parity import CANDIDATES
from engines.prepared_graph import prepared_onnx
from engines.spec import ModelInfo, WarmShape
from engines.tensorrt_run import TensorRtEngine
from engines.timing_cache import TimingCache
from serve_app.tensorrt_pool import GpuParts


def lone_tensorrt_engine(
    path: Path, precision: Precision, shapes: Sequence[WarmShape], *, parts: GpuParts, folder: Path
) -> Engine:
    """An engine for just these shapes, from the cache or built now, that has a GPU to itself.

    All shapes share one profile, tuned for the largest canvas: it is wider than a bucket's, which costs memory and
    speed, neither of which is compared.

    Args:
        path: the ONNX detector.
        precision: in which numbers it computes.
        shapes: all that will be warmed; one or more.
        parts: the GPU and the library; closed with the engine, and when this raises.
        folder: of built engines on this machine.

    Returns:
        An engine that answers the boxes before NMS (`engines.parity.CANDIDATES`), not yet warm.

    Raises:
        EngineError: it cannot be built or run here; says why.
    """
    try:
        canvases = sorted({shape.canvas for shape in shapes}, key=lambda canvas: (-canvas.num_px, canvas))
        profile = ShapeProfile.around(canvases, sorted({shape.batch for shape in shapes}))
        spec = EngineSpec(path, profile, precision, parts.compute_capability)
        graph, cache = prepared_onnx(path, precision), parts.cache_in(folder)
        parts.device.open()
        built = cache.get_or_build(spec, graph, parts.library, build=parts.build_with(TimingCache(cache.folder)))
        engine = TensorRtEngine(built, graph.info, library=parts.library, device=parts.device, limits=CANDIDATES)
    except BaseException:
        parts.close()
        raise
    return _LoneEngine(engine, parts)


class _LoneEngine:
    """An engine whose `close` also closes the GPU, which no other engine uses."""

    def __init__(self, engine: TensorRtEngine, parts: GpuParts) -> None:
        self._engine = engine
        self._parts = parts

    @property
    def model(self) -> ModelInfo:
        """See `Engine.model`."""
        return self._engine.model

    def warm(self, shapes: Sequence[WarmShape]) -> None:
        """See `Engine.warm`."""
        self._engine.warm(shapes)

    def stage(self, batch_nhwc: npt.NDArray[np.uint8]) -> None:
        """See `Engine.stage`."""
        self._engine.stage(batch_nhwc)

    def infer(self, batch_nhwc: npt.NDArray[np.uint8]) -> EngineOutput:
        """See `Engine.infer`."""
        return self._engine.infer(batch_nhwc)

    def memory(self) -> EngineMemory:
        """See `Engine.memory`."""
        return self._engine.memory()

    def close(self) -> None:
        """See `Engine.close`; the GPU is closed too."""
        self._engine.close()
        self._parts.close()
