"""Takes down what happens in one simulation while it happens, see `simulation_run.py`."""

from __future__ import annotations

from array import array

import numpy as np

from engines.spec import CanvasShape
from serve_app.frames import Frame
from serve_app.simulation.simulation_run import OUTCOME_CODES, BatchColumns, SimulationRun
from serve_app.simulation.traces import Floats, Trace
from serve_app.verdicts import Outcome


class RunRecorder:
    """The columns while they fill; arrays of machine numbers, as single values are written to them all the time.

    A frame's id in a simulation is its row.
    """

    def __init__(self, trace: Trace, pools: tuple[str, ...]) -> None:
        """Take the trace, and the pools' names."""
        num_frames = len(trace)
        self._trace = trace
        self._pools = {name: index for index, name in enumerate(pools)}
        self.outcome = bytearray(num_frames)
        self.verdict = bytearray(num_frames)
        self.rung = bytearray(num_frames)
        self.sent_s = array("d", [np.nan]) * num_frames
        self.end_s = array("d", [np.nan]) * num_frames
        self.batch = array("q", [-1]) * num_frames
        self.is_tiled = bytearray(num_frames)
        self.tile_px = 0
        self.tile_own_px = 0
        self.ran_s = array("d")
        self.start_s = array("d")
        self._batch_pool = array("q")
        self._batch_canvas = array("q")
        self._batch_size = array("q")
        self._canvases: dict[CanvasShape, int] = {}

    def new_batch(self, pool: str, canvas: CanvasShape, size: int) -> int:
        """A batch was sent; returns its row."""
        row = len(self.ran_s)
        index = self._canvases.get(canvas)
        if index is None:
            index = self._canvases[canvas] = len(self._canvases)
        self._batch_pool.append(self._pools[pool])
        self._batch_canvas.append(index)
        self._batch_size.append(size)
        self.ran_s.append(0.0)
        self.start_s.append(np.nan)
        return row

    def sent_tile(self, row: int, canvas_px: int, own_px: int) -> None:
        """A tile of a frame was sent."""
        self.is_tiled[row] = 1
        self.tile_px += canvas_px
        self.tile_own_px += own_px

    def ended(self, frame: Frame, outcome: Outcome, now_s: float) -> bool:
        """A frame ended; False if it had ended before, which must not be."""
        row = int(frame.frame_id)
        is_first = not self.outcome[row]
        self.outcome[row] = OUTCOME_CODES[outcome]
        self.end_s[row] = now_s
        return is_first

    def run(self, deadline_s: Floats, num_replicas: tuple[int, ...], end_of_work_s: float) -> SimulationRun:
        """All columns as they are now."""
        batches = BatchColumns(
            np.asarray(self._batch_pool), np.asarray(self._batch_canvas), np.asarray(self._batch_size),
            np.asarray(self.ran_s), np.asarray(self.start_s), tuple(self._canvases),
        )  # fmt: skip
        return SimulationRun(
            self._trace, deadline_s, np.frombuffer(self.outcome, np.uint8), np.frombuffer(self.verdict, np.uint8),
            np.frombuffer(self.rung, np.uint8), np.asarray(self.sent_s), np.asarray(self.end_s),
            np.asarray(self.batch), np.frombuffer(self.is_tiled, np.uint8), batches, self.tile_px, self.tile_own_px,
            tuple(self._pools), num_replicas, end_of_work_s,
        )  # fmt: skip
