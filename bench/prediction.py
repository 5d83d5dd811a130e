"""What the simulator foretells for a run of `overload.py`: the same trace, the same scheduler, measured latencies.

The machine's speed is taken as it was, second by second: here it drifts by a third within minutes, which no scheduler
knows before. What is foretold is what the scheduler makes of it: who waits for how long, who goes on a lower rung.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from overload_figures import FINISHED, Figures, Record, figures_of, percentile
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
MIN_NEAR = 3
# Which share of the frames is taken to have waited for nobody, however high the load.
LEAST_WAITS = 0.1
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
    """Draws what batches take from those that were measured at about the same moment; a `BatchTimes`.

    From batches of the same shape where there are any, as a long run scatters less than a short one.
    """

    def __init__(self, records: Sequence[Record], table: LatencyTable, lots: random.Random) -> None:
        """Take the records of a run, a table for shapes that it did not see, and where lots come from."""
        self._truth = LatencyModel(measured_table(records, table))
        self._lots = lots
        self._handing_over_s = handing_over_s(records)
        self._sample_of: dict[int, Sample] = {}
        self._all = _Samples()
        self._by_shape: dict[LatencyKey, _Samples] = {}
        for key, sample in samples_of(records, self._truth):
            self._all.add(sample)
            self._by_shape.setdefault(key, _Samples()).add(sample)

    def way_s(self, batch: Batch, now_s: float) -> tuple[float, float]:
        """See `BatchTimes.way_s`."""
        key = LatencyKey(batch.model, batch.canvas, len(batch.pieces))
        sample = self._sample_of[batch.batch_id] = self._by_shape.get(key, self._all).near(now_s, self._lots)
        return SHARE_BEFORE * sample.way_s, (1 - SHARE_BEFORE) * sample.way_s

    def run_s(self, batch: Batch, now_s: float) -> float:  # noqa: ARG002 - drawn with its way
        """See `BatchTimes.run_s`."""
        ratio = self._sample_of.pop(batch.batch_id).ratio
        return self._truth.predict_s(batch.model, batch.canvas, len(batch.pieces)) * ratio + self._handing_over_s

    def hop_s(self, now_s: float) -> float:
        """What a frame takes from the client to the router and back."""
        return self._all.near(now_s, self._lots).hop_s


class _Samples:
    """Samples by their moment; they are added in its order."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._at_s: list[float] = []

    def add(self, sample: Sample) -> None:
        """Add one that is no earlier than those before."""
        self._samples.append(sample)
        self._at_s.append(sample.at_s)

    def near(self, now_s: float, lots: random.Random) -> Sample:
        """One of those within half a window of this moment, or of the `MIN_NEAR` around it where these are fewer."""
        begin, end = bisect_left(self._at_s, now_s - WINDOW_S / 2), bisect_left(self._at_s, now_s + WINDOW_S / 2)
        if end - begin < MIN_NEAR:
            begin = max(0, min(bisect_left(self._at_s, now_s) - MIN_NEAR // 2, len(self._samples) - MIN_NEAR))
            end = begin + MIN_NEAR
        near = self._samples[begin:end]
        return lots.choices(near, [sample.weight for sample in near])[0]


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


def handing_over_s(records: Sequence[Record]) -> float:
    """What a replica takes from the end of a run to the begin of the next, which no stage of a frame tells.

    A frame that waited for nobody waited for just that, beside what is not its device's: of all waits one of the least.
    """
    waits_s = [
        (record.router_s or 0.0) - record.run_s - record.way_s
        for record in records
        if record.outcome == FINISHED and record.run_s is not None and record.way_s is not None
    ]
    return max(0.0, percentile(waits_s, LEAST_WAITS) or 0.0)


def samples_of(records: Sequence[Record], truth: LatencyModel) -> list[tuple[LatencyKey, Sample]]:
    """What the finished frames of a run tell of their batches, in order; tiles of a frame tell nothing of one batch."""
    samples = []
    for record in records:
        key = _shape_of(record)
        if key is None or record.run_s is None or record.way_s is None:
            continue
        latency_s, router_s = record.latency_s or 0.0, record.router_s or 0.0
        ratio = record.run_s / truth.predict_s(*key)
        hop_s = max(0.0, latency_s - router_s)
        samples.append((key, Sample(record.at_s + latency_s, ratio, record.way_s, hop_s, 1 / record.batch_size)))
    return sorted(samples, key=lambda each: each[1].at_s)


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
    hops_s = [times.hop_s(send.at_s) for send in sends]
    # At the router frames arrive later than they were due, and not quite in their order.
    arrivals = [
        (dataclasses.replace(send, at_s=send.at_s + SHARE_BEFORE * hop_s), send, hop_s)
        for send, hop_s in zip(sends, hops_s, strict=True)
    ]
    arrivals.sort(key=lambda arrival: arrival[0].at_s)
    simulation = Simulation(plan, Scheduler(plan, LatencyModel(table)), LatencyModel(table), lots.gauss, times=times)
    run = simulation.run(trace_of([arrived for arrived, _, _ in arrivals], seconds))
    records = []
    for row, (_, send, hop_s) in enumerate(arrivals):
        batch = int(run.batch[row])
        record = Record(
            camera=send.camera,
            priority=send.priority,
            slo_s=send.slo_s,
            at_s=send.at_s,
            send_late_s=0.0,
            outcome=OUTCOMES[run.outcome[row] - 1].value,
            latency_s=float(run.end_s[row]) - send.at_s + (1 - SHARE_BEFORE) * hop_s,
            batch_size=int(run.batches.size[batch]) if batch >= 0 else 0,
            verdict=VERDICTS[run.verdict[row] - 1].value,
            rung=int(run.rung[row]),
        )
        records.append(record)
    return records


def trace_of(sends: Sequence[Send], seconds: float) -> Trace:
    """These sends, as the simulator plays them."""
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
