"""What callers are told of durable tickets; one wording for every store."""

from __future__ import annotations

from engines.detections import Detections
from serve_app.errors import FrameFailedError, SpoolFullError
from serve_app.frames import Priority
from serve_app.results import FrameResult
from serve_app.spool.record import DamagedRecordError
from serve_app.spool.result_record import result_from
from serve_app.tickets import TicketAnswer, TicketState
from serve_app.verdicts import Outcome

# Frames leave a spool by the dozen a second where replicas are there at all.
RETRY_WHEN_FULL_S = 5.0


def waiting(frame_id: str, camera: str, age_s: float) -> TicketAnswer:
    """Its frame is pending."""
    message = f"ticket of {_frame(frame_id, camera)} has no outcome yet, {max(0.0, age_s):.3f} s after it was kept"
    return TicketAnswer(frame_id, TicketState.WAITING, f"{message}; ask again")


def done(frame_id: str, camera: str, data: bytes, left_s: float) -> TicketAnswer:
    """Its frame has ended, and the result is here."""
    result = kept_result(frame_id, camera, data)
    message = f"ticket of {_frame(frame_id, camera)} ended as {result.outcome.value}; it may be read for {left_s:.0f} s"
    return TicketAnswer(frame_id, TicketState.DONE, message, result)


def expired(frame_id: str, camera: str, outcome: str, ago_s: float, ttl_s: float) -> TicketAnswer:
    """Its frame has ended, and the result is gone."""
    message = (
        f"ticket of {_frame(frame_id, camera)} ended as {outcome} {max(0.0, ago_s):.0f} s ago; its result was kept for "
        f"{ttl_s:g} s (spool.result_ttl_s): ask sooner"
    )
    return TicketAnswer(frame_id, TicketState.EXPIRED, message)


def unknown(frame_id: str, place: str) -> TicketAnswer:
    """No such frame lies here."""
    message = (
        f"ticket: frame {frame_id!r} is not in the spool at {place}, which has not taken it, or has forgotten it since"
    )
    return TicketAnswer(frame_id, TicketState.UNKNOWN, message)


def kept_result(frame_id: str, camera: str, data: bytes) -> FrameResult:
    """A result that was kept; of one that is damaged, that it was."""
    try:
        return result_from(data)
    except DamagedRecordError as err:
        return failed(frame_id, camera, f"frame: it was answered, but its result in the spool is damaged ({err})")


def failed(frame_id: str, camera: str, reason: str, size_hw: tuple[int, int] = (0, 0)) -> FrameResult:
    """The result of a frame that cannot be served; where even its size is lost it is (0, 0)."""
    return FrameResult(
        frame_id, camera, size_hw, Priority.NORMAL.value, Outcome.FAILED, Detections.none(),
        error=FrameFailedError(reason),
    )  # fmt: skip


def full(what: str, got_bytes: int, allowed_bytes: int, cure: str, *, can_wait: bool = True) -> SpoolFullError:
    """There is no room for a frame."""
    retry_after_s = RETRY_WHEN_FULL_S if can_wait else None
    when = f"try again in {retry_after_s:g} s, when some were answered, or " if can_wait else ""
    message = f"spool is full: {what}: got {got_bytes:,} bytes, allowed are {allowed_bytes:,}; {when}{cure}"
    return SpoolFullError(message, retry_after_s)


def _frame(frame_id: str, camera: str) -> str:
    return f"frame {frame_id} of camera {camera!r}"
