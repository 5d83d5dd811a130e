"""What HTTP needs of the service behind it; knows neither FastAPI nor Ray, so that tests bring their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engines.letterbox import Image
from serve_app.plan import Plan
from serve_app.results import FrameResult
from serve_app.service_view import ServiceView
from serve_app.tickets import Ticket


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a frame that comes now would be served, as far as can be known without one.

    Attributes:
        is_ready: whether it would.
        reasons: what is missing, in words for people; empty if nothing is.
    """

    is_ready: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CameraPage:
    """The next results of a camera's tickets.

    Attributes:
        results: in the order in which their frames ended.
        cursor: to ask for the next page with.
        num_missed: results between the two cursors that are kept no more; None: there may be some.
        num_waiting: tickets of this camera whose frames have no outcome yet.
    """

    results: tuple[FrameResult, ...]
    cursor: str
    num_missed: int | None
    num_waiting: int


class Gateway(Protocol):
    """A service of one plan. Its methods run in one event loop, many at a time; cancelling one cancels its frame.

    Every method but `is_live` and `readiness` raises `ServiceUnavailableError` when the service has gone, and
    `InvalidFrameError` for a camera, priority or deadline that no service takes.
    """

    @property
    def plan(self) -> Plan:
        """The plan that is served, or was when this was last known."""
        ...

    async def detect(
        self, image_hwc: Image, *, camera: str, priority: str, slo_s: float | None = None, frame_id: str | None = None
    ) -> FrameResult:
        """How a frame ended; one that did not finish is a result with its outcome and error, not an exception.

        Args:
            image_hwc: uint8 `(height, width, 3)` BGR, unchanged until this returns.
            camera: who took it.
            priority: `critical` or `normal`.
            slo_s: seconds from now until it must be finished; None: the plan's default.
            frame_id: names it in results and logs, unlike any other in flight; None: a new one.
        """
        ...

    async def submit(self, image_hwc: Image, *, camera: str, priority: str, slo_s: float | None = None) -> Ticket:
        """Send a frame without waiting for its result; arguments as for `detect`.

        Raises:
            FrameRejectedError, TooManyTicketsError, SpoolFullError: no room, with `retry_after_s`.
        """
        ...

    async def result(self, ticket_id: str, wait_s: float = 0.0) -> FrameResult | None:
        """How the frame of a ticket ended; None if it has not within `wait_s`.

        Raises:
            TicketUnknownError, TicketExpiredError: nothing is known of it (any more).
        """
        ...

    async def results(self, camera: str, cursor: str = "", wait_s: float = 0.0) -> CameraPage:
        """The next results of a camera's tickets after a cursor; `""` begins with the oldest that is kept.

        Raises:
            TicketUnknownError: a cursor of another camera or of an earlier service.
        """
        ...

    async def view(self) -> ServiceView:
        """What `framelane status` shows, at most a second old."""
        ...

    async def is_live(self) -> bool:
        """Whether this process can still do its work; False: it should be replaced."""
        ...

    async def readiness(self) -> Readiness:
        """Whether a frame would be served now."""
        ...
