"""What a stream gives: frames, answers and gaps. Values only.

Of each camera the frames are numbered from 0 as they are read. Every number is that of one answer, or lies in one gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from engines.detections import Detections
from engines.letterbox import Image
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome


class GapCause(Enum):
    """Why frames have no detections."""

    SUPERSEDED = "superseded"
    """A newer frame of the camera took their place, here or in the service."""
    LOST = "lost"
    """The source could not give them, or broke off."""
    RECONNECTING = "reconnecting"
    """The camera went away; how many frames that cost nobody knows."""
    SERVICE_AWAY = "service away"
    """There was no service to answer them."""
    REJECTED = "rejected"
    """The service refused them."""
    EXPIRED = "expired"
    """They waited until they could not make their deadline."""
    FAILED = "failed"
    """The service tried and could not."""
    STOPPED = "stopped"
    """The stream was closed before they were answered."""

    __hash__ = object.__hash__


CAUSE_OF_OUTCOME = {
    Outcome.REJECTED: GapCause.REJECTED,
    Outcome.EXPIRED: GapCause.EXPIRED,
    Outcome.SUPERSEDED: GapCause.SUPERSEDED,
    Outcome.CANCELLED: GapCause.STOPPED,
    Outcome.FAILED: GapCause.FAILED,
}


@dataclass(frozen=True, slots=True, eq=False)
class StreamFrame:
    """A frame that was read.

    Attributes:
        camera: whose.
        number: the how manieth of its camera, from 0.
        at_s: seconds on the camera's own clock: in the video, or since the camera was first opened.
        image_hwc: uint8 `(height, width, 3)` BGR; the receiver's own.
    """

    camera: str
    number: int
    at_s: float
    image_hwc: Image = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A frame with what was found on it; also unpacks as `frame, detections = answer`.

    Attributes:
        frame: the frame.
        result: as `Client.detect` gives it.
        latency_s: from sending to answer, at this process.
    """

    frame: StreamFrame
    result: FrameResult
    latency_s: float

    @property
    def camera(self) -> str:
        """Whose."""
        return self.frame.camera

    @property
    def detections(self) -> Detections:
        """Boxes in px of the frame."""
        return self.result.detections

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each box's class."""
        return self.result.class_names

    def __iter__(self) -> Iterator[StreamFrame | Detections]:
        """The frame, then its detections."""
        return iter((self.frame, self.detections))


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames without detections, or a break in which nobody knows how many there were.

    Attributes:
        camera: whose.
        first_number: the number of the first missing frame; where `num_frames` is 0, of the next frame to come.
        num_frames: how many numbers lie in it.
        cause: why.
        reason: the same in words, without secrets.
        result: what the service said of the one frame, where it said something.
    """

    camera: str
    first_number: int
    num_frames: int
    cause: GapCause
    reason: str
    result: FrameResult | None = field(default=None, compare=False, repr=False)

    def joined(self, later: Gap) -> Gap:
        """This gap and the one right behind it as one, with the cause of this one, or of the one that cost frames."""
        cause = self.cause if self.num_frames or not later.num_frames else later.cause
        reason = self.reason if later.reason in self.reason else f"{self.reason}; {later.reason}"[:MAX_REASON_LETTERS]
        return Gap(self.camera, self.first_number, self.num_frames + later.num_frames, cause, reason)


# Joined reasons of a long night must not grow for ever.
MAX_REASON_LETTERS = 400
StreamItem = Answer | Gap
