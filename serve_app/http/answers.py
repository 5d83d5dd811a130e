"""What `/v1` answers: results as JSON, and the same as models, from which the OpenAPI document is made.

Answers are written as plain dicts: checking each of a thousand boxes against a model would cost more than it is worth.
A test holds the two together.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.http.gateway import CameraPage
from serve_app.results import FrameResult
from serve_app.tickets import Ticket
from serve_app.verdicts import Outcome, Verdict, VerdictKind

OUTCOMES = Literal["finished", "rejected", "expired", "superseded", "cancelled", "failed"]
VERDICTS = Literal["admit", "degrade", "defer", "reject"]


class Answer(BaseModel):
    """Clients may count on these fields; others may come."""

    model_config = ConfigDict(extra="allow")


class DetectionAnswer(Answer):
    """One box."""

    box_xyxy: tuple[float, float, float, float] = Field(description="x_min, y_min, x_max, y_max in px of the image")
    score: float
    class_id: int
    class_name: str


class VerdictAnswer(Answer):
    """What admission decided."""

    kind: VERDICTS
    reason: str
    rung: int = Field(description="where on the ladder it was placed; 0: its camera's own model at its own size")
    retry_after_s: float | None = None


class TimesAnswer(Answer):
    """Where the milliseconds went."""

    queue: float
    transfer: float
    preprocess: float
    infer: float
    postprocess: float
    total: float


class FrameAnswer(Answer):
    """How one frame ended."""

    frame_id: str
    camera: str
    priority: str
    outcome: OUTCOMES
    size_hw: tuple[int, int] = Field(description="height, width in px")
    detections: list[DetectionAnswer]
    verdict: VerdictAnswer | None = None
    error: str | None = None
    model: str | None = None
    bucket: str | None = None
    pool: str | None = None
    canvas_hw: tuple[int, int] | None = None
    rung: int
    num_tiles: int
    batch_size: int
    padding_fraction: float
    replica: str | None = None
    router: str | None = None
    times_ms: TimesAnswer


class PartAnswer(Answer):
    """How one part of a request ended: what `FrameAnswer` has, or why it is no frame."""

    name: str
    status: int = Field(description="the status that it would have had alone")
    error: str | None = None
    retry_after_s: float | None = None


class FramesAnswer(Answer):
    """How the parts of a request ended, in their order."""

    frames: list[PartAnswer]


class TicketAnswer(Answer):
    """A frame that was taken."""

    ticket_id: str
    camera: str
    verdict: VerdictAnswer
    expires_in_s: float = Field(description="for how long its result is kept, from the frame's end on")
    is_durable: bool
    result: str = Field(description="where to ask for it")


class TicketsAnswer(Answer):
    """A ticket for each part, or why there is none."""

    tickets: list[PartAnswer]


class WaitingAnswer(Answer):
    """The frame has no outcome yet."""

    ticket_id: str
    state: Literal["waiting"]


class CameraPageAnswer(Answer):
    """The next results of a camera's tickets."""

    results: list[FrameAnswer]
    cursor: str = Field(description="to ask for the next page with")
    num_missed: int | None = Field(
        None, description="results between the two cursors that are kept no more; null: unknown"
    )
    num_waiting: int


class HealthAnswer(Answer):
    """Whether frames would be served."""

    is_ready: bool
    reasons: list[str]


class LiveAnswer(Answer):
    """Whether this process can do its work."""

    is_live: bool


class Problem(Answer):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    retry_after_s: float | None = None
    outcome: OUTCOMES | None = None


def frame_answer(result: FrameResult) -> dict[str, Any]:
    """See `FrameAnswer`."""
    found, times = result.detections, result.times
    return {
        "frame_id": result.frame_id,
        "camera": result.camera,
        "priority": result.priority,
        "outcome": result.outcome.value,
        "size_hw": list(result.size_hw),
        "detections": [
            {"box_xyxy": [round(side, 2) for side in box], "score": round(score, 4), "class_id": class_id,
             "class_name": name}
            for box, score, class_id, name in zip(
                found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist(), result.class_names,
                strict=True,
            )
        ] if result.outcome is Outcome.FINISHED else [],
        "verdict": None if result.verdict is None else verdict_answer(result.verdict),
        "error": None if result.error is None else str(result.error),
        "model": result.model,
        "bucket": result.bucket,
        "pool": result.pool,
        "canvas_hw": None if result.canvas is None else list(result.canvas),
        "rung": result.rung,
        "num_tiles": result.num_tiles,
        "batch_size": result.batch_size,
        "padding_fraction": round(result.padding_fraction, 4),
        "replica": result.replica,
        "router": result.router,
        "times_ms": {
            "queue": _ms(times.queue_s), "transfer": _ms(times.transfer_s), "preprocess": _ms(times.preprocess_s),
            "infer": _ms(times.infer_s), "postprocess": _ms(times.postprocess_s), "total": _ms(times.total_s),
        },
    }  # fmt: skip


def verdict_answer(verdict: Verdict) -> dict[str, Any]:
    """See `VerdictAnswer`."""
    return {
        "kind": verdict.kind.value,
        "reason": verdict.reason,
        "rung": verdict.rung,
        "retry_after_s": verdict.retry_after_s if verdict.kind is VerdictKind.REJECT else None,
    }


def ticket_answer(ticket: Ticket) -> dict[str, Any]:
    """See `TicketAnswer`."""
    return {
        "ticket_id": ticket.ticket_id,
        "camera": ticket.camera,
        "verdict": verdict_answer(ticket.verdict),
        "expires_in_s": ticket.expires_in_s,
        "is_durable": ticket.is_durable,
        "result": f"/v1/tickets/{ticket.ticket_id}",
    }


def page_answer(page: CameraPage) -> dict[str, Any]:
    """See `CameraPageAnswer`."""
    return {
        "results": [frame_answer(result) for result in page.results],
        "cursor": page.cursor,
        "num_missed": page.num_missed,
        "num_waiting": page.num_waiting,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
