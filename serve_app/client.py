"""The client library: frames in as numpy arrays, detections out.

One client a process; its methods may be called from several threads.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from engines.errors import FrameArrayError
from engines.frame_array import check_frame
from engines.letterbox import Image
from serve_app.app_name import APP_NAME
from serve_app.direct_calls import ReplicaLine
from serve_app.errors import FramelaneError, InvalidFrameError, ServiceUnavailableError
from serve_app.frame_store import put_frame
from serve_app.frames import FrameMeta, check_meta
from serve_app.latency import LatencyTable
from serve_app.plan import Plan
from serve_app.ray_session import ServiceNote, connect_ray, read_note, router_handle
from serve_app.results import FrameResult, ServiceStatus
from serve_app.retries import Tries
from serve_app.router_lines import RouterLines
from serve_app.spool.merged import merged
from serve_app.spool.spool_line import SpoolLine, check_no_callback
from serve_app.spool.spool_status import SpoolStatus
from serve_app.ticket_desk import MAX_WAIT_S
from serve_app.tickets import ResultsPage, Ticket, is_durable_ticket

# Beyond a frame's own deadline: a batch that began in time may end after it.
ANSWER_GRACE_S = 60.0
CONTROL_TIMEOUT_S = 30.0
# While Serve starts a router anew.
FIND_TIMEOUT_S = 10.0
# For how long a camera's results are awaited at its router before it is asked whether the camera has moved; and at its
# old router for the last ones.
FOLLOW_WAIT_S = 5.0
MOVE_WAIT_S = 1.0
# So much is copied into the store sooner than another thread could take it over.
INLINE_PUT_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class MissedResults:
    """A gap in a camera's results: so many are kept no more; None: nobody knows how many."""

    num_results: int | None


class Client:
    """A connection to a running service.

    Pixels go into Ray's object store on this machine; calls carry metadata and refs only. The store's copy lives as
    long as the call: when this process dies, its frames die with it.

    A camera's frames go to the router that owns it. When that one dies, they are sent once more, with the same ids and
    what is left of their seconds, to the router that owns the camera then.
    """

    def __init__(
        self,
        handle: DeploymentHandle[Any],
        routers: RouterLines,
        plan: Plan,
        host: ServiceNote | None = None,
        revision: int = 0,
    ) -> None:
        """Take a handle and lines to the routers, their plan, who hosts them, their revision; `connect` gets them."""
        self._handle = handle
        self._routers = routers
        self._plan = plan
        self._host = host
        self._revision = revision
        self._spool = SpoolLine()

    @classmethod
    def connect(cls, address: str | None = None) -> Client:
        """Connect to a running service.

        Args:
            address: of a Ray cluster, such as `10.0.0.5:6379`, or `auto` for the one of this machine; None: this
                process's own Ray if it has one, else what `RAY_ADDRESS` says, else the service of `framelane up`.

        Raises:
            ServiceUnavailableError: there is none; the message says how to start one.
        """
        host = connect_ray(address)
        try:
            handle = router_handle()
            # In this order: if an update comes between, the next answer tells of it.
            doors = handle.doors.remote().result(timeout_s=CONTROL_TIMEOUT_S)
            plan = handle.plan.remote().result(timeout_s=CONTROL_TIMEOUT_S)
        except (RayServeException, RayError, TimeoutError) as err:
            raise ServiceUnavailableError(
                f"service: Ray runs at {address or 'this machine'}, but no application {APP_NAME!r} answers on it "
                f"({type(err).__name__}); deploy one with: framelane up"
            ) from err
        return cls(handle, RouterLines(handle, doors), plan, host, doors.revision)

    def is_hosted(self) -> bool:
        """Whether the service of `framelane up` that this client connected to still stands; True for any other."""
        return self._host is None or read_note() == self._host

    @property
    def plan(self) -> Plan:
        """The plan that the service had when this client connected, or when it last noticed an update.

        It notices one by the answer to the next frame that it sends.
        """
        return self._plan

    def detect(
        self, image_hwc: Image, *, camera: str = "camera", priority: str = "normal", slo_s: float | None = None
    ) -> FrameResult:
        """Detect on one frame and wait for the answer.

        Args:
            image_hwc: uint8 `(height, width, 3)` BGR; any strides. It may be changed as soon as the call returns.
            camera: who took it; the plan may have rules for its name.
            priority: `critical` or `normal`.
            slo_s: seconds from now until it must be finished; None: the plan's default for the priority.

        Returns:
            Boxes in px of the frame, with times and who served it.

        Raises:
            InvalidFrameError: the array, the camera, the priority or the deadline.
            FrameRejectedError: no room; see `retry_after_s`.
            FrameExpiredError: the deadline passed while it waited.
            FrameFailedError: the replica could not answer it.
            ServiceUnavailableError: the service went away.
        """
        return self._call([image_hwc], camera, priority, slo_s)[0].unless_failed()

    def detect_many(
        self,
        images_hwc: Sequence[Image],
        *,
        camera: str = "camera",
        priority: str = "normal",
        slo_s: float | None = None,
    ) -> list[FrameResult]:
        """Detect on several frames, of any sizes, in one call; arguments as for `detect`.

        Returns:
            One result a frame, in their order; look at each one's `outcome` and `error`. Frames do not harm each other.

        Raises:
            InvalidFrameError: an array is no frame (its index is named); then nothing was sent.
            ServiceUnavailableError: the service went away.
        """
        return self._call(images_hwc, camera, priority, slo_s)

    async def detect_async(
        self, image_hwc: Image, *, camera: str = "camera", priority: str = "normal", slo_s: float | None = None
    ) -> FrameResult:
        """Like `detect`, inside an event loop; cancelling the task cancels the frame while it waits."""
        return (await self.submit_async(image_hwc, camera=camera, priority=priority, slo_s=slo_s)).unless_failed()

    async def submit_async(
        self,
        image_hwc: Image,
        *,
        camera: str = "camera",
        priority: str = "normal",
        slo_s: float | None = None,
        frame_id: str | None = None,
    ) -> FrameResult:
        """Like `detect_async`, but a frame that did not finish is a result with its outcome, not an exception.

        Args:
            image_hwc: as for `detect`.
            camera: as for `detect`.
            priority: as for `detect`.
            slo_s: as for `detect`.
            frame_id: names the frame in results and logs, unlike any other that is in flight; None: a new one.

        Raises:
            InvalidFrameError: the array or the priority.
            ServiceUnavailableError: the service went away.
        """
        (image,), (meta,) = self._checked([image_hwc], camera, priority, slo_s)
        if frame_id is not None:
            meta = replace(meta, frame_id=frame_id)
        result: FrameResult = (await self._sent_async("submit_many", [meta], [await self._put_async(image)]))[0]
        if result.revision > self._revision:
            await asyncio.to_thread(self._follow, result.revision)
        return result

    async def submit_ticket_async(
        self, image_hwc: Image, *, camera: str = "camera", priority: str = "normal", slo_s: float | None = None
    ) -> Ticket:
        """Like `submit`, inside an event loop, and without callback."""
        (image,), (meta,) = self._checked([image_hwc], camera, priority, slo_s)
        ref = await self._put_async(image)
        if self._plan.is_durable(camera, priority):
            return await asyncio.to_thread(self._spool.keep_and_wait, meta, ref)
        ticket: Ticket | FramelaneError = (await self._sent_async("submit_tickets", [meta], [ref], None))[0]
        if isinstance(ticket, FramelaneError):
            raise ticket
        return ticket

    async def ask_async(self, method: str, *arguments: object, camera: str = "") -> Any:
        """A short call to the router of a camera, inside an event loop; raises what it raised.

        Raises:
            ServiceUnavailableError: the service went away.
        """
        while True:
            router, line = await self._line_to_owner(camera)
            try:
                return await line.call(method, *arguments)
            except RayActorError:
                self._routers.lost(router)
            except (RayError, RayServeException) as err:
                raise _ours_or_gone(err) from err

    def submit(
        self,
        image_hwc: Image,
        *,
        camera: str = "camera",
        priority: str = "normal",
        slo_s: float | None = None,
        callback: Any = None,
    ) -> Ticket:
        """Send a frame without waiting for its result; this process must live until the frame has ended.

        A normal frame of a camera that the plan calls durable goes to the spool instead: when this returns it lies on a
        disk, survives this process, the service and the machine's restart, and is answered once. `slo_s` is the age up
        to which it is worth an answer. See docs/cluster.md.

        Args:
            image_hwc: as for `detect`.
            camera: as for `detect`.
            priority: as for `detect`.
            slo_s: as for `detect`.
            callback: a deployment handle or an actor's method; `callback.remote(result)` is called at the frame's end.

        Returns:
            What to ask `result` with. The result is kept for `expires_in_s` after the frame's end.

        Raises:
            InvalidFrameError, FrameRejectedError: as for `detect`.
            TooManyTicketsError: so many are out that there is no room for another.
            SpoolFullError: likewise in the spool.
            ServiceUnavailableError: the service went away.
        """
        (image,), (meta,) = self._checked([image_hwc], camera, priority, slo_s)
        if self._plan.is_durable(camera, priority):
            check_no_callback(callback)
            return self._spool.keep_and_wait(meta, put_frame(image))
        timeout_s = CONTROL_TIMEOUT_S + MAX_WAIT_S
        tickets = self._sent("submit_tickets", [meta], [put_frame(image)], callback, timeout_s=timeout_s)
        ticket: Ticket | FramelaneError = tickets[0]
        if isinstance(ticket, FramelaneError):
            raise ticket
        return ticket

    def result(self, ticket: Ticket | str, wait_s: float = 0.0) -> FrameResult | None:
        """How the frame of a ticket ended; None if it has not yet.

        Args:
            ticket: the ticket, or its id; with the ticket the router that gave it out is asked first.
            wait_s: for how many seconds to wait for the end.

        Raises:
            TicketUnknownError: the service never gave it out, or too long ago, or its router died.
            TicketExpiredError: the frame has ended, but its result is kept no more; the message says how it ended.
            ServiceUnavailableError: the service went away.
        """
        ticket_id, router = (ticket.ticket_id, ticket.router) if isinstance(ticket, Ticket) else (ticket, "")
        until_s = time.monotonic() + wait_s
        while True:
            left_s = min(max(0.0, until_s - time.monotonic()), MAX_WAIT_S)
            result: FrameResult | None
            if is_durable_ticket(ticket_id):
                result = self._spool.result_and_wait(ticket_id, left_s)
            else:
                result = self._control("ticket_result", ticket_id, left_s, router=router)
            if result is not None or time.monotonic() >= until_s:
                return result

    async def results(self, camera: str) -> AsyncGenerator[FrameResult | MissedResults, None]:
        """The results of a camera's tickets, in the order in which its frames ended; goes on until the caller stops.

        It begins with the oldest that is kept. When the camera moves to another router, the results that the old one
        still has come first; how many are missing is not known when that one died.
        It begins with the oldest that is kept. Of a durable camera, results from the spool and those of its critical
        tickets come side by side, each in their own order.

        Args:
            camera: whose.

        Yields:
            A result, or how many were missed at that place because nobody asked in time.

        Raises:
            ServiceUnavailableError: the service went away.
        """
        sources = [self._router_results(camera)]
        if self._plan.rule_of(camera).durable:
            sources.append(_paged(partial(self._spool.results, camera)))
        results = merged(sources)
        try:
            async for result in results:
                yield result
        finally:
            await results.aclose()

    def spool_status(self) -> SpoolStatus | None:
        """The spool at a glance; None if no camera of the plan is durable. Raises `ServiceUnavailableError`."""
        return self._spool.status() if self._plan.has_durable else None

    @property
    def spool(self) -> SpoolLine:
        """The line to the spool, for what was set aside there."""
        return self._spool

    def status(self) -> ServiceStatus:
        """The service at a glance. Raises `ServiceUnavailableError`."""
        try:
            status: ServiceStatus = self._handle.status.remote().result(timeout_s=CONTROL_TIMEOUT_S)
        except (RayError, RayServeException, TimeoutError) as err:
            raise _gone(err) from err
        return status

    def latency_table(self) -> LatencyTable:
        """How long batches take on the service now, as it learnt from all that it served. See `status` for errors."""
        table: LatencyTable = self._control("latency_table")
        return table

    async def _router_results(self, camera: str) -> AsyncGenerator[FrameResult | MissedResults, None]:
        """The results of a camera's tickets at its routers, as it moves from one to another."""
        cursors: dict[str, int] = {}
        router = ""
        while True:
            owner, line = await self._line_to_owner(camera)
            old = self._routers.line(router)
            if router and old is None:
                yield MissedResults(None)
            if old is None:
                router = owner
            elif router != owner:
                line = old
            try:
                wait_s = FOLLOW_WAIT_S if router == owner else MOVE_WAIT_S
                page: ResultsPage = await line.call("ticket_results_here", camera, cursors.get(router, 0), wait_s)
            except RayActorError:
                self._routers.lost(router)
                continue
            except (RayError, RayServeException) as err:
                raise _ours_or_gone(err) from err
            if page.num_dropped != 0:
                yield MissedResults(page.num_dropped)
            for result in page.results:
                yield result
            cursors[router] = page.cursor
            if not page.results and not page.num_waiting:
                router = owner

    def _control(self, method: str, *arguments: object, router: str = "") -> Any:
        """A short call to a router, this one if it lives; raises what it raised, or `ServiceUnavailableError`."""
        while True:
            name, line = router, self._routers.line(router)
            if line is None:
                name, line = self._routers.to_owner("") or self._found("")
            try:
                return line.call_and_wait(method, *arguments, timeout_s=CONTROL_TIMEOUT_S + MAX_WAIT_S)
            except RayActorError:
                self._routers.lost(name)
            except (RayError, RayServeException, TimeoutError) as err:
                raise _ours_or_gone(err) from err

    def _sent(
        self,
        method: str,
        metas: list[FrameMeta],
        refs: Sequence[ray.ObjectRef[Any]],
        *arguments: object,
        timeout_s: float,
    ) -> list[Any]:
        """Send frames of one camera to its router, and to the next one when that dies."""
        tries, camera = Tries(metas, self._plan.slo_s, time.monotonic), metas[0].camera
        while True:
            router, line = self._routers.to_owner(camera) or self._found(camera)
            try:
                answers: list[Any] = line.call_and_wait(
                    method, tries.next(), *arguments, refs=refs, timeout_s=timeout_s
                )
            except RayActorError as err:
                self._lost(router, tries, err)
            except (RayError, RayServeException, TimeoutError) as err:
                raise _ours_or_gone(err) from err
            else:
                return answers

    async def _sent_async(
        self, method: str, metas: list[FrameMeta], refs: Sequence[ray.ObjectRef[Any]], *arguments: object
    ) -> list[Any]:
        """The same inside an event loop; cancelling it cancels frames that wait."""
        tries, camera = Tries(metas, self._plan.slo_s, time.monotonic), metas[0].camera
        while True:
            router, line = await self._line_to_owner(camera)
            try:
                answers: list[Any] = await line.call(method, tries.next(), *arguments, refs=refs)
            except RayActorError as err:
                self._lost(router, tries, err)
            except (RayError, RayServeException) as err:
                raise _ours_or_gone(err) from err
            else:
                return answers

    async def _put_async(self, image: Image) -> ray.ObjectRef[Any]:
        """Copy a frame into the object store, a large one in another thread."""
        try:
            return put_frame(image) if image.nbytes <= INLINE_PUT_BYTES else await asyncio.to_thread(put_frame, image)
        except RayError as err:
            raise _gone(err) from err

    async def _line_to_owner(self, camera: str) -> tuple[str, ReplicaLine]:
        known = self._routers.to_owner(camera)
        return known if known is not None else await asyncio.to_thread(self._found, camera)

    def _found(self, camera: str) -> tuple[str, ReplicaLine]:
        """The router of a camera where none was known; blocks while Serve starts one anew."""
        try:
            self._routers.find(FIND_TIMEOUT_S)
        except (RayError, RayServeException, TimeoutError) as err:
            raise _gone(err) from err
        found = self._routers.to_owner(camera)
        if found is None:
            raise ServiceUnavailableError("service: no router can be reached; look at: framelane status")
        return found

    def _lost(self, router: str, tries: Tries, err: RayActorError) -> None:
        """A router died with a call: get ready for the next try, or raise `ServiceUnavailableError`."""
        self._routers.lost(router)
        if not tries.is_another_worth_it():
            raise _gone(err) from err

    def _follow(self, revision: int) -> None:
        """A router of another revision answered, since the service was updated: use its plan and its peers."""
        self._revision = revision
        try:
            self._routers.find(FIND_TIMEOUT_S)
            self._plan = self._handle.plan.remote().result(timeout_s=CONTROL_TIMEOUT_S)
        except (RayError, RayServeException, TimeoutError):
            self._revision = 0  # the answer is there all the same; the next one is a new occasion

    def _call(self, images_hwc: Sequence[Image], camera: str, priority: str, slo_s: float | None) -> list[FrameResult]:
        images, metas = self._checked(images_hwc, camera, priority, slo_s)
        if not metas:
            return []
        longest_s = max(self._plan.slo_s.values()) if slo_s is None else slo_s
        try:
            refs = [put_frame(image) for image in images]
        except RayError as err:
            raise _gone(err) from err
        results: list[FrameResult] = self._sent("submit_many", metas, refs, timeout_s=longest_s + ANSWER_GRACE_S)
        revision = max(result.revision for result in results)
        if revision > self._revision:
            self._follow(revision)
        return results

    def _checked(
        self, images_hwc: Sequence[Image], camera: str, priority: str, slo_s: float | None
    ) -> tuple[list[Image], list[FrameMeta]]:
        """Check the host, every array and what is said of it, before anything is sent."""
        if not self.is_hosted():
            # Ray ends a process that puts an object into a store which has gone.
            raise ServiceUnavailableError("service: it was stopped; start it and connect again")
        images, metas = [], []
        max_frame_px = self._plan.limits.max_frame_px
        for index, image_hwc in enumerate(images_hwc):
            try:
                image = check_frame(image_hwc, max_frame_px=max_frame_px)
            except FrameArrayError as err:
                where = f"images_hwc[{index}]: " if len(images_hwc) > 1 else ""
                raise InvalidFrameError(f"{where}{err}") from err
            meta = FrameMeta(uuid.uuid4().hex, camera, (image.shape[0], image.shape[1]), priority, slo_s)
            check_meta(meta, max_frame_px=max_frame_px)
            images.append(image)
            metas.append(meta)
        return images, metas


async def _paged(
    ask: Callable[[int], Awaitable[ResultsPage]],
) -> AsyncGenerator[FrameResult | MissedResults, None]:
    """Page after page of what this asks, from the beginning on."""
    cursor = 0
    while True:
        page = await ask(cursor)
        if page.num_dropped != 0:
            yield MissedResults(page.num_dropped)
        for result in page.results:
            yield result
        cursor = page.cursor


def _ours_or_gone(err: Any) -> FramelaneError:
    """What the router itself raised, as it raised it; anything else means that it went away."""
    cause = getattr(err, "cause", None)
    return cause if isinstance(cause, FramelaneError) else _gone(err)


def _gone(err: Any) -> ServiceUnavailableError:
    reason = f"{type(err).__name__}: {(str(err).splitlines() or [''])[0][:200]}"
    return ServiceUnavailableError(f"service: the call did not come back ({reason}); look at: framelane status")
