"""What the tests of this folder look at: the running service, the object store, the real command."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import ray
from ray import serve
from ray._private.internal_api import memory_summary

from serve_app.app_name import APP_NAME

SETTLED_S = 15.0
SMALLEST_FRAME_BYTES = 2_000_000


class Service:
    """The running service with what tests look at."""

    def __init__(self, client, log_path, http_url, critical_url):
        self.client = client
        self.http_url = http_url
        self.critical_url = critical_url
        self.log_path = log_path

    def records(self):
        """Every record of the frame log so far."""
        lines = self.log_path.read_text().splitlines() if self.log_path.exists() else []
        return [json.loads(line) for line in lines]

    def records_of(self, camera):
        """Those of one camera."""
        return [record for record in self.records() if record["camera"] == camera]

    def num_batches(self):
        """Batches that the one replica has answered, by its own count."""
        replica = serve.get_deployment_handle("engine-cpu", APP_NAME)
        report, _ = replica.report.remote().result(timeout_s=30)
        return report.num_batches

    def assert_conserved(self):
        """Every frame has exactly one outcome: nothing is in flight, and the router's counts are the log's."""
        give_up_s = time.monotonic() + SETTLED_S
        while (status := self.client.status()).num_in_flight and time.monotonic() < give_up_s:
            time.sleep(0.05)
        records = self.records()
        assert status.num_in_flight == 0
        assert len({record["frame_id"] for record in records}) == len(records)
        assert Counter(record["outcome"] for record in records) == status.outcomes


def frames_in_store():
    """Frames that anybody holds in the object store, when references have been counted down: their ids.

    Serve's own objects there are smaller than our frames.
    """
    give_up_s = time.monotonic() + SETTLED_S
    address = ray.get_runtime_context().gcs_address
    while True:
        gc.collect()
        rows = [line.split("|") for line in memory_summary(address).splitlines()]
        sizes = {row[8].strip(): row[6].strip() for row in rows if len(row) == 9}
        held = {ref for ref, size in sizes.items() if size.endswith(" B") and float(size[:-2]) > SMALLEST_FRAME_BYTES}
        if not held or time.monotonic() > give_up_s:
            return held
        time.sleep(0.1)


def free_port():
    """A port that nobody listens at, just now."""
    return free_ports(1)[0]


def free_ports(count):
    """So many different ones."""
    with contextlib.ExitStack() as at_end:
        probes = [at_end.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Command:
    """The real command, in a folder and with a state of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.path = Path(sys.executable).with_name("framelane")
        self.environment = {
            "PATH": f"{self.path.parent}:/usr/bin:/bin",
            "HOME": str(Path.home()),
            "FRAMELANE_STATE_DIR": str(folder / "state"),
            "COLUMNS": "100",
        }

    def __call__(self, *arguments, timeout_s=170):
        """Run it; the finished process."""
        return subprocess.run(
            [str(self.path), *map(str, arguments)],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
