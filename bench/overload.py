"""More frames than the machine can do: how many are answered in time, and do the critical ones come through?

Usage: python bench/overload.py [--seconds S] [--loads L,L…] [--seed N] [--no-plain] [--plain-own-size]
       [--no-ladder] [--plan PATH] [--capacity-hz C]

Eleven cameras of five sizes send, open loop, a multiple of what the bare engine can do, to the service and then, frame
for frame the same, to plain Ray Serve with `@serve.batch`. Latency counts from when a frame was due. Percentiles are
over finished frames, late ones included; shares of critical frames are over all that were offered. CPU is counted from
the first frame to the last answer, over every process from camera to engine, for each frame offered.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from capacity import measured_capacity_hz
from overload_client import FRAMELANE, PLAIN, Job, Report, report_from
from overload_figures import LOST, figures_of
from overload_plan import DEFAULT_PLAN_PATH, overload_plan
from overload_table import Row, header, line
from overload_trace import SIZES_HW, Send, trace
from plain_serve import plain_app, plain_ray, session_name
from prediction import predicted

from serve_app.client import Client
from serve_app.latency import LatencyTable
from serve_app.local_service import local_service
from serve_app.plan import Plan

FOLDER = Path(__file__).parent
OUT_PATH = FOLDER.parent / "out" / "bench-overload.json"
CAPACITY_SECONDS = 10.0
# After a trace's end: twice the longest deadline. What has no answer then never comes in time.
DRAIN_S = 10.0
# Python, Ray, the pictures, the first calls; on a busy machine.
CLIENT_START_S = 120.0
# Frames that expire leave by themselves; a queue that is not empty then never will be.
MAX_IDLE_WAIT_S = 60.0
IDLE_POLL_S = 0.2

Traces = Mapping[float, Sequence[Send]]


class Results:
    """Prints rows as they come, and keeps everything in one JSON file."""

    def __init__(self, settings: dict[str, Any], path: Path) -> None:
        """Take what the runs have in common, and where to write; prints to what is standard output now.

        While a local service runs, standard output is redirected.
        """
        self._content: dict[str, Any] = {**settings, "runs": []}
        self._path = path
        self._print = functools.partial(print, file=sys.stdout, flush=True)

    def say(self, text: str) -> None:
        """Print a line."""
        self._print(text)

    def note(self, **facts: float) -> None:
        """Keep more of what the runs have in common."""
        self._content.update(facts)
        self._write()

    def keep_table(self, load: float, table: LatencyTable) -> None:
        """Keep what the service believed when a run began."""
        shapes = [[*key, *latency] for key, latency in sorted(table.entries.items())]
        self._content.setdefault("tables", {})[f"{load:g}"] = shapes

    def add(self, row: Row, report: Report | None) -> None:
        """Print and keep one run; None: it was simulated."""
        self.say(line(row))
        for record in report.records if report else ():
            if record.outcome == LOST:
                self.say(f"{'':22}LOST: {record.priority} frame of {record.camera}, due at {record.at_s:.3f} s")
        self._content["runs"].append(
            {
                **asdict(row),
                "offered_hz": row.figures.offered_hz,
                "good_hz": row.figures.good_hz,
                "cpu_outside_engine_ms": row.cpu_outside_ms,
                "cpu_engine_ms": row.cpu_engine_ms,
                "records": [asdict(record) for record in report.records] if report else [],
            }
        )
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._content))


def main() -> None:
    """Print one row a system and load."""
    options = _options()
    plan = overload_plan(options.plan, ladder=options.ladder)
    model, num_threads = plan.models[plan.default_model], plan.pools[0].num_threads
    capacity_hz = options.capacity_hz or measured_capacity_hz(model, CAPACITY_SECONDS, num_threads)
    traces = {load: trace(load, capacity_hz, options.seconds, options.seed) for load in options.loads}
    settings = {
        "capacity_hz": capacity_hz,
        "seconds": options.seconds,
        "seed": options.seed,
        "plan": str(options.plan or DEFAULT_PLAN_PATH),
        "ladder": options.ladder,
        "num_cores": os.cpu_count(),
    }
    results = Results(settings, OUT_PATH)
    results.say(f"{model}, {options.seconds:g} s a run; capacity (bare engine, load 1): {capacity_hz:.1f} frames/s")
    results.say(header())
    name = FRAMELANE if options.ladder else f"{FRAMELANE}, no ladder"
    run_framelane(plan, traces, options.seconds, capacity_hz, results, name=name)
    if options.plain:
        serve_plain = functools.partial(plain_app, model, SIZES_HW, num_threads, own_size=options.plain_own_size)
        name = f"plain Serve, {'own size' if options.plain_own_size else 'padded'}"
        run_plain(serve_plain, traces, options.seconds, capacity_hz, results, name=name)
    if options.capacity_hz is None:
        after_hz = measured_capacity_hz(model, CAPACITY_SECONDS, num_threads)
        results.note(capacity_after_hz=after_hz)
        results.say(
            f"capacity measured again: {after_hz:.1f} frames/s; if that is far from the first, the machine has changed"
        )
    results.say(f"everything: {OUT_PATH}")


def run_framelane(
    plan: Plan, traces: Traces, seconds: float, capacity_hz: float, results: Results, *, name: str
) -> None:
    """Serve the plan once, play every trace; between two the queue runs empty."""
    with local_service(plan) as client:
        for load, sends in traces.items():
            table = client.latency_table()
            results.keep_table(load, table)
            report = play(FRAMELANE, sends, seconds)
            figures = figures_of(report.records, seconds)
            results.add(Row(name, load, capacity_hz, figures, report.cpu_s, report.others_cores), report)
            simulated = predicted(plan, sends, seconds, table=table, measured=report.records)
            results.add(Row("  simulated", load, capacity_hz, simulated), None)
            wait_until_idle(client)


def run_plain(
    serve_plain: Callable[[], AbstractContextManager[None]],
    traces: Traces,
    seconds: float,
    capacity_hz: float,
    results: Results,
    *,
    name: str,
) -> None:
    """Play every trace to plain Ray Serve, each time deployed anew: what a run leaves undone goes with its replica."""
    with plain_ray():
        for load, sends in traces.items():
            with serve_plain():
                report = play(PLAIN, sends, seconds)
            figures = figures_of(report.records, seconds)
            results.add(Row(name, load, capacity_hz, figures, report.cpu_s, report.others_cores), report)


def play(system: str, sends: Sequence[Send], seconds: float) -> Report:
    """Play a trace, from a process of its own, to the system that runs on this process's Ray."""
    job = Job(tuple(sends), seconds, DRAIN_S, os.getpid(), session_name())
    with tempfile.TemporaryDirectory() as folder:
        job_path, report_path = Path(folder) / "job.json", Path(folder) / "report.json"
        job_path.write_text(json.dumps(asdict(job)))
        command = [
            sys.executable, str(FOLDER / "overload_client.py"), "--address", ray.get_runtime_context().gcs_address,
            "--system", system, "--job", str(job_path), "--report", str(report_path),
        ]  # fmt: skip
        subprocess.run(command, check=True, timeout=seconds + DRAIN_S + CLIENT_START_S)
        return report_from(json.loads(report_path.read_text()))


def wait_until_idle(client: Client) -> None:
    """Wait until no frame is in flight.

    Raises:
        TimeoutError: the service keeps some.
    """
    give_up_s = time.monotonic() + MAX_IDLE_WAIT_S
    while (num_in_flight := client.status().num_in_flight) > 0:
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"service: {num_in_flight} frames in flight {MAX_IDLE_WAIT_S:.0f} s after a run")
        time.sleep(IDLE_POLL_S)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each run")
    parser.add_argument("--loads", type=_loads, default="0.5,0.9,1.5,2.5", help="multiples of the capacity")
    parser.add_argument("--seed", type=int, default=1, help="of the cameras' phases and of which frames are critical")
    parser.add_argument("--plain", action=argparse.BooleanOptionalAction, default=True, help="the baseline too")
    parser.add_argument(
        "--ladder", action=argparse.BooleanOptionalAction, default=True, help="the plan's, if it has one"
    )
    parser.add_argument("--plain-own-size", action="store_true", help="the baseline pads no frame to another's size")
    parser.add_argument("--plan", type=Path, help="of the service; default: overload.yaml beside this file")
    parser.add_argument("--capacity-hz", type=float, help="frames/s of a load of 1; default: measured first")
    return parser.parse_args()


def _loads(text: str) -> tuple[float, ...]:
    return tuple(float(load) for load in text.split(","))


if __name__ == "__main__":
    main()
