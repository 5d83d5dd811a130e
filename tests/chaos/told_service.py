"""A service of fake engines that can be told to hang or be slow, load on it, and waiting for what happens."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from ray.cloudpickle import register_pickle_by_value, unregister_pickle_by_value

from engines.cpu_device import CpuDevice
from engines.fake import FakeEngine
from engines.spec import CanvasShape, WarmShape
from serve_app import app
from serve_app.client import Client
from serve_app.config import plan_from
from serve_app.pool_engines import PoolEngines
from serve_app.ray_session import deployed

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

    def goes_on(self) -> None:
        """Wait until some more frames have ended."""
        num_before = len(self.ended)
        until("more frames", lambda: len(self.ended) > num_before + 30)

    def longest_s(self, priority: str) -> float:
        """The longest that a frame of this priority took."""
        return max(took_s for its, _, took_s in self.ended if its == priority)

    def outcomes(self) -> Counter[tuple[str, str]]:
        """How many frames of each priority ended how."""
        return Counter((priority, outcome) for priority, outcome, _ in self.ended)


@contextmanager
def told_service(folder: Path, num_cpus: float = 0.5) -> Iterator[Client]:
    """A service of two replicas with such engines, on the Ray that is connected."""
    this = sys.modules[__name__]
    register_pickle_by_value(this)  # replicas do not find this file
    make_engines, app.make_engines = app.make_engines, partial(told_engines, folder)
    plan = plan_from(
        {
            "models": {"any": "bundled:inspection-light"},
            "pools": {"cpu": {"replicas": 2, "cpus": num_cpus}},
            "buckets": {"vga": {"canvases": [[480, 640]], "batches": list(BATCHES)}},
        },
        folder,
    )
    try:
        with deployed(app.application(plan)):
            yield Client.connect()
    finally:
        app.make_engines = make_engines
        unregister_pickle_by_value(this)


def pids(folder: Path) -> list[int]:
    """The processes of the replicas, the oldest first."""
    files = sorted(folder.glob("*.here"), key=lambda path: path.stat().st_mtime_ns)
    return [pid for pid in (int(path.stem) for path in files) if lives(pid)]


def until(what: str, holds, *, timeout_s: float = PATIENCE_S) -> float:
    """Wait for something outside; how long it took, which is printed."""
    began_s = time.monotonic()
    while not holds():
        assert time.monotonic() - began_s < timeout_s, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(0.05)
    took_s = time.monotonic() - began_s
    show(f"{what}: after {took_s:.1f} s")
    return took_s


def healthy(client: Client) -> int:
    """Replicas that get batches."""
    (pool,) = client.status().pools
    return len(pool.replicas) - len(pool.unhealthy)


def reasons(client: Client) -> list[str]:
    """What is held against replicas."""
    (pool,) = client.status().pools
    return list(pool.unhealthy.values())


def lives(pid: int) -> bool:
    """Whether a process runs, stopped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def show(text: str) -> None:
    """Print a figure: that is half of what these tests are for."""
    print(text)  # noqa: T201
