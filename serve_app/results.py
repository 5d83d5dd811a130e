"""What a caller gets for a frame, and the messages between router and engine replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engines.detections import Detections
from engines.device_facts import DeviceFacts
from engines.spec import CanvasShape, WarmShape
from engines.tiles import Window
from serve_app.errors import FramelaneError
from serve_app.verdicts import Outcome, Verdict


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Where a frame's time went, in seconds; for a frame that a replica answered the stages add up to `total_s`.

    For a frame that ran as tiles every stage but `queue_s` is the sum over its tiles' batches, `queue_s` the rest: it
    is 0 where the tiles ran beside each other for longer than the frame was here.

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
        rung: where on the ladder it was served; 0 is its camera's own model at its own size.
        num_tiles: how many tiles it was cut into; 0: it was served whole.
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
    rung: int = 0
    num_tiles: int = 0
    times: StageTimes = StageTimes()

    def unless_failed(self) -> FrameResult:
        """This result, if the frame finished; otherwise raises its error."""
        if self.error is not None:
            raise self.error
        return self


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One call to an engine replica; the pixels travel beside it as nested object refs, one a piece.

    Attributes:
        bucket, canvas: which engine and where to place the pieces.
        urgent: whether it goes before the staged batches that are not.
        sizes_hw: (height, width) in px that the frame of each piece was announced with.
        windows: which part of its frame each piece is; None: the whole.
    """

    bucket: str
    canvas: CanvasShape
    urgent: bool
    sizes_hw: tuple[tuple[int, int], ...]
    windows: tuple[Window | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class BatchReply:
    """What a replica answers: for each piece boxes in px of that piece with their class names, or its own error.

    The seconds are durations on the replica's clock; `staged_s` is the wait behind the batch that ran before.
    `out_of_memory`: the device had no memory for this batch, and goes on with smaller ones.
    """

    replica: str
    frames: tuple[tuple[Detections, tuple[str, ...]] | FramelaneError, ...]
    fetch_s: float
    preprocess_s: float
    staged_s: float
    infer_s: float
    postprocess_s: float
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What an engine replica says of itself.

    Attributes:
        replica: its id.
        node: the machine it runs on.
        num_batches: batches answered since it started.
        warm_s: seconds that loading and warming took.
        latencies: seconds that a batch of each warmed shape took right after warming, by bucket.
        device: what its device says of itself.
        busy_s: how long its engine has been running the present batch; 0: it runs none.
    """

    replica: str
    node: str
    num_batches: int
    warm_s: float
    device: DeviceFacts
    latencies: tuple[tuple[str, WarmShape, float], ...] = ()
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """One pool at a glance.

    Attributes:
        num_waiting: pieces (frames, or tiles of them) that wait.
        num_running: batches at its replicas.
        replicas: what they say of themselves.
        backlog_s: predicted device seconds that wait.
        rung: the first rung of the ladder that noncritical frames may take now.
        around_s: what a batch takes beside its device, of late.
        unhealthy: replicas that get no batches though they are there, by name, and why.
    """

    name: str
    num_waiting: int
    num_running: int
    replicas: tuple[ReplicaReport, ...]
    backlog_s: float = 0.0
    rung: int = 0
    around_s: float = 0.0
    unhealthy: Mapping[str, str] = field(default_factory=dict)


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
