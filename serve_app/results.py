"""What a caller gets for a frame, and the messages between router and engine replica."""

from __future__ import annotations

from dataclasses import dataclass

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app.errors import FramelaneError
from serve_app.verdicts import Outcome, Verdict


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Where a frame's time went, in seconds; for a frame that a replica answered the stages add up to `total_s`.

    Attributes:
        queue_s: waiting in the router's lane, and staged at the replica behind a running batch.
        transfer_s: the call to the replica and back, and fetching the pixels.
        preprocess_s: placing the batch on its canvas.
        infer_s: the network, for the whole batch.
        postprocess_s: from its output to boxes in source px, for the whole batch.
        total_s: from the router's receipt to its answer.
    """

    queue_s: float = 0.0
    transfer_s: float = 0.0
    preprocess_s: float = 0.0
    infer_s: float = 0.0
    postprocess_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """How one frame ended.

    Attributes:
        frame_id, camera, size_hw, priority: as asked; size in px.
        outcome: how it ended; `detections` are meaningful for `finished` only.
        detections: boxes in px of the frame itself.
        class_names: the name of each box's class.
        verdict: what admission decided; None for a frame that was invalid.
        error: why it did not finish; None if it did.
        bucket, pool, model, canvas: where it was to be served; None for a frame that was refused.
        replica, batch_size: who answered it and with how many others; None and 0 if no replica did.
        padding_fraction: share of the canvas that showed no frame.
        times: where the time went.
    """

    frame_id: str
    camera: str
    size_hw: tuple[int, int]
    priority: str
    outcome: Outcome
    detections: Detections
    class_names: tuple[str, ...] = ()
    verdict: Verdict | None = None
    error: FramelaneError | None = None
    bucket: str | None = None
    pool: str | None = None
    replica: str | None = None
    model: str | None = None
    canvas: CanvasShape | None = None
    batch_size: int = 0
    padding_fraction: float = 0.0
    times: StageTimes = StageTimes()

    def unless_failed(self) -> FrameResult:
        """This result, if the frame finished; otherwise raises its error."""
        if self.error is not None:
            raise self.error
        return self


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One call to an engine replica; the pixels travel beside it as nested object refs, one a frame.

    Attributes:
        bucket, canvas: which engine and where to place the frames.
        sizes_hw: (height, width) in px that each frame was announced with.
    """

    bucket: str
    canvas: CanvasShape
    sizes_hw: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class BatchReply:
    """What a replica answers: for each frame boxes in source px with their class names, or its own error.

    The seconds are durations on the replica's clock; `staged_s` is the wait behind the batch that ran before.
    """

    replica: str
    frames: tuple[tuple[Detections, tuple[str, ...]] | FramelaneError, ...]
    fetch_s: float
    preprocess_s: float
    staged_s: float
    infer_s: float
    postprocess_s: float


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What an engine replica says of itself.

    Attributes:
        replica: its id.
        node: the machine it runs on.
        num_batches: batches answered since it started.
        warm_s: seconds that loading and warming took.
        used_bytes, total_bytes: memory of its device.
    """

    replica: str
    node: str
    num_batches: int
    warm_s: float
    used_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """One pool at a glance: frames waiting, batches running, and its replicas."""

    name: str
    num_waiting: int
    num_running: int
    replicas: tuple[ReplicaReport, ...]


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The service at a glance.

    Attributes:
        uptime_s: since the router started.
        pools: in the plan's order.
        outcomes: frames so far, by outcome.
        num_in_flight: frames that have no outcome yet.
        num_records_lost: frames whose record could not be written to the frame log.
    """

    uptime_s: float
    pools: tuple[PoolStatus, ...]
    outcomes: dict[str, int]
    num_in_flight: int
    num_records_lost: int = 0
