"""What was decided about a frame, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class VerdictKind(Enum):
    """What admission decides about a frame that arrives."""

    ADMIT = "admit"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision with its reason.

    Attributes:
        kind: the decision.
        reason: why, in words for the caller.
        retry_after_s: of a rejection: seconds until there may be room.
    """

    kind: VerdictKind
    reason: str
    retry_after_s: float | None = None


class Outcome(Enum):
    """How a frame ended. Every frame that reaches a router ends as exactly one of these."""

    FINISHED = "finished"
    """Answered with detections (in time or late)."""
    REJECTED = "rejected"
    """Refused at arrival: an invalid frame, or no room."""
    EXPIRED = "expired"
    """Its deadline passed while it waited."""
    CANCELLED = "cancelled"
    """Its caller gave up while it waited."""
    FAILED = "failed"
    """A replica tried and could not."""
