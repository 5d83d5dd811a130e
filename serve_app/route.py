"""One way to serve a frame, as a value; `routes.py` works them out."""

from __future__ import annotations

from dataclasses import dataclass

from engines.spec import CanvasShape
from engines.tiles import Window
from serve_app.lane_key import LaneKey


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One way to serve a frame, with predictions as of when it was worked out.

    Attributes:
        rung: where on the ladder; 0 is the camera's own model at the frame's own size.
        lane: where its pieces wait.
        pool, bucket, model, canvas: who serves it.
        windows: the tiles it is cut into; empty: it is served whole.
        shrunk: whether it is larger than its canvas.
        num_pieces: how many pieces of work it makes.
        alone_s: predicted seconds of one piece (the frame, or a tile) in a batch of one.
        own_s: of all its pieces, one after the other.
        piece_s: device seconds of one piece in the best batch, with its share of the call.
        work_s: of all its pieces in such batches.
        max_batch: the best batch size: the cheapest a frame among those no longer than a chunk.
        ladder: the warmed batch sizes up to `max_batch`, ascending.
    """

    rung: int
    lane: LaneKey
    pool: str
    bucket: str
    model: str
    canvas: CanvasShape
    windows: tuple[Window, ...]
    shrunk: bool
    num_pieces: int
    alone_s: float
    own_s: float
    piece_s: float
    work_s: float
    max_batch: int
    ladder: tuple[int, ...]
