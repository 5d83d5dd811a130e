"""A service of this process alone: its own Ray, one plan, gone when the block ends. For `stream`, `demo` and tests."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engines.graph import load_model, read_info
from serve_app.app import application
from serve_app.client import Client
from serve_app.config import BUNDLED_PREFIX, model_path
from serve_app.http.deployment import check_http, deploy_http
from serve_app.native_plan import native_plan
from serve_app.plan import Plan
from serve_app.pool_engines import MakeEngines
from serve_app.ray_session import deployed, start_ray, stop_ray
from serve_app.room_check import check_room


@contextmanager
def local_service(
    plan: Plan, num_cpus: int | None = None, engines: MakeEngines | None = None, *, http: bool = False
) -> Iterator[Client]:
    """Start Ray here with so many CPUs (None: all), serve `plan`, give a connected client; stop both at the end.

    `engines` makes the engines of its pools; None: the real ones. `http`: whether HTTP is served too, by the plan's
    `http` section.
    """
    with ExitStack() as at_end:
        # Ray prints its own news to standard output, which belongs to the results of commands.
        with contextlib.redirect_stdout(sys.stderr):
            start_ray(num_cpus)
            at_end.callback(stop_ray)
            _end_in_order_on_sigterm()
            check_room(plan)
            if http:
                check_http(plan, is_here=True)
            at_end.enter_context(deployed(application(plan, engines), plan.http if http else None))
            if http:
                deploy_http(plan)
            client = Client.connect()
        yield client


@contextmanager
def model_service(model: str | Path, sizes_hw: Iterable[tuple[int, int]]) -> Iterator[Client]:
    """As `local_service`, without a plan: one model on the CPU, and a canvas for each of these frame sizes.

    Args:
        model: an ONNX detector: a path, or a bundled one such as `bundled:inspection-full`.
        sizes_hw: (height, width) in px of the frames to come; others are served on the canvas that suits them best.

    Raises:
        EngineError: the file is missing or no detector.
        InvalidPlanError: no such bundled model, or no size.
    """
    path = model_path(str(model))
    name = str(model) if str(model).startswith(BUNDLED_PREFIX) else str(path.resolve())
    with local_service(native_plan(name, sizes_hw, read_info(load_model(path), path.name).stride_px)) as client:
        yield client


def _end_in_order_on_sigterm() -> None:
    """Let SIGTERM unwind the stack, as Ctrl-C does; Ray's own handler aborts the process and leaves its replicas."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, leave)
