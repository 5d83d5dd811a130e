"""Frames as the router sees them: metadata only, the pixels stay in the object store."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from numbers import Integral
from typing import NamedTuple, TypeGuard

import numpy as np

from engines.errors import FrameArrayError
from engines.frame_array import check_size
from serve_app.errors import InvalidFrameError

# A day: what may wait longer is a job for a queue of files, and clocks take no arbitrary numbers.
MAX_SLO_S = 86_400.0


class Priority(Enum):
    """Which frames go first. Critical frames pass every normal one."""

    CRITICAL = "critical"
    NORMAL = "normal"

    # Looked up for every frame; an enum's own hash is computed in Python, from its name.
    __hash__ = object.__hash__

    @property
    def rank(self) -> int:
        """0 goes first."""
        return 0 if self is Priority.CRITICAL else 1


def priority_named(name: object) -> Priority:
    """The priority of this name; raises `InvalidFrameError` for any other value."""
    try:
        return Priority(name)
    except ValueError as err:
        allowed = ", ".join(repr(priority.value) for priority in Priority)
        raise InvalidFrameError(f"priority: got {name!r}, allowed are {allowed}") from err


@dataclass(frozen=True, slots=True)
class FrameMeta:
    """What a client says of one frame; travels with every call.

    Attributes:
        frame_id: unique for this frame; names it in logs and records.
        camera: who took it.
        size_hw: (height, width) in px.
        priority: `critical` or `normal`; checked by the router, so that every caller gets the same error.
        slo_s: seconds from now until it must be finished; None: the plan's default for its priority. Remaining seconds
            travel, never a clock reading: clocks of two machines have nothing in common.
        attempt: how often it was sent before, to a router that died or could not be reached; a router that has it, or
            has answered it of late, gives that answer.
    """

    frame_id: str
    camera: str
    size_hw: tuple[int, int]
    priority: str = Priority.NORMAL.value
    slo_s: float | None = None
    attempt: int = 0


class Frame(NamedTuple):
    """A frame that the router has checked.

    Attributes:
        frame_id, camera, size_hw: as in `FrameMeta`.
        priority: the parsed priority.
        arrived_s, deadline_s: on the router's monotonic clock.
        num_bytes: what its pixels hold in the object store.
    """

    frame_id: str
    camera: str
    size_hw: tuple[int, int]
    priority: Priority
    arrived_s: float
    deadline_s: float
    num_bytes: int


def check_meta(meta: FrameMeta, *, max_frame_px: int) -> Priority:
    """Check what a client said of a frame and return its priority.

    Raises:
        InvalidFrameError: id, priority, camera name, deadline or size.
    """
    if not isinstance(meta.frame_id, str) or not meta.frame_id:
        raise InvalidFrameError(f"frame_id: got {meta.frame_id!r}, allowed is a non-empty text of the frame's own")
    priority = priority_named(meta.priority)
    if not isinstance(meta.camera, str) or not meta.camera:
        raise InvalidFrameError(f"camera: got {meta.camera!r}, allowed is a non-empty name such as 'gate-1'")
    if meta.slo_s is not None and not _is_duration(meta.slo_s):
        raise InvalidFrameError(
            f"slo_s: got {meta.slo_s!r}, allowed is a number of seconds above 0, at most {MAX_SLO_S:g}, from now on; "
            "a deadline in the past cannot be met: drop the frame, or leave slo_s out for the plan's default"
        )
    if not is_size(meta.size_hw):
        raise InvalidFrameError(f"size_hw: got {meta.size_hw!r}, allowed is (height, width) in whole px")
    try:
        check_size(meta.size_hw, max_frame_px=max_frame_px)
    except FrameArrayError as err:
        raise InvalidFrameError(str(err)) from err
    return priority


def _is_duration(value: object) -> bool:
    """Whether this is a number of seconds, NumPy's included, from above 0 to `MAX_SLO_S`; a switch is none."""
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return is_number and bool(0 < value <= MAX_SLO_S)  # type: ignore[operator]


def is_size(value: object) -> TypeGuard[tuple[int, int]]:
    """Whether this is a pair of whole numbers, NumPy's included; a client may send anything."""
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(side, Integral) for side in value)
