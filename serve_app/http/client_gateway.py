"""The real service behind HTTP: one `Client`, connected when it is needed, and anew when the service was replaced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from engines.letterbox import Image
from serve_app.client import Client
from serve_app.cluster_look import look
from serve_app.errors import FramelaneError, ServiceUnavailableError
from serve_app.http.camera_cursor import CameraCursor
from serve_app.http.gateway import CameraPage, Readiness
from serve_app.http.limits import MAX_WAIT_S
from serve_app.http.readiness import readiness_of
from serve_app.plan import Plan
from serve_app.results import FrameResult
from serve_app.service_view import ServiceView
from serve_app.tickets import ResultsPage, Ticket, is_durable_ticket

logger = logging.getLogger(__name__)

# A look asks every router; people and probes look more often than anything changes.
VIEW_TTL_S = 1.0
# Probes wait a few seconds. A service that takes longer to say how it is, is not well.
READY_TIMEOUT_S = 3.0
# Between two tries to find a service that is gone.
CONNECT_INTERVAL_S = 1.0
# A frame ends at its deadline or soon after; its pixels must be there until then.
TICKET_GRACE_S = 5.0
NO_PAGE = ResultsPage((), 0, 0, 0)


class ClientGateway:
    """See `Gateway`."""

    def __init__(self, plan: Plan, connect: Callable[[], Client] = Client.connect) -> None:
        """Take the plan as it was deployed, and what finds the service; nothing is connected yet."""
        self._plan = plan
        self._connect = connect
        self._client: Client | None = None
        self._connecting: asyncio.Lock | None = None
        self._tried_s = float("-inf")
        self._view: ServiceView | None = None
        self._viewed_s = float("-inf")
        self._looking: asyncio.Task[ServiceView] | None = None
        self._tickets_until_s = 0.0

    @property
    def plan(self) -> Plan:
        """See `Gateway`."""
        return self._client.plan if self._client is not None else self._plan

    async def detect(
        self, image_hwc: Image, *, camera: str, priority: str, slo_s: float | None = None, frame_id: str | None = None
    ) -> FrameResult:
        """See `Gateway`."""
        client = await self._connected()
        try:
            return await client.submit_async(
                image_hwc, camera=camera, priority=priority, slo_s=slo_s, frame_id=frame_id
            )
        except ServiceUnavailableError:
            self._lost(client)
            raise

    async def submit(self, image_hwc: Image, *, camera: str, priority: str, slo_s: float | None = None) -> Ticket:
        """See `Gateway`."""
        client = await self._connected()
        try:
            ticket = await client.submit_ticket_async(image_hwc, camera=camera, priority=priority, slo_s=slo_s)
        except ServiceUnavailableError:
            self._lost(client)
            raise
        if not ticket.is_durable:
            longest_s = max(client.plan.slo_s.values()) if slo_s is None else slo_s
            self._tickets_until_s = max(self._tickets_until_s, time.monotonic() + longest_s + TICKET_GRACE_S)
        return ticket

    async def result(self, ticket_id: str, wait_s: float = 0.0) -> FrameResult | None:
        """See `Gateway`."""
        client = await self._connected()
        try:
            if is_durable_ticket(ticket_id):
                return await client.spool.result(ticket_id, min(wait_s, MAX_WAIT_S))
            result: FrameResult | None = await client.ask_async("ticket_result", ticket_id, min(wait_s, MAX_WAIT_S))
        except ServiceUnavailableError:
            self._lost(client)
            raise
        return result

    async def results(self, camera: str, cursor: str = "", wait_s: float = 0.0) -> CameraPage:
        """See `Gateway`; of a durable camera, what the spool has comes before what its router has."""
        client, place = await self._connected(), CameraCursor.parsed(cursor)
        try:
            spooled = NO_PAGE
            if client.plan.rule_of(camera).durable:
                spooled = await client.spool.results(camera, place.spool, min(wait_s, MAX_WAIT_S))
                wait_s = 0.0
            page: ResultsPage = await client.ask_async(
                "ticket_results", camera, place.router, min(wait_s, MAX_WAIT_S), camera=camera
            )
        except ServiceUnavailableError:
            self._lost(client)
            raise
        missed = (spooled.num_dropped, page.num_dropped)
        return CameraPage(
            spooled.results + page.results,
            str(CameraCursor(page.cursor, spooled.cursor)),
            None if None in missed else sum(count or 0 for count in missed),
            spooled.num_waiting + page.num_waiting,
        )

    async def view(self) -> ServiceView:
        """See `Gateway`; all who ask while one look is under way get that one."""
        if self._view is not None and time.monotonic() - self._viewed_s < VIEW_TTL_S:
            return self._view
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(self._looked)
        return await asyncio.shield(self._looking)

    async def is_live(self) -> bool:
        """See `Gateway`: Ray ends this process when it cannot go on, so whoever answers lives."""
        return True

    async def readiness(self) -> Readiness:
        """See `Gateway`."""
        try:
            view = await asyncio.wait_for(self.view(), READY_TIMEOUT_S)
        except asyncio.TimeoutError:
            return Readiness(
                is_ready=False, reasons=(f"service: it does not say how it is within {READY_TIMEOUT_S:g} s",)
            )
        except FramelaneError as err:
            return Readiness(is_ready=False, reasons=(str(err),))
        return readiness_of(view, self.plan.pools)

    async def until_tickets_ended(self) -> None:
        """Wait until the frames of all tickets that this process gave out must have ended: it owns their pixels."""
        await asyncio.sleep(max(0.0, self._tickets_until_s - time.monotonic()))

    async def _connected(self) -> Client:
        if self._client is not None:
            return self._client
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._client is None:
                since_s = time.monotonic() - self._tried_s
                if since_s < CONNECT_INTERVAL_S:
                    left_s = CONNECT_INTERVAL_S - since_s
                    raise ServiceUnavailableError("service: it is not there; try again soon", left_s)
                self._tried_s = time.monotonic()
                self._client = await asyncio.to_thread(self._connect)
                self._tried_s = float("-inf")
        return self._client

    def _lost(self, client: Client) -> None:
        """Connect anew at the next call: the service may have been deleted and deployed again."""
        if self._client is client:
            self._client = None

    async def _look(self) -> ServiceView:
        client = await self._connected()
        try:
            return await asyncio.to_thread(look, client)
        except ServiceUnavailableError:
            self._lost(client)
            raise

    def _looked(self, looking: asyncio.Task[ServiceView]) -> None:
        self._looking = None
        if not looking.cancelled() and looking.exception() is None:
            self._view, self._viewed_s = looking.result(), time.monotonic()
