"""Forming a batch from the lanes of one pool: late, when a replica has a credit, from what waits then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from engines.spec import CanvasShape
from serve_app.frames import Frame, Priority
from serve_app.lanes import Lane


class LaneKey(NamedTuple):
    """What all frames of one lane have in common."""

    bucket: str
    canvas: CanvasShape
    priority: Priority


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames that go to one replica in one call: one canvas, one priority, a warmed batch size.

    Attributes:
        batch_id: unique within a router.
        pool: the pool whose credit it holds.
        bucket, canvas: where its frames go.
        frames: most urgent first.
    """

    batch_id: int
    pool: str
    bucket: str
    canvas: CanvasShape
    frames: tuple[Frame, ...]


def most_urgent_lane(lanes: Mapping[LaneKey, Lane]) -> LaneKey | None:
    """The lane to serve next, None if all are empty: critical before normal, then the earliest deadline.

    Linear in the number of canvases.
    """
    urgencies = [
        (key.priority.rank, first.deadline_s, key) for key, lane in lanes.items() if (first := lane.first()) is not None
    ]
    return min(urgencies, key=lambda urgency: urgency[:2])[2] if urgencies else None


def warmed_batch_size(ladder: Iterable[int], num_waiting: int) -> int:
    """The largest batch size of the ladder that the waiting frames fill; the ladder begins with 1."""
    return max(size for size in ladder if size <= max(1, num_waiting))
