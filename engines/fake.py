"""An engine that computes nothing: latency from a table, one box a frame. For tests and the simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from engines.base import EngineMemory, EngineOutput
from engines.detections import Detections
from engines.errors import ShapeNotWarmError
from engines.spec import HeadKind, ModelInfo, WarmShape, check_shapes

FAKE_MODEL = ModelInfo(class_names=("thing",), stride_px=32, head=HeadKind.RAW)


class FakeEngine:
    """An `Engine` that records its calls and answers, for each frame, one box over the middle of its canvas.

    Its score is the frame's mean brightness in 0..1, so that a test can tell whose answer it holds.
    """

    def __init__(self, latency_s: Mapping[WarmShape, float], sleep: Callable[[float], None]) -> None:
        """Take a table of seconds per shape (0 where absent) and what passes the time: `time.sleep`, or a fake."""
        self._latency_s = dict(latency_s)
        self._sleep = sleep
        self._warm: set[WarmShape] = set()
        self.infer_calls: list[WarmShape] = []

    @property
    def model(self) -> ModelInfo:
        """What the fake model says of itself."""
        return FAKE_MODEL

    def warm(self, shapes: Sequence[WarmShape]) -> None:
        """See `Engine.warm`."""
        check_shapes(shapes, FAKE_MODEL)
        self._warm.update(shapes)

    def stage(self, batch_nhwc: npt.NDArray[np.uint8]) -> None:
        """See `Engine.stage`; there is no device."""

    def infer(self, batch_nhwc: npt.NDArray[np.uint8]) -> EngineOutput:
        """See `Engine.infer`."""
        num_frames, height, width, _ = batch_nhwc.shape
        shape = next((s for s in self._warm if s.batch == num_frames and s.canvas == (height, width)), None)
        if shape is None:
            warm = ", ".join(f"{s.batch} x {s.canvas}" for s in sorted(self._warm)) or "none yet"
            raise ShapeNotWarmError(
                f"batch: got shape {batch_nhwc.shape}, allowed are the warmed ones: {warm}; add the canvas to the plan"
            )
        self.infer_calls.append(shape)
        run_s = self._latency_s.get(shape, 0.0)
        self._sleep(run_s)
        box = np.array([[width / 4, height / 4, width * 3 / 4, height * 3 / 4]], np.float32)
        brightness = batch_nhwc.reshape(num_frames, -1).mean(1) / 255
        detections = [
            Detections(box.copy(), np.array([score], np.float32), np.zeros(1, np.int64)) for score in brightness
        ]
        return EngineOutput(detections, run_s=run_s, decode_s=0.0)

    def memory(self) -> EngineMemory:
        """Nothing is held."""
        return EngineMemory(0, 0)

    def close(self) -> None:
        """Forget the warm shapes."""
        self._warm.clear()
