"""The ONNX Runtime runner on the CPU: the embedded default, no GPU and no extra library needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.base import EngineMemory, EngineOutput
from engines.boxes import DetectionLimits, decode
from engines.errors import EngineMemoryError, ModelFileError, ShapeNotWarmError
from engines.graph import INPUT_NAME, load_model, read_info, to_uint8_nhwc
from engines.letterbox import FILL
from engines.onnx_library import onnxruntime
from engines.process_memory import process_memory
from engines.spec import ModelInfo, WarmShape, check_shapes


class OnnxEngine:
    """An `Engine` on ONNX Runtime's CPU provider. The model is read at construction, the session made in `warm`."""

    def __init__(self, model_path: Path, *, num_threads: int = 0, limits: DetectionLimits | None = None) -> None:
        """Read the model.

        Args:
            model_path: an ONNX detector, as exported by ultralytics or by `framelane export`.
            num_threads: threads of one inference; 0: one a core.
            limits: which boxes are answered.

        Raises:
            ModelFileError: missing or not ONNX.
            UnsupportedModelError: no detector.
        """
        if num_threads < 0:
            raise ValueError(f"num_threads: got {num_threads}, allowed is 0 (one a core) or more")
        self._model_path = model_path
        self._num_threads = num_threads
        self._limits = limits or DetectionLimits()
        model = load_model(model_path)
        self._info = read_info(model, model_path.name)
        self._graph_bytes = to_uint8_nhwc(model).SerializeToString()
        self._session: onnxruntime.InferenceSession | None = None
        self._warm: set[tuple[int, ...]] = set()

    @property
    def model(self) -> ModelInfo:
        """What the model says of itself."""
        return self._info

    def warm(self, shapes: Sequence[WarmShape]) -> None:
        """See `Engine.warm`; the largest shape runs first, so that memory grows once."""
        check_shapes(shapes, self._info)
        if self._session is None:
            self._session = self._make_session()
        for canvas, batch in sorted(shapes, key=lambda s: -s.canvas.num_px * s.batch):
            shape = (batch, canvas.height, canvas.width, 3)
            try:
                output = self._run(np.full(shape, FILL, np.uint8))
            except MemoryError as err:
                raise EngineMemoryError(
                    f"engine: no memory for a batch of shape {shape} ({err}); use a smaller one"
                ) from err
            if not np.isfinite(output).all():
                raise ModelFileError(
                    f"model {self._model_path}: got values that are no numbers on a plain grey frame, its weights are "
                    "damaged; export it again with framelane export"
                )
            self._warm.add(shape)

    def stage(self, batch_nhwc: npt.NDArray[np.uint8]) -> None:
        """See `Engine.stage`; the batch is where the CPU reads it already."""

    def infer(self, batch_nhwc: npt.NDArray[np.uint8]) -> EngineOutput:
        """See `Engine.infer`."""
        if batch_nhwc.shape not in self._warm:
            warm = ", ".join(str(shape) for shape in sorted(self._warm)) or "none yet"
            raise ShapeNotWarmError(
                f"batch: got shape {batch_nhwc.shape}, allowed are the warmed ones: {warm}; add the canvas to the plan"
            )
        started_s = time.perf_counter()
        output = self._run(batch_nhwc)
        ran_s = time.perf_counter()
        detections = decode(output, self._info.head, self._limits)
        return EngineOutput(detections, run_s=ran_s - started_s, decode_s=time.perf_counter() - ran_s)

    def memory(self) -> EngineMemory:
        """Resident memory of this process against what it may have."""
        return process_memory()

    def close(self) -> None:
        """Drop the session and its arena."""
        self._session = None
        self._warm.clear()

    def _make_session(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._num_threads
        options.inter_op_num_threads = 1
        # Threads spin between the operators of one run (10 to 25 % faster on two cores than sleeping) and stop at its
        # end: idle ones must not burn the core that router and cameras need.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(self._graph_bytes, options, providers=["CPUExecutionProvider"])
        except Exception as err:  # onnxruntime's exception classes share no public base
            if _is_out_of_memory(err):
                raise EngineMemoryError(
                    f"engine: got no memory to load model {self._model_path} ({_first_line(err)}); use fewer replicas "
                    "or threads, or a machine with more memory"
                ) from err
            raise ModelFileError(
                f"model {self._model_path}: got a model that ONNX Runtime {onnxruntime.__version__} cannot load "
                f"({str(err).splitlines()[0][:200]}); export it again with framelane export"
            ) from err

    def _run(self, batch_nhwc: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if self._session is None:
            raise ShapeNotWarmError("engine: got a batch before warm() or after close(), allowed is between the two")
        try:
            output = self._session.run(None, {INPUT_NAME: batch_nhwc})[0]
        except Exception as err:  # as above
            if _is_out_of_memory(err):
                reason = _first_line(err)
                raise EngineMemoryError(
                    f"engine: got no memory for a batch of shape {batch_nhwc.shape} ({reason}); "
                    "use a smaller canvas or batch, or a machine with more memory"
                ) from err
            raise
        return np.asarray(output, np.float32)


def _is_out_of_memory(err: Exception) -> bool:
    """ONNX Runtime has no class for it: its arena, C++ and a thread's stack each say it in their own words."""
    words = ("allocate memory", "bad_alloc", "bad allocation")
    return isinstance(err, MemoryError) or any(word in str(err) for word in words)


def _first_line(err: Exception) -> str:
    """What an error says, cut to a size for a message."""
    return (str(err).splitlines() or [type(err).__name__])[0][-150:]
