"""What the simulator foretells for a run of `overload.py`: the same trace, the same scheduler, measured latencies."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

import numpy as np
from overload_figures import FINISHED, Figures, Record, figures_of
from overload_trace import CRITICAL, Send

from serve_app.latency import LatencyModel, LatencyTable
from serve_app.plan import Plan
from serve_app.scheduler import Scheduler
from serve_app.simulation.simulate import SimulatedCalls, Simulation
from serve_app.simulation.simulation_run import OUTCOMES, VERDICTS
from serve_app.simulation.traces import Trace

# Of what a batch takes beside its device, most lies before: the call, fetching and placing.
SHARE_BEFORE = 0.7


def predicted(
    plan: Plan, sends: Sequence[Send], seconds: float, *, table: LatencyTable, around_s: float, hop_s: float
) -> Figures:
    """The figures of this trace of so many seconds, served by this plan, as simulated.

    Args:
        plan: what is served.
        sends: the trace.
        seconds: its length.
        table: how long batches take, as the service has learnt it under this load.
        around_s: what a batch takes beside its device, likewise.
        hop_s: what a frame takes from its client to the router and back.
    """
    calls = SimulatedCalls(before_s=SHARE_BEFORE * around_s, after_s=(1 - SHARE_BEFORE) * around_s)
    scheduler = Scheduler(plan, LatencyModel(table))
    simulation = Simulation(plan, scheduler, LatencyModel(table), random.Random(1).gauss, calls=calls)  # noqa: S311
    run = simulation.run(_trace(sends, seconds))
    records = [
        Record(
            camera=send.camera,
            priority=send.priority,
            slo_s=send.slo_s,
            at_s=send.at_s,
            send_late_s=0.0,
            outcome=OUTCOMES[run.outcome[row] - 1].value,
            latency_s=float(run.end_s[row]) - send.at_s + hop_s,
            batch_size=int(run.batches.size[run.batch[row]]) if run.batch[row] >= 0 else 0,
            verdict=VERDICTS[run.verdict[row] - 1].value,
            rung=int(run.rung[row]),
        )
        for row, send in enumerate(sends)
    ]
    return figures_of(records, seconds)


def hop_s(records: Sequence[Record]) -> float:
    """What a frame takes from its client to the router and back: the median over the finished ones, 0 without any."""
    hops_s = [
        record.latency_s - record.router_s
        for record in records
        if record.outcome == FINISHED and record.latency_s is not None and record.router_s is not None
    ]
    return statistics.median(hops_s) if hops_s else 0.0


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
