"""What happened in one simulation, in columns; `simulation_report.py` works the figures out."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.spec import CanvasShape
from serve_app.frames import Frame
from serve_app.simulation.traces import Floats, Trace
from serve_app.verdicts import Outcome, VerdictKind

Codes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

# Codes are places in these; 0 stands for none yet.
OUTCOMES = tuple(Outcome)
VERDICTS = tuple(VerdictKind)
OUTCOME_CODES: Mapping[Outcome, int] = {outcome: code for code, outcome in enumerate(OUTCOMES, 1)}
VERDICT_CODES: Mapping[VerdictKind, int] = {verdict: code for code, verdict in enumerate(VERDICTS, 1)}


@dataclass(frozen=True, slots=True, eq=False)
class BatchColumns:
    """Every batch that was sent; one row of every column a batch.

    Attributes:
        pool: `(B,)` index into the pools.
        canvas: `(B,)` index into `canvases`.
        size: `(B,)` pieces in it.
        ran_s: `(B,)` seconds that it kept its device; less than its run where the replica died; 0: it never came there.
        start_s: `(B,)` when it came to the device; NaN: never.
        canvases: what `canvas` means.
    """

    pool: Numbers
    canvas: Numbers
    size: Numbers
    ran_s: Floats
    start_s: Floats
    canvases: tuple[CanvasShape, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SimulationRun:
    """What became of every frame of a trace; one row of every column a frame, in the trace's order.

    Attributes:
        trace: what was sent.
        deadline_s: `(N,)` on the trace's clock.
        outcome, verdict: `(N,)` codes, see `OUTCOMES` and `VERDICTS`.
        rung: `(N,)` on which rung it ended; of a frame that was never sent where it would have been served.
        sent_s: `(N,)` when it, or its last piece, left its lane for a replica; NaN: never.
        end_s: `(N,)` when its caller was answered.
        batch: `(N,)` the row of the batch that its last piece went in; -1: none.
        is_tiled: `(N,)` whether it went in tiles.
        batches: see there.
        tile_px, tile_own_px: pixels of the canvases that tiles went on, and of the tiles on them.
        pools: the pools' names.
        num_replicas: of each pool, at the begin.
        end_of_work_s: when the last event happened.
    """

    trace: Trace
    deadline_s: Floats
    outcome: Codes
    verdict: Codes
    rung: Codes
    sent_s: Floats
    end_s: Floats
    batch: Numbers
    is_tiled: Codes
    batches: BatchColumns
    tile_px: int
    tile_own_px: int
    pools: tuple[str, ...]
    num_replicas: tuple[int, ...]
    end_of_work_s: float

    @property
    def in_time(self) -> npt.NDArray[np.bool_]:
        """`(N,)`: finished no later than its deadline."""
        return np.asarray((self.outcome == OUTCOME_CODES[Outcome.FINISHED]) & (self.end_s <= self.deadline_s))


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
