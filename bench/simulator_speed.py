"""How many frames a second of one core the simulator plays: 10,000 cameras at 5 frames a second on simulated GPUs.

Usage: python bench/simulator_speed.py [--cameras N] [--fps F] [--seconds S] [--use U] [--tick-ms MS] [--profile]

Prints the processor seconds of this process and what they make for 60 simulated seconds; the fleet's trace is drawn
before and counted apart. The wanted figures: 30,000 frames a second, 60 s in under two minutes.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import random
import time

from simulated_fleets import GPU_TABLE, mixed_fleet, plan_for, table_of

from serve_app.latency import LatencyModel
from serve_app.scheduler import Scheduler
from serve_app.simulation.simulate import Simulation
from serve_app.simulation.simulated_calls import SimulatedCalls
from serve_app.simulation.simulation_report import offered_use, report

WANTED_HZ = 30_000
WANTED_S = 120.0
SIMULATED_S = 60.0


def main() -> None:
    """Print the speed and the run's main figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=10_000)
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="simulated")
    parser.add_argument("--use", type=float, default=0.8, help="of the GPUs with full batches")
    parser.add_argument("--tick-ms", type=float, default=0.0, help="one decision for all of so long; 0: at each event")
    parser.add_argument("--profile", action="store_true", help="where the time goes, by function")
    options = parser.parse_args()
    fleet = mixed_fleet(options.cameras, options.fps, options.seconds)
    plan = plan_for(fleet, options.use)
    table = table_of(plan)
    begin_s = time.process_time()
    trace = fleet.at_load(1.0)
    drawn_s = time.process_time() - begin_s
    lots = random.Random(0)  # noqa: S311 (a simulation, no secrets)
    calls = SimulatedCalls(tick_s=options.tick_ms / 1000)
    simulation = Simulation(plan, Scheduler(plan, LatencyModel(table)), LatencyModel(table), lots.gauss, calls=calls)
    profiler = cProfile.Profile() if options.profile else None
    begin_s = time.process_time()
    run = profiler.runcall(simulation.run, trace) if profiler else simulation.run(trace)
    took_s = time.process_time() - begin_s
    figures = report(run, offered_use=offered_use(plan, trace, LatencyModel(table)))
    frames_hz = len(trace) / took_s
    minute_s = took_s * SIMULATED_S / options.seconds
    num_gpus = plan.pools[0].num_replicas
    print(f"{fleet.num_cameras:,} cameras at {options.fps:g} fps on {num_gpus} × {GPU_TABLE} (estimated)")
    print(f"{len(trace):,} frames, {options.seconds:g} s: drawn in {drawn_s:.2f} s, played in {took_s:.2f} core s")
    print(f"{frames_hz:,.0f} frames/s (wanted {WANTED_HZ:,}); 60 s take {minute_s:.0f} s (wanted below {WANTED_S:.0f})")
    use, padding = figures.pools[0].use_fraction, figures.padding_fraction
    print(f"offered {figures.offered_use:.2f}, in time {figures.in_time_fraction:.2%}, device use {use:.1%}", end=", ")
    print(f"mean batch {figures.mean_batch:.2f}, padding {padding:.1%}")
    if profiler:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(28)


if __name__ == "__main__":
    main()
