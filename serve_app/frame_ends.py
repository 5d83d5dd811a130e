"""Results of frames that have ended: what the router knows of one, put together for its caller and the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engines.boxes import DetectionLimits
from engines.detections import Detections
from engines.letterbox import placement
from engines.spec import CanvasShape
from engines.tiles import merge_tiles
from serve_app.errors import FramelaneError
from serve_app.frames import Frame, FrameMeta
from serve_app.results import BatchReply, FrameResult, StageTimes
from serve_app.route import Route
from serve_app.verdicts import Outcome, Verdict

Found = tuple[Detections, tuple[str, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredPiece:
    """A frame, or one tile of it, that a replica has answered.

    Attributes:
        route: how it was to be served.
        canvas, batch_size, reply: how it was.
        sent_s, answered_s: on the router's clock.
        found: its boxes in px of the piece; None if it failed.
    """

    route: Route
    canvas: CanvasShape
    batch_size: int
    reply: BatchReply
    sent_s: float
    answered_s: float
    found: Found | None


def refused(meta: FrameMeta, verdict: Verdict | None, error: FramelaneError) -> FrameResult:
    """The result of a frame that was not let in."""
    return FrameResult(
        meta.frame_id, meta.camera, meta.size_hw, meta.priority, Outcome.REJECTED, Detections.none(), (),
        verdict, error,
    )  # fmt: skip


def unserved(
    frame: Frame, verdict: Verdict, outcome: Outcome, error: FramelaneError, now_s: float, route: Route | None = None
) -> FrameResult:
    """The result of a frame that no replica answered; `route` is how it would have been served, where known."""
    waited_s = now_s - frame.arrived_s
    canvas = route.canvas if route else None
    return FrameResult(
        frame.frame_id, frame.camera, frame.size_hw, frame.priority.value, outcome, Detections.none(), (), verdict,
        error, route.bucket if route else None, route.pool if route else None, None, route.model if route else None,
        canvas, rung=route.rung if route else 0, num_tiles=len(route.windows) if route else 0,
        times=StageTimes(queue_s=waited_s, total_s=waited_s),
    )  # fmt: skip


def answered(
    frame: Frame,
    verdict: Verdict,
    pieces: Mapping[int, AnsweredPiece],
    limits: DetectionLimits,
    error: FramelaneError | None = None,
) -> FrameResult:
    """The result of a frame that replicas answered, whole or failed at a piece.

    Args:
        frame: which.
        verdict: what admission decided.
        pieces: the answered pieces by number, the last one last; one or more.
        limits: how many boxes of tiles are kept, and which overlap too much.
        error: why it failed; None: it finished.
    """
    last = list(pieces.values())[-1]
    route = last.route
    found: Found = (Detections.none(), ())
    if error is None:
        found = _merged(frame, route, pieces, limits)
    size_hw = (route.windows[0].height, route.windows[0].width) if route.windows else frame.size_hw
    return FrameResult(
        frame.frame_id, frame.camera, frame.size_hw, frame.priority.value,
        Outcome.FINISHED if error is None else Outcome.FAILED, found[0], found[1], verdict, error, route.bucket,
        route.pool, last.reply.replica, route.model, last.canvas, last.batch_size,
        placement(size_hw, last.canvas).padding_fraction, route.rung, len(route.windows), _times(frame, pieces),
    )  # fmt: skip


def _merged(frame: Frame, route: Route, pieces: Mapping[int, AnsweredPiece], limits: DetectionLimits) -> Found:
    """The boxes of all pieces in px of the frame."""
    if not route.windows:
        return pieces[0].found or (Detections.none(), ())
    found = [pieces[number].found or (Detections.none(), ()) for number in range(len(route.windows))]
    names = {
        int(class_id): name
        for detections, class_names in found
        for class_id, name in zip(detections.class_ids, class_names, strict=True)
    }
    merged = merge_tiles([detections for detections, _ in found], route.windows, frame.size_hw, limits)
    return merged, tuple(names[int(class_id)] for class_id in merged.class_ids)


def _times(frame: Frame, pieces: Mapping[int, AnsweredPiece]) -> StageTimes:
    """Where the time of a frame went; of several pieces the sums, and the rest as waiting."""
    total_s = max(piece.answered_s for piece in pieces.values()) - frame.arrived_s
    replies = [piece.reply for piece in pieces.values()]
    preprocess_s = sum(reply.preprocess_s for reply in replies)
    infer_s = sum(reply.infer_s for reply in replies)
    postprocess_s = sum(reply.postprocess_s for reply in replies)
    transfer_s = sum(
        piece.answered_s - piece.sent_s
        - (piece.reply.preprocess_s + piece.reply.staged_s + piece.reply.infer_s + piece.reply.postprocess_s)
        for piece in pieces.values()
    )  # fmt: skip
    queue_s = max(0.0, total_s - preprocess_s - infer_s - postprocess_s - transfer_s)
    return StageTimes(queue_s, transfer_s, preprocess_s, infer_s, postprocess_s, total_s)
