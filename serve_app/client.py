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
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from engines.errors import FrameArrayError
from engines.frame_array import check_frame
from engines.letterbox import Image
from serve_app.app_name import APP_NAME
from serve_app.direct_calls import ReplicaLine
from serve_app.errors import FramelaneError, InvalidFrameError, ServiceUnavailableError
from serve_app.frames import FrameMeta, check_meta
from serve_app.latency import LatencyTable
from serve_app.plan import Plan
from serve_app.ray_session import ServiceNote, connect_ray, read_note
from serve_app.results import FrameResult, ServiceStatus
from serve_app.spool.merged import merged
from serve_app.spool.spool_line import SpoolLine, check_no_callback
from serve_app.spool.spool_status import SpoolStatus
from serve_app.ticket_desk import MAX_WAIT_S
from serve_app.tickets import ResultsPage, Ticket, is_durable_ticket

# Beyond a frame's own deadline: a batch that began in time may end after it.
ANSWER_GRACE_S = 60.0
CONTROL_TIMEOUT_S = 30.0
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
    """

    def __init__(
        self, handle: DeploymentHandle[Any], router: ReplicaLine, plan: Plan, host: ServiceNote | None = None
    ) -> None:
        """Take a handle and a line to the router, the plan it serves, and who hosts it; use `connect` to get them."""
        self._handle = handle
        self._router = router
        self._plan = plan
        self._host = host
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
            handle = serve.get_app_handle(APP_NAME)
            plan = handle.plan.remote().result(timeout_s=CONTROL_TIMEOUT_S)
            router = ReplicaLine(handle.door.remote().result(timeout_s=CONTROL_TIMEOUT_S))
        except (RayServeException, RayError, TimeoutError) as err:
            raise ServiceUnavailableError(
                f"service: Ray runs at {address or 'this machine'}, but no application {APP_NAME!r} answers on it "
                f"({type(err).__name__}); deploy one with: framelane up"
            ) from err
        return cls(handle, router, plan, host)

    @property
    def plan(self) -> Plan:
        """The plan that the service had when this client connected."""
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
        try:
            ref = ray.put(image) if image.nbytes <= INLINE_PUT_BYTES else await asyncio.to_thread(ray.put, image)
            result: FrameResult = await self._router.call("submit", meta, refs=[ref])
        except (RayError, RayServeException) as err:
            raise _gone(err) from err
        return result

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
            return self._spool.keep_and_wait(meta, ray.put(image))
        ticket: Ticket | FramelaneError = self._control("submit_tickets", [meta], callback, refs=[ray.put(image)])[0]
        if isinstance(ticket, FramelaneError):
            raise ticket
        return ticket

    def result(self, ticket: Ticket | str, wait_s: float = 0.0) -> FrameResult | None:
        """How the frame of a ticket ended; None if it has not yet.

        Args:
            ticket: the ticket, or its id.
            wait_s: for how many seconds to wait for the end.

        Raises:
            TicketUnknownError: the service never gave it out, or too long ago.
            TicketExpiredError: the frame has ended, but its result is kept no more; the message says how it ended.
            ServiceUnavailableError: the service went away.
        """
        ticket_id = ticket.ticket_id if isinstance(ticket, Ticket) else ticket
        until_s = time.monotonic() + wait_s
        while True:
            left_s = min(max(0.0, until_s - time.monotonic()), MAX_WAIT_S)
            result: FrameResult | None
            if is_durable_ticket(ticket_id):
                result = self._spool.result_and_wait(ticket_id, left_s)
            else:
                result = self._control("ticket_result", ticket_id, left_s)
            if result is not None or time.monotonic() >= until_s:
                return result

    async def results(self, camera: str) -> AsyncGenerator[FrameResult | MissedResults, None]:
        """The results of a camera's tickets, in the order in which its frames ended; goes on until the caller stops.

        It begins with the oldest that is kept. Of a durable camera, results from the spool and those of its critical
        tickets come side by side, each in their own order.

        Args:
            camera: whose.

        Yields:
            A result, or how many were missed at that place because nobody asked in time.

        Raises:
            ServiceUnavailableError: the service went away.
        """
        sources = [_paged(partial(self._router_page, camera))]
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

    async def _router_page(self, camera: str, cursor: int) -> ResultsPage:
        try:
            page: ResultsPage = await self._router.call("ticket_results", camera, cursor, MAX_WAIT_S)
        except (RayError, RayServeException) as err:
            raise _ours_or_gone(err) from err
        return page

    def _control(self, method: str, *arguments: object, refs: Sequence[ray.ObjectRef[Any]] | None = None) -> Any:
        """A short call to the router; raises what it raised, or `ServiceUnavailableError`."""
        try:
            return self._router.call_and_wait(method, *arguments, refs=refs, timeout_s=CONTROL_TIMEOUT_S + MAX_WAIT_S)
        except (RayError, RayServeException, TimeoutError) as err:
            raise _ours_or_gone(err) from err

    def _call(self, images_hwc: Sequence[Image], camera: str, priority: str, slo_s: float | None) -> list[FrameResult]:
        images, metas = self._checked(images_hwc, camera, priority, slo_s)
        if not metas:
            return []
        longest_s = max(self._plan.slo_s.values()) if slo_s is None else slo_s
        try:
            refs = [ray.put(image) for image in images]
            timeout_s = longest_s + ANSWER_GRACE_S
            results: list[FrameResult] = self._router.call_and_wait(
                "submit_many", metas, refs=refs, timeout_s=timeout_s
            )
        except (RayError, RayServeException, TimeoutError) as err:
            raise _gone(err) from err
        return results

    def _checked(
        self, images_hwc: Sequence[Image], camera: str, priority: str, slo_s: float | None
    ) -> tuple[list[Image], list[FrameMeta]]:
        """Check the host, every array and what is said of it, before anything is sent."""
        if self._host is not None and read_note() != self._host:
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
