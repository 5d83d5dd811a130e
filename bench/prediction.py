"""What the simulator foretells for a run of `overload.py`: the same trace, the same scheduler, measured latencies.

The machine's speed is taken as it was, second by second: here it drifts by a third within minutes, which no scheduler
knows before. What is foretold is what the scheduler makes of it: who waits for how long, who goes on a lower rung.
"""

from __future__ import annotations

import itertools
import random
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from overload_figures import FINISHED, Figures, Record, figures_of
from overload_trace import CRITICAL, Send

from engines.spec import CanvasShape
from serve_app.batching import Batch
from serve_app.latency import Latency, LatencyKey, LatencyModel, LatencyTable
from serve_app.plan import Plan
from serve_app.pool_queue import SHARE_BEFORE
from serve_app.scheduler import Scheduler
from serve_app.simulation.simulate import Simulation
from serve_app.simulation.simulation_run import OUTCOMES, VERDICTS
from serve_app.simulation.traces import Trace

# What was measured this close to a moment stands for it: a dozen batches at the lowest load.
WINDOW_S = 1.0
# Near its capacity a pool goes down the ladder for seconds at a time, by chance: several runs say what is usual.
NUM_RUNS = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """What one batch took.

    Attributes:
        at_s: when its answer came, from the trace's begin.
        ratio: its time on the device, in units of the mean of its shape.
        way_s: its way to the device and back.
        hop_s: what its frame took from the client to the router and back.
        weight: 1 over its frames, as each of them tells of it.
    """

    at_s: float
    ratio: float
    way_s: float
    hop_s: float
    weight: float


class MeasuredTimes:
    """Draws what batches take from those that were measured at about the same moment; a `BatchTimes`."""

    def __init__(self, records: Sequence[Record], table: LatencyTable, lots: random.Random) -> None:
        """Take the records of a run, a table for shapes that it did not see, and where lots come from."""
        self._truth = LatencyModel(measured_table(records, table))
        self._samples = sorted(samples_of(records, self._truth), key=lambda sample: sample.at_s)
        self._at_s = [sample.at_s for sample in self._samples]
        self._lots = lots
        self._sample_of: dict[int, Sample] = {}
        self.drawn: list[Sample] = []

    def way_s(self, batch: Batch, now_s: float) -> tuple[float, float]:
        """See `BatchTimes.way_s`."""
        self.drawn.append(self._sample(now_s))
        self._sample_of[batch.batch_id] = self.drawn[-1]
        way_s = self.drawn[-1].way_s
        return SHARE_BEFORE * way_s, (1 - SHARE_BEFORE) * way_s

    def run_s(self, batch: Batch, now_s: float) -> float:  # noqa: ARG002 - drawn with its way
        """See `BatchTimes.run_s`."""
        ratio = self._sample_of.pop(batch.batch_id).ratio
        return self._truth.predict_s(batch.model, batch.canvas, len(batch.pieces)) * ratio

    def _sample(self, now_s: float) -> Sample:
        """One of those near this moment; the nearest, where there is none."""
        begin, end = bisect_left(self._at_s, now_s - WINDOW_S / 2), bisect_left(self._at_s, now_s + WINDOW_S / 2)
        near = self._samples[begin:end] or self._samples[min(begin, len(self._samples) - 1) :][:1]
        return self._lots.choices(near, [sample.weight for sample in near])[0]


def measured_table(records: Sequence[Record], table: LatencyTable) -> LatencyTable:
    """The mean of each shape that a run saw; of others what the table says, as much slower as those that it saw."""
    runs_s: dict[LatencyKey, list[float]] = {}
    for record in records:
        if (key := _shape_of(record)) is not None and record.run_s is not None:
            runs_s.setdefault(key, []).append(record.run_s)
    seen = {key: statistics.fmean(runs) for key, runs in runs_s.items()}
    believed = LatencyModel(table)
    total_s = sum(seen[key] * len(runs) for key, runs in runs_s.items())
    slower = total_s / sum(believed.predict_s(*key) * len(runs) for key, runs in runs_s.items())
    entries = {key: latency._replace(run_s=latency.run_s * slower) for key, latency in table.entries.items()}
    entries |= {key: Latency(run_s, 0.0, len(runs_s[key])) for key, run_s in seen.items()}
    return LatencyTable(table.machine, table.origin, entries)


def samples_of(records: Sequence[Record], truth: LatencyModel) -> list[Sample]:
    """What the finished frames of a run tell of their batches; tiles of a frame tell nothing of one batch."""
    samples = []
    for record in records:
        key = _shape_of(record)
        if key is None or record.run_s is None or record.way_s is None:
            continue
        latency_s, router_s = record.latency_s or 0.0, record.router_s or 0.0
        ratio = record.run_s / truth.predict_s(*key)
        hop_s = max(0.0, latency_s - router_s)
        samples.append(Sample(record.at_s + latency_s, ratio, record.way_s, hop_s, 1 / record.batch_size))
    return samples


def _shape_of(record: Record) -> LatencyKey | None:
    """What a frame was computed with; None if it was not."""
    if record.outcome != FINISHED or record.canvas is None or record.model is None:
        return None
    height, width = map(int, record.canvas.split("x"))
    return LatencyKey(record.model, CanvasShape(height, width), record.batch_size)


def predicted(
    plan: Plan, sends: Sequence[Send], seconds: float, *, table: LatencyTable, measured: Sequence[Record]
) -> Figures:
    """The figures of this trace of so many seconds, served by this plan, as simulated `NUM_RUNS` times.

    Args:
        plan: what is served.
        sends: the trace.
        seconds: its length.
        table: how long batches take, as the service believed when the run began.
        measured: the records of the real run, for what batches took at each moment; their waits are not looked at.
    """
    runs = [_simulated(plan, sends, seconds, table, measured, seed) for seed in range(NUM_RUNS)]
    return figures_of(list(itertools.chain.from_iterable(runs)), NUM_RUNS * seconds)


def _simulated(
    plan: Plan, sends: Sequence[Send], seconds: float, table: LatencyTable, measured: Sequence[Record], seed: int
) -> list[Record]:
    lots = random.Random(seed)  # noqa: S311 (a simulation, no secrets)
    times = MeasuredTimes(measured, table, lots)
    simulation = Simulation(plan, Scheduler(plan, LatencyModel(table)), LatencyModel(table), lots.gauss, times=times)
    run = simulation.run(_trace(sends, seconds))
    records = []
    for row, send in enumerate(sends):
        batch = int(run.batch[row])
        hop_s = times.drawn[batch].hop_s if batch >= 0 else 0.0
        record = Record(
            camera=send.camera,
            priority=send.priority,
            slo_s=send.slo_s,
            at_s=send.at_s,
            send_late_s=0.0,
            outcome=OUTCOMES[run.outcome[row] - 1].value,
            latency_s=float(run.end_s[row]) - send.at_s + hop_s,
            batch_size=int(run.batches.size[batch]) if batch >= 0 else 0,
            verdict=VERDICTS[run.verdict[row] - 1].value,
            rung=int(run.rung[row]),
        )
        records.append(record)
    return records


def _trace(sends: Sequence[Send], seconds: float) -> Trace:
    cameras = sorted({send.camera for send in sends})
    sizes_hw = sorted({tuple(send.size_hw) for send in sends})
    return Trace(
        at_s=np.array([send.at_s for send in sends]),
        camera=np.array([cameras.index(send.camera) for send in sends]),
        size=np.array([sizes_hw.index(tuple(send.size_hw)) for send in sends]),
        is_critical=np.array([send.priority == CRITICAL for send in sends]),
        slo_s=np.array([send.slo_s for send in sends]),
        cameras=tuple(cameras),
        sizes_hw=tuple((height, width) for height, width in sizes_hw),
        duration_s=seconds,
    )
