"""Everything that a caller of the service can meet.

    FramelaneError                      500  ours, unless a subclass says otherwise
    ├── InvalidFrameError               422  the client's: the array, the size, the priority or the deadline
    ├── InvalidPlanError                400  the operator's: the plan file
    ├── FrameRejectedError              429  the load's: no room; `retry_after_s` says when to try again
    ├── FrameExpiredError               504  the load's: no replica was free in time for the deadline
    ├── FrameSupersededError            409  a newer frame of the same camera took its place
    ├── FrameCancelledError             499  the client gave up while the frame waited
    ├── FrameFailedError                500  ours: the replica could not answer this frame
    ├── FrameLostError                  503  the pixels are gone: the process that owned them died
    ├── TicketUnknownError              404  no ticket or cursor that this service gave out, or too long ago
    ├── TicketExpiredError              410  the frame has ended, but its result is kept no more
    ├── TooManyTicketsError             429  so many tickets are out that there is no room for another
    ├── SpoolFullError                  507  no room for a durable frame; `retry_after_s` says when to try again
    ├── ServiceUnavailableError         503  no running service, or one that cannot be reached
    └── ReplicaLeavingError             503  from a replica to its router: Serve is stopping it, the batch is not begun

They cross Ray, so each takes positional arguments only and passes all of them to `super().__init__`.
"""

from __future__ import annotations

from typing import ClassVar


class FramelaneError(Exception):
    """Base of all errors of this package; carries one message that names what, got, allowed and the cure."""

    http_status: ClassVar[int] = 500

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.message = message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class InvalidFrameError(FramelaneError):
    """The frame or what was said of it cannot be served, now or later."""

    http_status = 422


class InvalidPlanError(FramelaneError):
    """The plan contradicts itself, its models or the machine."""

    http_status = 400


class FrameRejectedError(FramelaneError):
    """Admission said no; `retry_after_s` says when there may be room."""

    http_status = 429


class FrameExpiredError(FramelaneError):
    """The frame waited until it could not make its deadline any more; no device time was spent on it."""

    http_status = 504


class FrameSupersededError(FramelaneError):
    """A newer frame of its camera took its place, as the plan's `keep: latest` asks; no device time was spent."""

    http_status = 409


class FrameCancelledError(FramelaneError):
    """The caller gave up while the frame waited."""

    http_status = 499


class FrameFailedError(FramelaneError):
    """The engine replica could not answer this frame; its neighbours in the batch are not affected."""

    http_status = 500


class FrameLostError(FramelaneError):
    """The frame's pixels are gone: the process that put them into the object store has died."""

    http_status = 503


class TicketUnknownError(FramelaneError):
    """No ticket or cursor that this service gave out since it started, or gone for so long that nothing is known."""

    http_status = 404


class TicketExpiredError(FramelaneError):
    """The frame has ended, but its result is not kept any more; the message says how it ended."""

    http_status = 410


class TooManyTicketsError(FramelaneError):
    """As many frames as there may be tickets have no outcome yet; `retry_after_s` says when to try again."""

    http_status = 429


class SpoolFullError(FramelaneError):
    """The spool or its disk has no room for another durable frame; what lies there is answered all the same."""

    http_status = 507


class ServiceUnavailableError(FramelaneError):
    """There is no running service, or it went away."""

    http_status = 503


class ReplicaLeavingError(FramelaneError):
    """Serve is stopping this replica: it has not begun the batch, which goes to another one. No caller sees it."""

    http_status = 503
