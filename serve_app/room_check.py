"""The plan against the connected cluster: before it is deployed, and while its replicas wait for machines."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ray.exceptions import RayError

from serve_app.cluster_machines import machines_of_cluster, service_replicas
from serve_app.cluster_room import room_for
from serve_app.errors import InvalidPlanError
from serve_app.plan import Plan

logger = logging.getLogger(__name__)

# What a service that has just ended held is told as free within a second or two; Ray's heartbeats bring it.
SETTLE_S = 5.0
LOOK_EVERY_S = 0.5
# How often those who wait for a deployment hear what it lacks.
TELL_AFTER_S = 10.0
# Starting Ray's workers takes a busy machine ten seconds and more: where there is room, this long is no news.
PATIENCE_S = 60.0


def check_room(plan: Plan, *, may_grow: bool = False, wait_s: float = 0.0) -> tuple[str, ...]:
    """Look whether every replica of a plan finds a place on the connected cluster.

    Args:
        plan: about to be deployed.
        may_grow: whether the cluster gets machines as they are asked for; then nothing is refused.
        wait_s: how long machines may take to join.

    Returns:
        Warnings: pools that cannot grow as far as the plan says and, if the cluster may grow, what is missing today.

    Raises:
        InvalidPlanError: something is missing; the message says which pool lacks what. A service that runs is left as
            it is.
    """
    begun_s = time.monotonic()
    while (answer := room_for(plan, machines := machines_of_cluster())).shortages and not may_grow:
        would_settle = not room_for(plan, [machine.without_others() for machine in machines]).shortages
        if time.monotonic() - begun_s >= max(wait_s, SETTLE_S if would_settle else 0.0):
            serving = "; the service goes on with its plan" if service_replicas().num_alive else ""
            raise InvalidPlanError("; ".join(answer.shortages) + serving)
        time.sleep(LOOK_EVERY_S)
    return answer.shortages + answer.warnings


def check_change(plan: Plan, *, may_grow: bool) -> None:
    """Refuse the new plan of a service that runs if the cluster has no room for it; the old one stays.

    A first deployment is not refused: in Kubernetes it is asked for before the machines are there.

    Raises:
        InvalidPlanError: a service runs, and the new plan has no room.
    """
    if service_replicas().num_alive:
        for warning in check_room(plan, may_grow=may_grow):
            logger.warning("%s", warning)


@contextmanager
def telling_who_waits(plan: Plan, tell: Callable[[str], None]) -> Iterator[None]:
    """Say, while a plan is being deployed, which pools have replicas without a place and what they lack."""
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(plan, tell, done), name="who-waits", daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()


def _watch(plan: Plan, tell: Callable[[str], None], done: threading.Event) -> None:
    told, begun_s = "", time.monotonic()
    while not done.wait(TELL_AFTER_S):
        with contextlib.suppress(RayError):  # the next look may be answered
            text = _who_waits(plan, patient=time.monotonic() - begun_s < PATIENCE_S)
            if text and text != told:
                tell(text)
            told = text


def _who_waits(plan: Plan, *, patient: bool) -> str:
    """Which deployments have replicas without a place, and what is missing; empty: none has, or it is early."""
    waiting = [f"{name}: {count}" for name, count in sorted(service_replicas().without_place.items())]
    missing = "; ".join(room_for(plan, machines_of_cluster()).shortages)
    if not waiting or (patient and not missing):
        return ""
    reason = missing or "there is room, but other replicas stand in the way, or have not ended yet"
    return f"replicas wait for a machine ({', '.join(waiting)}): {reason}"
