"""How a camera is doing right now: written by its thread, read by whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class CameraPhase(Enum):
    """What its thread is doing."""

    CONNECTING = "connecting"
    PLAYING = "playing"
    RECONNECTING = "reconnecting"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(slots=True)
class CameraState:
    """One camera's present. Each attribute is replaced whole, so reading it from another thread needs no lock.

    Attributes:
        phase: what it is doing.
        num_passed_over: frames beyond `max_fps`, never taken.
        num_connects: times that it was opened.
        last_frame_s: when its last frame was read, on the clock of the stream; None: not yet.
        problem: what went wrong last; empty while all is well.
    """

    phase: CameraPhase = CameraPhase.CONNECTING
    num_passed_over: int = 0
    num_connects: int = 0
    last_frame_s: float | None = None
    problem: str = ""
