"""A small plan and frames for it, shared by the tests of this folder."""

from __future__ import annotations

from engines.spec import CanvasShape
from serve_app.frames import Frame, FrameMeta, Priority
from serve_app.plan import Bucket, Limits, Plan, Pool
from serve_app.scheduler import Scheduler
from serve_app.verdicts import VerdictKind

VGA = CanvasShape(480, 640)
PORTRAIT = CanvasShape(640, 480)
HD = CanvasShape(736, 1280)
UHD = CanvasShape(1088, 1920)

# Pool `near` serves three canvases in two buckets with their own ladders, pool `far` one.
BUCKETS = (
    Bucket("vga", "full", "near", (VGA, PORTRAIT), (1, 2, 4)),
    Bucket("hd", "full", "near", (HD,), (1, 2)),
    Bucket("uhd", "full", "far", (UHD,), (1,)),
)
BUCKET_OF_CANVAS = {canvas: bucket.name for bucket in BUCKETS for canvas in bucket.canvases}
POOL_OF_CANVAS = {canvas: bucket.pool for bucket in BUCKETS for canvas in bucket.canvases}
LADDER_OF_CANVAS = {canvas: bucket.batches for bucket in BUCKETS for canvas in bucket.canvases}


def sample_plan(**changes) -> Plan:
    """The plan of two pools and three buckets; `changes` replace its fields."""
    fields = {"models": {"full": "/models/full.onnx"}, "pools": (Pool("near"), Pool("far")), "buckets": BUCKETS}
    return Plan(**(fields | changes))


def sample_limits(*, frames: int = 500, num_bytes: int = 2**30) -> Limits:
    """Budgets of what may wait."""
    return Limits(max_waiting_frames=frames, max_waiting_bytes=num_bytes)


def sample_frame(
    frame_id: str,
    *,
    deadline_s: float = 100.0,
    priority: Priority = Priority.NORMAL,
    canvas: CanvasShape = VGA,
    num_bytes: int = 1000,
    arrived_s: float = 0.0,
) -> Frame:
    """A frame that the router has checked, of exactly its canvas's size."""
    return Frame(
        frame_id=frame_id,
        camera="gate-1",
        size_hw=(canvas.height, canvas.width),
        priority=priority,
        arrived_s=arrived_s,
        deadline_s=deadline_s,
        bucket=BUCKET_OF_CANVAS[canvas],
        canvas=canvas,
        num_bytes=num_bytes,
    )


def sample_meta(frame_id: str, **changes) -> FrameMeta:
    """What a client says of a VGA frame; `changes` replace its fields."""
    fields = {"frame_id": frame_id, "camera": "gate-1", "size_hw": (480, 640), "priority": "normal", "slo_s": 30.0}
    return FrameMeta(**(fields | changes))


def admit(scheduler: Scheduler, *frames: Frame) -> None:
    """Let frames arrive, in this order, none of which may be rejected."""
    for frame in frames:
        verdict = scheduler.arrived(frame)
        assert verdict.kind is VerdictKind.ADMIT, verdict


def ids(frames) -> list[str]:
    """The ids of frames, in their order."""
    return [frame.frame_id for frame in frames]
