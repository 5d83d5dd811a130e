"""Before an engine in fewer bits is built: does its graph find on real frames what the full one finds?"""

from __future__ import annotations

import logging
from pathlib import Path

from engines.engine_spec import EngineSpec, Precision
from engines.errors import UnsupportedModelError
from engines.parity import check_precision
from engines.prepared_graph import PreparedGraph, prepared_onnx
from serve_app.check_frames import drawn_scenes, frames_of

_log = logging.getLogger(__name__)


class PrecisionCheck:
    """Compares FP16 graphs with their FP32 ones on ONNX Runtime, each graph once.

    A graph that comes in fewer bits has no full one to be compared with.
    """

    def __init__(self, frames: Path | None) -> None:
        """Take a folder of real frames; None: drawn scenes, on which a model of other things finds nothing."""
        self._frames = frames
        self._passed: set[str] = set()

    def check(self, spec: EngineSpec, graph: PreparedGraph) -> None:
        """Compare, unless this graph has been.

        Raises:
            PrecisionError: the graph finds something else.
            FramelaneError: the folder has no image.
        """
        if spec.precision is not Precision.FP16 or graph.sha256 in self._passed:
            return
        frames = drawn_scenes() if self._frames is None else frames_of([self._frames])
        try:
            full = prepared_onnx(spec.model_path, Precision.FP32)
        except UnsupportedModelError:  # it came in FP16, and is taken as it came
            _log.info("model %s: computes in FP16 as it comes, there is no FP32 to compare with", spec.model_path.name)
            self._passed.add(graph.sha256)
            return
        found = check_precision(full, graph, [frame.image_hwc for frame in frames])
        self._passed.add(graph.sha256)
        if not found.num_matched:
            _log.warning(
                "model %s: FP16 was compared with FP32 on %d frames that show nothing of its classes, which proves "
                "little; name a folder of frames that do: engines.frames in the plan, or --frames",
                spec.model_path.name,
                len(frames),
            )
