"""The names of lanes: which class of frames waits, for which canvas."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from engines.spec import CanvasShape


class LaneClass(IntEnum):
    """Who goes first."""

    CRITICAL = 0
    NORMAL = 1
    DEFERRED = 2

    # Lanes are looked up by it for every frame; an enum's own hash is computed in Python, from its name.
    __hash__ = int.__hash__


# Python 3.11 looks an enum's members up in Python, 150 ns each: what is asked for every frame uses these.
CRITICAL, NORMAL, DEFERRED = LaneClass


class LaneKey(NamedTuple):
    """What all pieces of one lane have in common."""

    bucket: str
    canvas: CanvasShape
    lane_class: LaneClass
