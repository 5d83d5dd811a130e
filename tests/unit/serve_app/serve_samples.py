"""A small plan, the seconds that its shapes take, and frames for it, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterable

from engines.spec import CanvasShape
from serve_app.batching import Batch
from serve_app.decisions import Decisions
from serve_app.frames import Frame, FrameMeta, Priority
from serve_app.latency import Latency, LatencyKey, LatencyModel, LatencyTable, Origin
from serve_app.plan import Bucket, CameraRule, Keep, Limits, Oversize, Plan, Pool, Rung
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
LIGHT_BUCKET = Bucket("light", "light", "near", (VGA,), (1, 2, 4))
# Two rungs below a camera's own: the same model on at most a VGA canvas, then the light one.
LADDER = (Rung("full", VGA), Rung("light"))
# One camera of each kind that a rule can make.
RULES = (
    CameraRule("latest-*", keep=Keep.LATEST),
    CameraRule("tile-*", oversize=Oversize.TILE),
    CameraRule("reject-*", oversize=Oversize.REJECT),
    CameraRule("firm-*", degrade=False),
)

# Seconds by model and canvas, for batches of 1, 2, 4: two VGA frames together save 4 ms, four save 12 ms.
RUN_S = {
    ("full", VGA): (0.010, 0.016, 0.028),
    ("full", PORTRAIT): (0.010, 0.016, 0.028),
    ("full", HD): (0.030, 0.054),
    ("full", UHD): (0.080,),
    ("light", VGA): (0.004, 0.006, 0.010),
}


def sample_plan(**changes) -> Plan:
    """The plan of two pools and three buckets, without a ladder; `changes` replace its fields."""
    fields = {"models": {"full": "/models/full.onnx"}, "pools": (Pool("near"), Pool("far")), "buckets": BUCKETS}
    return Plan(**(fields | changes))


def ladder_plan(**changes) -> Plan:
    """The plan with two rungs below the first, and a camera rule of each kind; `changes` replace its fields."""
    models = {"full": "/models/full.onnx", "light": "/models/light.onnx"}
    fields = {"models": models, "buckets": (*BUCKETS, LIGHT_BUCKET), "ladder": LADDER, "cameras": RULES}
    return sample_plan(**(fields | changes))


def sample_table(run_s=RUN_S) -> LatencyTable:
    """The seconds above, or others by (model, canvas), one for each of the batch sizes 1, 2, 4 and so on."""
    entries = {
        LatencyKey(model, canvas, 2**power): Latency(seconds, 0.1 * seconds, 8)
        for (model, canvas), by_batch in run_s.items()
        for power, seconds in enumerate(by_batch)
    }
    return LatencyTable("the tests' machine", Origin.MEASURED, entries)


def sample_latency(run_s=RUN_S) -> LatencyModel:
    """A model of that table."""
    return LatencyModel(sample_table(run_s))


def sample_limits(*, frames: int = 500, num_bytes: int = 2**30) -> Limits:
    """Budgets of what may be here."""
    return Limits(max_waiting_frames=frames, max_waiting_bytes=num_bytes)


def sample_frame(
    frame_id: str,
    *,
    deadline_s: float = 100.0,
    priority: Priority = Priority.NORMAL,
    size_hw: tuple[int, int] = VGA,
    camera: str = "gate-1",
    num_bytes: int = 1000,
    arrived_s: float = 0.0,
) -> Frame:
    """A frame that the router has checked; a canvas will do as its size."""
    return Frame(
        frame_id=frame_id,
        camera=camera,
        size_hw=tuple(size_hw),
        priority=priority,
        arrived_s=arrived_s,
        deadline_s=deadline_s,
        num_bytes=num_bytes,
    )


def criticals(*names: str, deadline_s: float = 100.0, **changes) -> list[Frame]:
    """Critical frames that are due one after the other."""
    return [
        sample_frame(name, deadline_s=deadline_s + number, priority=Priority.CRITICAL, **changes)
        for number, name in enumerate(names)
    ]


def sample_meta(frame_id: str, **changes) -> FrameMeta:
    """What a client says of a VGA frame; `changes` replace its fields."""
    fields = {"frame_id": frame_id, "camera": "gate-1", "size_hw": (480, 640), "priority": "normal", "slo_s": 30.0}
    return FrameMeta(**(fields | changes))


def admit(scheduler: Scheduler, *frames: Frame) -> None:
    """Let frames arrive, in this order, none of which may be rejected."""
    for frame in frames:
        verdict = scheduler.arrived(frame).verdict
        assert verdict.kind is not VerdictKind.REJECT, verdict


def scheduler_of(*frames: Frame, near: int = 0, far: int = 0, latency: LatencyModel | None = None, **changes):
    """A scheduler of the sample plan with so many replicas (`near-0` and so on), at which these frames have arrived."""
    return prepared(Scheduler(sample_plan(**changes), latency or sample_latency()), *frames, near=near, far=far)


def ladder_scheduler(*frames: Frame, near: int = 0, far: int = 0, **changes) -> Scheduler:
    """The same for the plan with a ladder and camera rules."""
    return prepared(Scheduler(ladder_plan(**changes), sample_latency()), *frames, near=near, far=far)


def prepared(scheduler: Scheduler, *frames: Frame, near: int = 0, far: int = 0) -> Scheduler:
    """A scheduler that was told of replicas, then of frames."""
    for pool, num_replicas in (("near", near), ("far", far)):
        if num_replicas:
            scheduler.replicas_ready(pool, replicas(pool, num_replicas))
    admit(scheduler, *frames)
    return scheduler


def replicas(pool: str, num_replicas: int) -> list[str]:
    """The names of a pool's first replicas."""
    return [f"{pool}-{number}" for number in range(num_replicas)]


def ids(frames: Iterable[Frame]) -> list[str]:
    """The ids of frames, in their order."""
    return [frame.frame_id for frame in frames]


def in_batch(batch: Batch) -> list[str]:
    """The ids of the frames in a batch, in its order; one for each piece."""
    return [piece.frame.frame_id for piece in batch.pieces]


def sent(decisions: Decisions) -> list[list[str]]:
    """The ids in each batch."""
    return [in_batch(batch) for batch in decisions.batches]


def expired(decisions: Decisions) -> list[str]:
    """The ids of the frames that expired."""
    return [each.frame.frame_id for each in decisions.expired]
