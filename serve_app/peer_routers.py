"""What a router knows of the other routers: whose cameras are whose, and calls that belong to another one.

Routers learn of each other as they learn of replicas: once a second each asks all, itself included, for their reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from serve_app.camera_owner import owner, owning_routers
from serve_app.direct_calls import ReplicaLine, own_actor
from serve_app.errors import FramelaneError, InvalidFrameError, TicketUnknownError
from serve_app.frames import FrameMeta, Priority
from serve_app.plan import Plan
from serve_app.replica_watch import ReplicaWatch
from serve_app.results import FrameResult, RouterReport
from serve_app.retries import Tries
from serve_app.tickets import ResultsPage

# The one deployment that is watched.
ROUTERS = "routers"
# Frames that come to a router that has just started wait so long at most until it knows the others.
FIRST_COUNT_S = 1.0
# A router answers such a question from memory.
ASK_TIMEOUT_S = 3.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Door:
    """A router for those who call it directly: its name, its actor, and whether it owns cameras."""

    router: str
    actor: object
    owns: bool


@dataclass(frozen=True, slots=True)
class Doors:
    """The routers that one of them, `by`, knows of; that one surely lives, and is part of this revision."""

    by: str
    doors: tuple[Door, ...]
    revision: int = 0


class PeerRouters:
    """The routers of this service, as one of them sees them."""

    def __init__(
        self, name: str, node: str, handle: DeploymentHandle[Any] | None, slo_s: Mapping[Priority, float]
    ) -> None:
        """Take who and where this one is, the routers' deployment (None: there are no others), the plan's seconds."""
        self.name = name
        self._node = node
        self._slo_s = slo_s
        self._owners: tuple[str, ...] = (name,)
        self._is_counted = handle is None
        self._watch: ReplicaWatch[RouterReport] | None = None
        if handle is not None:
            self._watch = ReplicaWatch({ROUTERS: handle}, self._reported)

    def start(self) -> None:
        """Begin to ask, in the running event loop; calling it again does nothing."""
        if self._watch is not None:
            self._watch.start()

    async def counted(self) -> None:
        """Wait until the routers have been counted once, but not for long."""
        if self._watch is not None and not self._is_counted:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._watch.counted(), FIRST_COUNT_S)
            self._is_counted = True

    def report(self, *, revision: int, is_ready: bool) -> RouterReport:
        """What this router says of itself."""
        return RouterReport(self.name, self._node, os.getpid(), revision, is_ready)

    def doors(self) -> Doors:
        """All routers, for clients; this one at least."""
        actors = {report.router: self._line(report.router) for report in self._reports()}
        doors = {name: Door(name, line.actor, name in self._owners) for name, line in actors.items() if line}
        if self.name not in doors:
            doors[self.name] = Door(self.name, own_actor(), self.name in self._owners)
        return Doors(self.name, tuple(doors.values()))

    async def spread(
        self,
        method: str,
        metas: Sequence[FrameMeta],
        refs: Sequence[ray.ObjectRef[Any]],
        here: Callable[..., Awaitable[list[Answer]]],
        *arguments: object,
    ) -> list[Answer]:
        """Let each frame of a call be served by the router of its camera: `here`, or by calling `method` there.

        Either gets the frames, the arguments and the refs. A call is passed on once: `method` serves what it gets. What
        belongs to a router that is dead is served here.

        Raises:
            InvalidFrameError: not as many refs as frames.
        """
        if len(metas) != len(refs):
            raise InvalidFrameError(
                f"frames: got {len(metas)} metadata and {len(refs)} refs, allowed is one ref a frame"
            )
        if not self._is_counted:
            self.start()
            await self.counted()
        if self._owners == (self.name,):
            return await here(metas, *arguments, refs)
        indexes_of: dict[str, list[int]] = {}
        for index, meta in enumerate(metas):
            indexes_of.setdefault(owner(str(meta.camera), self._owners), []).append(index)
        if len(indexes_of) == 1 and self.name in indexes_of:
            return await here(metas, *arguments, refs)

        async def served_by(router: str, indexes: list[int]) -> list[Answer]:
            theirs, their_refs = [metas[index] for index in indexes], [refs[index] for index in indexes]
            line = None if router == self.name else self._line(router)
            if line is None:
                return await here(theirs, *arguments, their_refs)
            tries = Tries(theirs, self._slo_s, time.monotonic)
            try:
                answers: list[Answer] = await line.call(method, tries.next(), *arguments, refs=their_refs)
            except RayActorError:
                self._died(router)
                return await here(tries.next(), *arguments, their_refs)
            return answers

        parts = await asyncio.gather(*(served_by(router, indexes) for router, indexes in indexes_of.items()))
        in_place = {
            index: answer
            for indexes, answers in zip(indexes_of.values(), parts, strict=True)
            for index, answer in zip(indexes, answers, strict=True)
        }
        return [in_place[index] for index in range(len(metas))]

    async def ticket_result(self, ticket_id: str, wait_s: float) -> FrameResult | None:
        """How the frame of another router's ticket ended; None if it has not within `wait_s`.

        Raises:
            TicketUnknownError: no router knows it.
            TicketExpiredError: see `TicketDesk.result`.
        """
        for line in self._lines_to_others():
            try:
                result: FrameResult | None = await line.call("ticket_result_here", ticket_id, wait_s)
            except (TicketUnknownError, RayActorError):
                continue  # those that do not know it say so at once
            except FramelaneError as err:
                raise as_it_was(err) from err
            return result
        raise TicketUnknownError(
            f"ticket: got {ticket_id!r}, which no router has given out of late; one that died took its results along, "
            "so send the frame again, or let its camera be durable"
        )

    async def ticket_results(
        self, camera: str, cursor: int, wait_s: float, here: Callable[[str, int, float], Awaitable[ResultsPage]]
    ) -> ResultsPage:
        """The results of a camera's tickets from its owner, which may be this one: `here`."""
        line = self._line(owner(camera, self._owners))
        if line is None or owner(camera, self._owners) == self.name:
            return await here(camera, cursor, wait_s)
        try:
            page: ResultsPage = await line.call("ticket_results_here", camera, cursor, wait_s)
        except FramelaneError as err:
            raise as_it_was(err) from err
        return page

    async def ask_others(self, method: str, *arguments: object) -> list[Any]:
        """What the other routers answer; those that are silent, dead or unable are left out."""
        calls = [asyncio.wait_for(line.call(method, *arguments), ASK_TIMEOUT_S) for line in self._lines_to_others()]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    def _lines_to_others(self) -> list[ReplicaLine]:
        lines = [self._line(report.router) for report in self._reports() if report.router != self.name]
        return [line for line in lines if line is not None]

    def _reports(self) -> tuple[RouterReport, ...]:
        return self._watch.reports(ROUTERS) if self._watch is not None else ()

    def _line(self, router: str) -> ReplicaLine | None:
        return self._watch.line(ROUTERS, router) if self._watch is not None else None

    def _died(self, router: str) -> None:
        if self._watch is not None:
            self._watch.died(ROUTERS, router)

    def _reported(self, _: str, reports: tuple[RouterReport, ...]) -> None:
        self._owners = owning_routers(reports) or (self.name,)


def alone(plan: Plan) -> PeerRouters:
    """A router that has no others beside it, as in tests."""
    return PeerRouters("router", "", None, plan.slo_s)


def open_peers(plan: Plan) -> PeerRouters:
    """The routers of the deployment that this code runs in; called while its replica is made."""
    replica, process = serve.get_replica_context(), ray.get_runtime_context()
    handle: DeploymentHandle[Any] = serve.get_deployment_handle(replica.deployment, replica.app_name)
    return PeerRouters(f"router-{(process.get_actor_id() or '')[:8]}", process.get_node_id()[:8], handle, plan.slo_s)


def as_it_was(err: FramelaneError) -> FramelaneError:
    """An error of ours that another router raised, without what Ray wraps around it."""
    cause = getattr(err, "cause", err)
    return cause if isinstance(cause, FramelaneError) else err
