"""Frames and results for the tests of spools."""

from __future__ import annotations

import numpy as np

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app.errors import FrameFailedError
from serve_app.results import FrameResult, StageTimes
from serve_app.spool.record import Encoding, FrameRecord, record_bytes
from serve_app.spool.result_record import result_bytes
from serve_app.spool.spool import FrameEnd, NewFrame
from serve_app.spool.spool_clock import ClockMark
from serve_app.verdicts import Outcome, Verdict, VerdictKind

LIFE_S = 3600.0
TTL_S = 100.0


def sample_record(frame_id="f-1", camera="gate", image=b"\x00\x01pixels"):
    """A record whose image is whatever bytes."""
    return FrameRecord(frame_id, camera, (48, 64), Encoding.PNG, image)


def new_frame(frame_id, camera="gate", num_bytes=100):
    """A frame to be kept, whose image has about so many bytes that no compression makes fewer."""
    image = np.random.default_rng(len(frame_id)).bytes(num_bytes)
    return NewFrame(frame_id, camera, LIFE_S, record_bytes(sample_record(frame_id, camera, image)))


def sample_result(frame_id="f-1", camera="gate", outcome=Outcome.FINISHED, score=0.1, num_boxes=2):
    """A result with every field set; `score` tells whose it is."""
    error = None if outcome is Outcome.FINISHED else FrameFailedError("frame: no", 0.25)
    boxes_xyxy = np.linspace(0.1, 639.9, num_boxes * 4, dtype=np.float32).reshape(-1, 4)
    return FrameResult(
        frame_id, camera, (48, 64), "normal", outcome,
        Detections(boxes_xyxy, np.full(num_boxes, score, np.float32), np.arange(num_boxes, dtype=np.int64)),
        tuple(f"class {index}" for index in range(num_boxes)),
        Verdict(VerdictKind.DEFER, "large", None, 1), error, "vga", "cpu", "replica-1", "full", CanvasShape(48, 64), 2,
        0.25, 1, 3, StageTimes(0.1, 0.2, 0.3, 0.4, 0.5, 1.5),
    )  # fmt: skip


def end_of(frame_id, camera="gate", outcome=Outcome.FINISHED, aside_reason=None, score=0.1):
    """How a frame ended."""
    return FrameEnd(frame_id, outcome, result_bytes(sample_result(frame_id, camera, outcome, score)), aside_reason)


def mark_at(spool_s):
    """A time of the spool; the machine's own clocks do not matter to stores."""
    return ClockMark(spool_s, 1.0, "boot", 2.0)


def ids_of(frames):
    """Their ids, in order."""
    return [frame.frame_id for frame in frames]
