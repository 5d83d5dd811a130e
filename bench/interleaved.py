"""Mean batch on interleaved sizes: the scheduler against a batcher that closes at the first other shape.

Usage: python bench/interleaved.py [--cameras N] [--seconds S]

SIMULATED with an ESTIMATED latency table of a GPU that gains from batches. Both get the same trace, the same devices,
the same batch limits and the same calls; the fleet grows with the load, which is in device seconds at full batches.
Two lengths of the calls beside the devices: what the scheduler assumes of Ray's, and short ones, under which small
batches are enough until the devices are full. Wanted: at least 3 times the other's mean batch at full devices.
"""

from __future__ import annotations

import argparse
import random

from shape_closing import ShapeClosing
from simulated_fleets import mixed_fleet, plan_of, table_of

from serve_app.latency import LatencyModel
from serve_app.plan import Plan
from serve_app.scheduler import Scheduler
from serve_app.simulation.simulate import Policy, Simulation
from serve_app.simulation.simulated_calls import SimulatedCalls
from serve_app.simulation.simulation_report import SimulationReport, offered_use, report
from serve_app.simulation.traces import Trace

LOADS = (0.5, 0.8, 0.9, 1.0, 1.1, 1.2)
CALLS = (SimulatedCalls(), SimulatedCalls(before_s=0.001, after_s=0.0005))
WANTED_RATIO = 3.0


def main() -> None:
    """Print both mean batches and their ratio for several loads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0, help="simulated")
    parser.add_argument("--replicas", type=int, default=2, help="GPUs")
    options = parser.parse_args()
    plan = plan_of(options.replicas)
    latency = LatencyModel(table_of(plan))
    fleet = mixed_fleet(options.cameras, 5.0, options.seconds)
    unit = offered_use(plan, fleet.at_load(1.0), latency)
    print(f"SIMULATED: {options.cameras} cameras of five sizes at 5 fps and more, interleaved, no ladder")
    print(f"{options.replicas} GPUs, ESTIMATED: {table_of(plan).machine}")
    for calls in CALLS:
        print(
            f"\ncalls of {(calls.before_s + calls.after_s) * 1000:g} ms beside the device; mean batch and share in time"
        )
        print(f"{'load':>5} {'frames/s':>9} | {'scheduler':>9} {'in time':>8} | {'closing':>8} {'in time':>8} | ratio")
        for load in LOADS:
            trace = fleet.at_load(load / unit)
            ours = play(plan, trace, Scheduler(plan, LatencyModel(table_of(plan))), calls)
            theirs = play(plan, trace, ShapeClosing(plan, latency), calls)
            ratio = ours.mean_batch / theirs.mean_batch
            print(
                f"{load:5.2f} {trace.rate_hz:9,.0f} | {ours.mean_batch:9.2f} {ours.in_time_fraction:8.1%} | "
                f"{theirs.mean_batch:8.2f} {theirs.in_time_fraction:8.1%} | {ratio:5.2f}"
                f"{' (wanted)' if ratio >= WANTED_RATIO else ''}"
            )


def play(plan: Plan, trace: Trace, policy: Policy, calls: SimulatedCalls) -> SimulationReport:
    """One run; the same seed gives both the same scatter."""
    lots = random.Random(0)  # noqa: S311 (a simulation, no secrets)
    run = Simulation(plan, policy, LatencyModel(table_of(plan)), lots.gauss, calls=calls).run(trace)
    return report(run, offered_use=offered_use(plan, trace, LatencyModel(table_of(plan))))


if __name__ == "__main__":
    main()
