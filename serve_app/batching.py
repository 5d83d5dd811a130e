"""What goes to a replica in one call, and how many pieces of a lane it takes."""

from __future__ import annotations

from typing import NamedTuple

from engines.spec import CanvasShape
from engines.tiles import Window
from serve_app.frames import Frame
from serve_app.lanes import Lane
from serve_app.latency import LatencyModel
from serve_app.plan import Plan
from serve_app.route import Route
from serve_app.routes import CALL_COST_S

# A frame may also join a batch on a canvas with at most so many times the pixels of its own: it is enlarged there, and
# boxes stay what they are within such a factor.
MAX_NEIGHBOUR_RATIO = 1.3


class Piece(NamedTuple):
    """A frame, or one tile of it, in a batch."""

    frame: Frame
    route: Route
    number: int

    @property
    def window(self) -> Window | None:
        """The part of the frame; None: the whole."""
        return self.route.windows[self.number] if self.route.windows else None


class Batch(NamedTuple):
    """Pieces that go to one replica in one call: one canvas, one class, a warmed batch size.

    Attributes:
        batch_id: unique within a router.
        pool, replica: whose credit it holds.
        bucket, model, canvas: where its pieces go.
        urgent: whether it goes before the staged batches that are not.
        run_s: seconds that it is predicted to keep the device.
        pieces: the one that is due first in front.
    """

    batch_id: int
    pool: str
    replica: str
    bucket: str
    model: str
    canvas: CanvasShape
    urgent: bool
    run_s: float
    pieces: tuple[Piece, ...]


def neighbours(plan: Plan) -> dict[tuple[str, CanvasShape], tuple[tuple[str, CanvasShape], ...]]:
    """For each (bucket, canvas) those whose frames may join its batches: nearly its size, and fitting on it."""
    places = [(bucket, canvas) for bucket in plan.buckets for canvas in bucket.canvases]
    return {
        (bucket.name, canvas): tuple(
            (other.name, small)
            for other, small in sorted(places, key=lambda place: -place[1].num_px)
            if (other.model, other.pool) == (bucket.model, bucket.pool)
            and small != canvas
            and small.height <= canvas.height
            and small.width <= canvas.width
            and canvas.num_px <= MAX_NEIGHBOUR_RATIO * small.num_px
        )
        for bucket, canvas in places
    }


def batch_size(
    route: Route, lane: Lane, latency: LatencyModel, time_left_s: float, max_batch: int | None = None
) -> int:
    """The largest warmed size that the lane fills and that still lets its most urgent frame be on time.

    `max_batch`: what the devices have memory for; None: for any.
    """
    most = lane.num_waiting if max_batch is None else min(lane.num_waiting, max_batch)
    size = 1
    for larger in route.ladder[1:]:
        if larger > most or latency.predict_s(route.model, route.canvas, larger) > time_left_s:
            break
        size = larger
    return size


def gain_of_joining(route: Route, size: int, joining: int, small: Route, latency: LatencyModel) -> float:
    """Device seconds saved if pieces of a smaller canvas join a batch instead of forming their own."""
    alone_s = latency.predict_s(small.model, small.canvas, joining) + CALL_COST_S
    before_s = latency.predict_s(route.model, route.canvas, size)
    return alone_s - (latency.predict_s(route.model, route.canvas, size + joining) - before_s)
