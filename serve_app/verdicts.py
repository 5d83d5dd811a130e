"""What was decided about a frame, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class VerdictKind(Enum):
    """What admission decides about a frame that arrives."""

    ADMIT = "admit"
    """Served by its camera's own model at its own size."""
    DEGRADE = "degrade"
    """Served on a lower rung of the ladder."""
    DEFER = "defer"
    """Served at its own size, when nothing more urgent waits or it must begin."""
    REJECT = "reject"
    """Not served; `retry_after_s` says when there may be room."""

    # Looked up for every frame; an enum's own hash is computed in Python, from its name.
    __hash__ = object.__hash__


class RejectCause(Enum):
    """Why a frame was refused, as one of few words: a reason has the frame's own numbers in it."""

    FRAMES = "frames"
    """As many frames are here as may be."""
    BYTES = "bytes"
    """As many bytes of them."""
    LATE = "late"
    """It is predicted to be late on every rung."""
    MEMORY = "memory"
    """The memory of its pool's devices is nearly full."""
    OVERSIZE = "oversize"
    """Larger than every canvas, and the plan rejects such frames."""
    INVALID = "invalid"
    """The frame, or what was said of it, cannot be served."""
    TICKETS = "tickets"
    """As many tickets are out as may be."""
    OTHER = "other"
    """None of these."""

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision with its reason.

    Attributes:
        kind: the decision.
        reason: why, in words for the caller.
        retry_after_s: of a rejection: seconds until there may be room; None: never for such a frame.
        rung: where on the ladder it was placed; 0 is its camera's own model at its own size.
        cause: of a rejection: its kind, for counting; not compared, since the reason says it too.
    """

    kind: VerdictKind
    reason: str
    retry_after_s: float | None = None
    rung: int = 0
    cause: RejectCause | None = field(default=None, compare=False)


class Outcome(Enum):
    """How a frame ended. Every frame that reaches a router ends as exactly one of these."""

    FINISHED = "finished"
    """Answered with detections (in time or late)."""
    REJECTED = "rejected"
    """Refused at arrival: an invalid frame, or no room."""
    EXPIRED = "expired"
    """It waited until it could not make its deadline any more."""
    SUPERSEDED = "superseded"
    """A newer frame of its camera took its place while it waited."""
    CANCELLED = "cancelled"
    """Its caller gave up while it waited."""
    FAILED = "failed"
    """A replica tried and could not."""

    # As above.
    __hash__ = object.__hash__
