"""HTTP under many connections and slow clients: no answer lost, bounded memory, and critical keys unharmed.

A real service on this machine with engines that only wait. Closed connections, answers by status, the memory of the
processes that hold bodies, and the latency of a critical key beside the crowd are printed. The critical key's client is
a process of its own, and calls at the port of critical keys (`--one-port`: at the crowd's).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from http_client import Answered, Connection, request_bytes

from framelane_inspection.scenes import draw_scene
from serve_app.config import plan_from
from serve_app.fake_pool import FakeEngines
from serve_app.http.key_rules import KeyRule, hash_of
from serve_app.key_file import add_key
from serve_app.local_service import local_service
from serve_app.plan import Plan

CRITICAL, NORMAL = "fl_critical", "fl_normal"
HOST = "127.0.0.1"
ENGINE_S = 0.02
CRITICAL_SLO_S = 2.0
NORMAL_SLO_S = 5.0
CRITICAL_HZ = 4.0
READ_TIMEOUT_S = 5.0
# Ray's names of the processes that hold bodies: Serve's proxy, and ours.
HOLDERS = (
    "ray::ProxyActor",
    "ray::ServeReplica:framelane-http:http",
    "ray::ServeReplica:framelane-http:http-critical",
    "ray::ServeReplica:framelane:router",
)
# Beyond it a client would have to be told that its answer is lost.
PATIENCE_S = 60.0


@dataclass(slots=True)
class Crowd:
    """What became of all requests of one kind."""

    answers: list[Answered] = field(default_factory=list)
    num_unanswered: int = 0

    def line(self) -> str:
        """Counts by status, and how long it took."""
        counts = Counter(answer.status for answer in self.answers)
        seconds = np.array([answer.seconds for answer in self.answers] or [np.nan])
        told = ", ".join(f"{count} × {status}" for status, count in sorted(counts.items()))
        inside_s = [each.inside_s for each in self.answers if each.inside_s is not None]
        p50, p99 = np.percentile(seconds, 50), np.percentile(seconds, 99)
        return (
            f"{len(self.answers)} answers ({told}), {self.num_unanswered} without; p50 {p50 * 1000:.0f} ms, "
            f"p99 {p99 * 1000:.0f} ms, longest {seconds.max() * 1000:.0f} ms, "
            f"of which in the replica p50 {np.median(inside_s or [np.nan]) * 1000:.0f} ms"
        )


def make_plan(folder: Path, port: int, critical_port: int | None) -> Plan:
    """One camera size, two keys."""
    keys = folder / "keys.yaml"
    add_key(keys, KeyRule("critical", hash_of(CRITICAL), may_be_critical=True))
    add_key(keys, KeyRule("normal", hash_of(NORMAL)))
    return plan_from(
        {
            "models": {"full": "bundled:inspection-light"},
            "buckets": {"vga": {"canvases": [[480, 640]], "batches": [1, 2, 4]}},
            "slo_s": {"critical": CRITICAL_SLO_S, "normal": NORMAL_SLO_S},
            "http": {
                "port": port,
                "critical_port": critical_port,
                "keys": "keys.yaml",
                "read_timeout_s": READ_TIMEOUT_S,
            },
        },
        folder,
    )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at, just now."""
    with ExitStack() as at_end:
        probes = [at_end.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]


def memory_mb() -> dict[str, float]:
    """Resident memory of the processes that hold bodies: Serve's proxy and the replica of HTTP."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_text(errors="replace")
            resident_pages = int((folder / "statm").read_text().split()[1])
        except (OSError, IndexError):  # it has ended
            continue
        name = title.strip(" \0").partition(".")[0]  # Ray adds the method that runs
        if name in HOLDERS:
            found[name] = resident_pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return found


async def one_of_the_crowd(port: int, request: bytes, until_s: float, crowd: Crowd) -> None:
    """Sends frame after frame, and waits as it is told."""
    connection = Connection(HOST, port)
    while time.monotonic() < until_s:
        await _ask(connection, request, crowd)
        told = crowd.answers[-1] if crowd.answers else None
        await asyncio.sleep(told.retry_after_s if told is not None and told.retry_after_s else 0.0)
    connection.close()


async def one_slow(port: int, request: bytes, until_s: float, crowd: Crowd) -> None:
    """Sends its last kilobyte byte by byte."""
    while time.monotonic() < until_s:
        connection = Connection(HOST, port)
        await _ask(connection, request, crowd, slow_bytes=1000, pause_s=0.1)
        connection.close()


async def one_critical(port: int, request: bytes, until_s: float, crowd: Crowd) -> None:
    """Sends at its rate, whatever the answers."""
    tasks, next_s = [], time.monotonic()
    spare: list[Connection] = []

    async def ask() -> None:
        connection = spare.pop() if spare else Connection(HOST, port)
        await _ask(connection, request, crowd)
        spare.append(connection)

    while next_s < until_s:
        tasks.append(asyncio.create_task(ask()))
        next_s += 1 / CRITICAL_HZ
        await asyncio.sleep(max(0.0, next_s - time.monotonic()))
    await asyncio.gather(*tasks)


async def _ask(connection: Connection, request: bytes, crowd: Crowd, **slowly: float) -> None:
    try:
        asked = connection.ask(request, **slowly)  # type: ignore[arg-type]
        crowd.answers.append(await asyncio.wait_for(asked, PATIENCE_S))
    except asyncio.TimeoutError:
        crowd.num_unanswered += 1
        connection.close()


async def drill(
    port: int, critical_port: int, image: bytes, num_connections: int, num_slow: int, seconds: float
) -> tuple[Crowd, ...]:
    """The crowd, the slow ones and a critical key at once."""
    crowd, slow = Crowd(), Crowd()
    until_s = time.monotonic() + seconds
    normal = request_bytes("/v1/detect?camera=belt-1", image, NORMAL)
    urgent = request_bytes("/v1/detect?camera=gate-1&priority=critical", image, CRITICAL)
    loop = asyncio.get_running_loop()
    # A process of its own: what is measured is the service, not how late this loop is.
    with ProcessPoolExecutor(1, get_context("spawn")) as beside:
        critical = loop.run_in_executor(beside, critical_for, critical_port, urgent, seconds)
        await asyncio.gather(
            *(one_of_the_crowd(port, normal, until_s, crowd) for _ in range(num_connections)),
            *(one_slow(port, normal, until_s, slow) for _ in range(num_slow)),
        )
        return crowd, slow, await critical


def critical_for(port: int, request: bytes, seconds: float) -> Crowd:
    """What became of the critical key's frames."""
    crowd = Crowd()
    asyncio.run(one_critical(port, request, time.monotonic() + seconds, crowd))
    return crowd


def main() -> None:
    """Run the drill and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--slow", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--one-port", action="store_true", help="the critical key comes to the crowd's port too")
    asked = parser.parse_args()
    port, other_port = free_ports(2)
    critical_port = port if asked.one_port else other_port
    image = cv2.imencode(".jpg", draw_scene((480, 640), seed=7).image_hwc)[1].tobytes()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("FRAMELANE_STATE_DIR", folder)
        plan = make_plan(Path(folder), port, None if asked.one_port else other_port)
        with local_service(plan, 2, FakeEngines(ENGINE_S), http=True) as client:
            alone = asyncio.run(drill(port, critical_port, image, 0, 0, min(10.0, asked.seconds)))[2]
            before = memory_mb()
            crowd, slow, critical = asyncio.run(
                drill(port, critical_port, image, asked.connections, asked.slow, asked.seconds)
            )
            after = memory_mb()
            print(
                f"{asked.connections} connections, {asked.slow} slow ones, {asked.seconds:g} s, {len(image)} B a frame"
            )
            print(f"critical alone:  {alone.line()}")
            print(f"critical beside: {critical.line()}")
            print(f"crowd:           {crowd.line()}")
            print(f"slow:            {slow.line()}")
            for name, mb in after.items():
                print(f"memory of {name}: {before.get(name, 0):.0f} MiB before, {mb:.0f} MiB after")
            print(f"outcomes: {client.status().outcomes}")


if __name__ == "__main__":
    main()
