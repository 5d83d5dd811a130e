"""A service of this process alone: its own Ray, one plan, gone when the block ends. For `stream`, `demo` and tests."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.app import application
from serve_app.client import Client
from serve_app.plan import Plan
from serve_app.ray_session import check_room, deployed, start_ray, stop_ray


@contextmanager
def local_service(plan: Plan, num_cpus: int | None = None) -> Iterator[Client]:
    """Start Ray here with so many CPUs (None: all), serve `plan`, give a connected client; stop both at the end."""
    # Ray prints its own news to standard output, which belongs to the results of commands.
    with contextlib.redirect_stdout(sys.stderr):
        start_ray(num_cpus)
        try:
            check_room(plan)
            with deployed(application(plan)):
                yield Client.connect()
        finally:
            stop_ray()
