"""What happened in one simulation, in columns; `simulation_report.py` works the figures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.spec import CanvasShape
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
