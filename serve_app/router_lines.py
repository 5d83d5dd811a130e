"""A client's lines to the routers: which one a camera's frames go to, and what to do when it has died."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayActorError, RayError
from ray.serve.handle import DeploymentHandle

from serve_app.camera_owner import owner
from serve_app.direct_calls import ReplicaLine
from serve_app.peer_routers import Doors

# Routers come and go rarely, and one with an old list passes frames on.
REFRESH_S = 3.0
# A router that was lost is not taken from another one's list, which may be as old as a round of reports.
LOST_S = 10.0
FIND_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class _Lines:
    """The routers of one list: lines to all, and which of them own cameras."""

    by_router: Mapping[str, ReplicaLine]
    owners: tuple[str, ...]


class RouterLines:
    """Lines to all routers, kept current while they are used. Its methods may be called from several threads."""

    def __init__(self, handle: DeploymentHandle[Any], doors: Doors) -> None:
        """Take a handle of the routers' deployment, and what one of them knew."""
        self._handle = handle
        self._lock = threading.Lock()
        self._lost: dict[str, float] = {}
        self._taken_s = float("-inf")
        self._known = _Lines({}, ())
        self._turn = itertools.count()
        self._take(doors)

    def to_owner(self, camera: str) -> tuple[str, ReplicaLine] | None:
        """The router of a camera, and the line to it; None: no router is known, so `find` one."""
        known = self._known
        if time.monotonic() - self._taken_s > REFRESH_S and known.by_router:
            self._refresh(known)
        if not known.owners:
            return None
        router = owner(camera, known.owners)
        return router, known.by_router[router]

    def line(self, router: str) -> ReplicaLine | None:
        """The line to a router; None: it has gone."""
        return self._known.by_router.get(router)

    def lost(self, router: str) -> None:
        """A call found a router dead or out of reach: its cameras go to the others."""
        with self._lock:
            self._lost[router] = time.monotonic()
            self._known = _without({router}, self._known)
            self._taken_s = float("-inf")

    def find(self, timeout_s: float) -> None:
        """Ask Serve for a router, and it for the others; blocks.

        Raises:
            RayError, RayServeException, TimeoutError: there is none.
        """
        give_up_s = time.monotonic() + timeout_s
        while True:
            try:
                doors = self._handle.doors.remote().result(timeout_s=max(0.1, give_up_s - time.monotonic()))
            except RayActorError:  # one that has just died: Serve notices it soon
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(FIND_INTERVAL_S)
            else:
                return self._take(doors)

    def _refresh(self, known: _Lines) -> None:
        """Ask a router for the others, and go on meanwhile."""
        with self._lock:
            if time.monotonic() - self._taken_s <= REFRESH_S:
                return
            self._taken_s = time.monotonic()
        # Another one each time: one that hangs does not keep the others' news from us.
        routers = list(known.by_router.items())
        router, line = routers[next(self._turn) % len(routers)]

        def answered(answer: Future[Any]) -> None:
            try:
                self._take(line.unpacked(answer.result()))
            except RayError:
                self.lost(router)

        line.start("doors").add_done_callback(answered)

    def _take(self, doors: Doors) -> None:
        """Use a list of routers from now on."""
        now_s = time.monotonic()
        with self._lock:
            # Who answers is alive, whatever was thought of it.
            self._lost = {name: at_s for name, at_s in self._lost.items() if now_s - at_s < LOST_S and name != doors.by}
            old = self._known.by_router
            lines = {door.router: old.get(door.router) or ReplicaLine(door.actor) for door in doors.doors}
            known = _without(self._lost, _Lines(lines, tuple(door.router for door in doors.doors if door.owns)))
            # Without an owner, the one that answers passes the frames on, or serves them.
            self._known = known if known.owners else _Lines(known.by_router, (doors.by,))
            self._taken_s = now_s


def _without(routers: Any, known: _Lines) -> _Lines:
    lines = {name: line for name, line in known.by_router.items() if name not in routers}
    return _Lines(lines, tuple(name for name in known.owners if name not in routers))
