"""What a caller gets for a frame, and the messages between router and engine replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engines.detections import Detections
from engines.device_facts import DeviceFacts
from engines.spec import CanvasShape, WarmShape
from engines.tiles import Window
from serve_app.credit_grants import CreditGrant, CreditUse
from serve_app.errors import FramelaneError
from serve_app.frame_boxes import FrameBoxes, boxes_record
from serve_app.memory_level import MemoryLevel
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
class FrameResult(FrameBoxes):
    """How one frame ended; what can be done with its boxes is in `FrameBoxes`.

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
        router: who took it in and answered it; None: nobody yet.
        revision: of the application that this router is part of: a client that sees a new one follows an update.
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
    router: str | None = None
    revision: int = 0

    def unless_failed(self) -> FrameResult:
        """This result, if the frame finished; otherwise raises its error."""
        if self.error is not None:
            raise self.error
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the frame's record as in the frame log, with its boxes, scores and classes beside it."""
        from serve_app.frame_log import frame_record  # which knows this module

        return {**frame_record(self), **boxes_record(self.detections, self.class_names)}


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One call to an engine replica; the pixels travel beside it as nested object refs, one a piece.

    Attributes:
        bucket, canvas: which engine and where to place the pieces.
        urgent: whether it goes before the staged batches that are not.
        sizes_hw: (height, width) in px that the frame of each piece was announced with.
        windows: which part of its frame each piece is; None: the whole.
        router: who sends it, on whose credit.
        run_s: how long it is predicted to run.
    """

    bucket: str
    canvas: CanvasShape
    urgent: bool
    sizes_hw: tuple[tuple[int, int], ...]
    windows: tuple[Window | None, ...]
    # Who asks is no part of what is asked.
    router: str = field(default="", compare=False)
    run_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class BatchReply:
    """What a replica answers: for each piece boxes in px of that piece with their class names, or its own error.

    The seconds are durations on the replica's clock; `staged_s` is the wait behind the batch that ran before.
    `out_of_memory`: the device had no memory for this batch, and goes on with smaller ones. `no_credit`: its router had
    no credit here, so it was not read. `grant`: what the router may have here from now on; None: whatever it likes.
    `is_broken`: there is not even memory for the smallest batch of its bucket; the replica says in its reports when
    there is again.
    """

    replica: str
    frames: tuple[tuple[Detections, tuple[str, ...]] | FramelaneError, ...]
    fetch_s: float
    preprocess_s: float
    staged_s: float
    infer_s: float
    postprocess_s: float
    out_of_memory: bool = False
    no_credit: bool = False
    grant: CreditGrant | None = None
    is_broken: bool = False


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
        grant: what the router that asks may have here; None: whatever it likes.
        credits: what became of all its credits.
        broken: buckets that it cannot serve for want of memory, each with the reason.
        up_s: seconds since it began to start.
        notes: what is not as it should be, in words for people.
        revision: of the application that it belongs to; a router takes none but its own revision's.
        busy_s: how long its engine has been running the present batch; 0: it runs none.
    """

    replica: str
    node: str
    num_batches: int
    warm_s: float
    device: DeviceFacts
    latencies: tuple[tuple[str, WarmShape, float], ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    grant: CreditGrant | None = None
    credits: CreditUse = field(default_factory=CreditUse)
    up_s: float = 0.0
    notes: tuple[str, ...] = ()
    revision: int = 0
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RouterReport:
    """What a router says of itself to the others.

    Attributes:
        router: its name.
        node, pid: the machine and the process it runs in.
        revision: of the plan that it serves; routers of the highest one own the cameras.
        is_ready: whether it has counted a replica in each pool.
    """

    router: str
    node: str
    pid: int
    revision: int = 0
    is_ready: bool = False

    @property
    def replica(self) -> str:
        """Its name, as that of every replica that is watched."""
        return self.router


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """One router at a glance.

    Attributes:
        report: what it says of itself.
        uptime_s: since it started.
        num_in_flight: frames with it that have no outcome yet.
        num_waiting: pieces (frames, or tiles of them) that wait at it.
        num_running: its batches at replicas.
        backlog_s: predicted device seconds that wait.
        outcomes: frames so far, by outcome.
    """

    report: RouterReport
    uptime_s: float
    num_in_flight: int
    num_waiting: int
    num_running: int
    backlog_s: float
    outcomes: dict[str, int]


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """One pool at a glance, as one router sees it.

    Of several routers: numbers of what waits, runs and may be sent add up, as does `backlog_s`; of `rung`, `memory` and
    `around_s` the largest counts; `replicas` are those of all, each once.

    Attributes:
        num_waiting: pieces (frames, or tiles of them) that wait.
        num_running: batches at its replicas.
        replicas: what they say of themselves.
        backlog_s: predicted device seconds that wait.
        rung: the first rung of the ladder that noncritical frames may take now.
        around_s: what a batch takes beside its device, of late.
        waiting: `num_waiting` by class: critical, normal, deferred.
        memory: how full the memory of its devices is.
        num_credits: noncritical batches that may be sent now.
        num_wanted: replicas that the plan asks for at least.
        unhealthy: replicas that get no batches though they are there, by name, and why.
    """

    name: str
    num_waiting: int
    num_running: int
    replicas: tuple[ReplicaReport, ...]
    backlog_s: float = 0.0
    rung: int = 0
    around_s: float = 0.0
    waiting: tuple[int, int, int] = (0, 0, 0)
    memory: MemoryLevel = MemoryLevel.NORMAL
    num_credits: int = 0
    num_wanted: int = 0
    unhealthy: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The service at a glance: the sums over its routers, see `router_status.py`.

    Attributes:
        uptime_s: since the first of its routers started.
        pools: in the plan's order.
        outcomes: frames so far, by outcome.
        num_in_flight: frames that have no outcome yet.
        num_records_lost: frames whose record could not be written to the frame log.
        verdicts: frames so far that have ended, by what admission decided; invalid ones have no verdict.
        routers: what each of them has to do, by name.
        revision: of the application; a later update has a larger one.
        num_handed_over: frames that routers handed over to their successors, which count how they ended.
    """

    uptime_s: float
    pools: tuple[PoolStatus, ...]
    outcomes: dict[str, int]
    num_in_flight: int
    num_records_lost: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    routers: tuple[RouterStatus, ...] = ()
    revision: int = 0
    num_handed_over: int = 0
