"""Run by `test_durable_frames.py` in a process of its own, since it starts and stops Ray: prints what it saw as JSON.

python redis_away_drill.py FOLDER PORT: a service whose Redis is away at the start, comes, goes, and comes again.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from durable_drill import PATIENCE_S, SIDE_PX, plan_of, wait_until

from serve_app.app import application
from serve_app.client import Client
from serve_app.errors import FramelaneError
from serve_app.ray_session import deploy, start_ray, stop_ray


class Redis:
    """A Redis that is started and killed; what it was told lies in its folder."""

    def __init__(self, folder, port):
        self._command = [
            "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always",
        ]  # fmt: skip
        self._port = port
        self._process = None

    def start(self):
        """Return when it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_until(self._listens, "Redis")

    def kill(self):
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self):
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except OSError:
            return False
        return True


def refusal(client, image_hwc):
    """What a caller of a durable camera is told, and that another camera is served meanwhile."""
    try:
        client.submit(image_hwc, camera="night-0")
    except FramelaneError as err:
        told = f"{type(err).__name__}: {err}"
    else:
        told = "a ticket"
    return {"told": told, "other_camera": client.detect(image_hwc, camera="day-0").outcome.value}


def ticket_when_open(client, image_hwc):
    """The ticket of a durable frame, as soon as the store takes any."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return client.submit(image_hwc, camera="night-0")
        except FramelaneError:
            if time.monotonic() > give_up_s:
                raise


def main():
    """Run the drill."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    redis, seen = Redis(folder, port), {}
    image_hwc = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    start_ray(2)
    try:
        deploy(application(plan_of(folder, f"redis://127.0.0.1:{port}/0")))
        client = Client.connect()
        seen["at_start"] = refusal(client, image_hwc)
        redis.start()
        first = ticket_when_open(client, image_hwc)
        seen["first"] = client.result(first, wait_s=PATIENCE_S).outcome.value
        redis.kill()
        seen["in_service"] = refusal(client, image_hwc)
        redis.start()
        second = ticket_when_open(client, image_hwc)
        seen["second"] = client.result(second, wait_s=PATIENCE_S).outcome.value
        seen["first_again"] = client.result(first, wait_s=PATIENCE_S).outcome.value
    finally:
        redis.kill()
        stop_ray()
    print(json.dumps(seen))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main()
