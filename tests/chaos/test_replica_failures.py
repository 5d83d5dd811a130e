"""Replicas that are stopped, hang and are slow, on real Serve under load: nobody goes unanswered. Engines are fakes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ray.cloudpickle import register_pickle_by_value, unregister_pickle_by_value

from engines.cpu_device import CpuDevice
from engines.fake import FakeEngine
from engines.spec import CanvasShape, WarmShape
from serve_app import app
from serve_app.client import Client
from serve_app.config import plan_from
from serve_app.pool_engines import PoolEngines
from serve_app.ray_session import deployed, start_ray, stop_ray

VGA = CanvasShape(480, 640)
BATCHES = (1, 2, 4)
RUN_S = 0.02
PATIENCE_S = 60.0
CRITICAL_SLO_S, NORMAL_SLO_S = 3.0, 6.0


class ToldEngine(FakeEngine):
    """A fake engine that does what a file in a folder says of its process: be slow, or hang."""

    def __init__(self, folder: Path):
        super().__init__({WarmShape(VGA, batch): RUN_S for batch in BATCHES}, self._pass)
        self._folder = folder
        (folder / f"{os.getpid()}.here").touch()

    def _pass(self, seconds: float) -> None:
        told = self._folder / f"{os.getpid()}.told"
        factor = float(told.read_text()) if told.exists() else 1.0
        time.sleep(factor * seconds)


def told_engines(folder: Path, plan, pool) -> PoolEngines:
    """Stands in for `app.make_engines`."""
    return PoolEngines({each.name: ToldEngine(folder) for each in plan.buckets_of(pool)}, CpuDevice(), lambda: None)


class Load:
    """Two threads that send frames, one of them critical ones, and count how they ended."""

    def __init__(self, client: Client):
        self._client = client
        self._stop = threading.Event()
        self.ended: list[tuple[str, str, float]] = []
        self._threads = [threading.Thread(target=self._send, args=(who,)) for who in ("critical", "normal", "normal")]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads), "a caller waits for ever"

    def _send(self, priority: str) -> None:
        image_hwc = np.full((480, 640, 3), 128, np.uint8)
        while not self._stop.is_set():
            began_s = time.monotonic()
            slo_s = CRITICAL_SLO_S if priority == "critical" else NORMAL_SLO_S
            (result,) = self._client.detect_many([image_hwc], camera=priority, priority=priority, slo_s=slo_s)
            self.ended.append((priority, result.outcome.value, time.monotonic() - began_s))
            time.sleep(0.02)

    def longest_s(self, priority: str) -> float:
        """The longest that a frame of this priority took."""
        return max(took_s for its, _, took_s in self.ended if its == priority)

    def outcomes(self) -> Counter[tuple[str, str]]:
        """How many frames of each priority ended how."""
        return Counter((priority, outcome) for priority, outcome, _ in self.ended)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where engines say that they are there, and are told what to do."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def client(folder):
    """A service of two replicas with fake engines, on a Ray of its own."""
    this = sys.modules[__name__]
    register_pickle_by_value(this)  # replicas do not find this file
    make_engines, app.make_engines = app.make_engines, partial(told_engines, folder)
    plan = plan_from(
        {
            "models": {"any": "bundled:inspection-light"},
            "pools": {"cpu": {"replicas": 2, "cpus": 0.5}},
            "buckets": {"vga": {"canvases": [[480, 640]], "batches": list(BATCHES)}},
        },
        folder,
    )
    start_ray(num_cpus=3)
    try:
        with deployed(app.application(plan)):
            yield Client.connect()
    finally:
        stop_ray()
        app.make_engines = make_engines
        unregister_pickle_by_value(this)


def pids(folder: Path) -> list[int]:
    """The processes of the replicas, the oldest first."""
    files = sorted(folder.glob("*.here"), key=lambda path: path.stat().st_mtime_ns)
    return [pid for pid in (int(path.stem) for path in files) if _lives(pid)]


def until(what: str, holds, *, timeout_s: float = PATIENCE_S) -> float:
    """Wait for something outside; how long it took, which is printed."""
    began_s = time.monotonic()
    while not holds():
        assert time.monotonic() - began_s < timeout_s, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(0.05)
    took_s = time.monotonic() - began_s
    print(f"{what}: after {took_s:.1f} s")
    return took_s


def healthy(client: Client) -> int:
    """Replicas that get batches."""
    (pool,) = client.status().pools
    return len(pool.replicas) - len(pool.unhealthy)


def test_a_stopped_replica_costs_nobody_an_answer(client, folder):
    """SIGSTOP under load: critical frames in time by the other one; after SIGCONT it serves again, or another does."""
    until("two replicas", lambda: healthy(client) == 2)
    stopped = pids(folder)[0]
    with Load(client) as load:
        until("load", lambda: len(load.ended) > 30)
        os.kill(stopped, signal.SIGSTOP)
        try:
            until("the stopped one gets no more frames", lambda: healthy(client) == 1)
            until("more load", lambda before=len(load.ended): len(load.ended) > before + 30)
        finally:
            os.kill(stopped, signal.SIGCONT)
        until("two replicas again", lambda: healthy(client) == 2)
    print(f"longest: critical {load.longest_s('critical'):.2f} s, normal {load.longest_s('normal'):.2f} s")
    assert {outcome for _, outcome in load.outcomes()} == {"finished"}
    assert load.longest_s("critical") < CRITICAL_SLO_S
    assert client.status().num_in_flight == 0


def test_a_replica_whose_engine_hangs_is_replaced(client, folder):
    """Its thread never comes back: frames go to the other one, and a new process takes its place."""
    until("two replicas", lambda: healthy(client) == 2)
    hung = pids(folder)[0]
    with Load(client) as load:
        until("load", lambda: len(load.ended) > 30)
        (folder / f"{hung}.told").write_text("1e6")
        until("the hung one gets no more frames", lambda: healthy(client) == 1)
        until("the hung process is gone", lambda: not _lives(hung))
        until("two replicas again", lambda: healthy(client) == 2)
    print(f"longest: critical {load.longest_s('critical'):.2f} s, normal {load.longest_s('normal'):.2f} s")
    assert {outcome for _, outcome in load.outcomes()} == {"finished"}
    assert load.longest_s("critical") < CRITICAL_SLO_S


def test_a_slow_replica_is_drained_and_comes_back(client, folder):
    """Twelve times slower than it was: it is found out by its batches, and let in again by its probes."""
    until("two replicas", lambda: healthy(client) == 2)
    slow = pids(folder)[0]
    with Load(client) as load:
        until("load", lambda: len(load.ended) > 30)
        (folder / f"{slow}.told").write_text("12")
        until("the slow one is drained", lambda: any("slow" in why for why in reasons(client)))
        (folder / f"{slow}.told").unlink()
        until("two replicas again", lambda: healthy(client) == 2)
    assert {outcome for _, outcome in load.outcomes()} == {"finished"}


def reasons(client: Client) -> list[str]:
    """What is held against replicas."""
    (pool,) = client.status().pools
    return list(pool.unhealthy.values())


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
