"""The plan of one deployment: which sizes are served, by which models, on which pools, within which limits.

Values only, and the one rule that follows from them: which canvas a frame of a given size is placed on. Reading the
YAML file is `config.py`'s work.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from engines.boxes import DetectionLimits
from engines.engine_spec import Precision
from engines.frame_array import MAX_FRAME_PX
from engines.spec import CanvasShape, WarmShape
from serve_app.autoscaling import Autoscaling
from serve_app.errors import InvalidPlanError
from serve_app.frames import Priority
from serve_app.http_rules import HttpRules
from serve_app.label_rule import label_rules
from serve_app.memory_level import MemoryMarks
from serve_app.spool_rules import SpoolRules

# A critical frame that is older than this is of no use to a safety stop.
DEFAULT_CRITICAL_SLO_S = 0.25
# A second is what people call "live".
DEFAULT_NORMAL_SLO_S = 1.0
# 500 full-HD frames: half a minute's work of one CPU, ten seconds' of a GPU; more waiting would only expire.
DEFAULT_MAX_WAITING_FRAMES = 500
# Must stay below the object store, which Ray makes 30 % of the memory, at most 200 GB.
DEFAULT_MAX_WAITING_BYTES = 2 * 1024**3
# A result is some hundred boxes: ten thousand of them are tens of MB.
DEFAULT_MAX_TICKETS = 10_000
# Who has not asked in a minute does not look at live cameras.
DEFAULT_TICKET_TTL_S = 60.0
# A critical frame may have to wait for one running chunk: no more of its time than this may go there.
CHUNK_FRACTION_OF_CRITICAL_SLO = 0.4
# Above 1600×900: full HD and more, the frames that a belt of small ones should not stand behind.
DEFAULT_DEFER_ABOVE_PX = 1_500_000
# A deferred frame is taken before others at this age, however far its deadline.
DEFAULT_MAX_DEFER_S = 10.0
# How long critical frames may keep all others from the device: one chunk of the others in a second costs them little.
DEFAULT_MAX_STARVE_S = 1.0


class Runtime(Enum):
    """What runs the networks of a pool."""

    ONNX = "onnxruntime"
    """ONNX Runtime on the CPU."""
    TENSORRT = "tensorrt"
    """TensorRT, or TensorRT for RTX, on a GPU."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Replicas of one kind, which serve the same buckets.

    Attributes:
        name: how buckets refer to it.
        num_replicas: how many, or how many at least; each has its own engines.
        num_cpus, num_gpus: what Ray reserves for one replica.
        num_threads: threads of one inference on the CPU; 0: one a core.
        runtime: what runs its networks.
        max_replicas: how many at most, as the load asks; None: as many as `num_replicas`, whatever the load.
        labels: of the machines that may run them: Ray's label selector, such as `{"gpu": "l4"}`.
        max_replicas_per_node: how many one machine may run; None: as many as it has room for.
        surge: whether an update starts new replicas beside the old ones, which needs room for both; else an old one is
            stopped before its new one starts.
    """

    name: str
    num_replicas: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    num_threads: int = 0
    runtime: Runtime = Runtime.ONNX
    max_replicas: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    max_replicas_per_node: int | None = None
    surge: bool = True


@dataclass(frozen=True, slots=True)
class EngineBuilding:
    """How the engines of TensorRT pools are built.

    Attributes:
        precision: in which numbers they compute.
        workspace_bytes: what one kernel may take for itself while it runs; None: the builder's own choice.
        cache: folder of built engines, on each machine; None: the user's cache folder.
        frames: folder of real frames, on which an FP16 engine must find what the FP32 graph finds; None: seeded scenes.
    """

    precision: Precision = Precision.FP16
    workspace_bytes: int | None = None
    cache: str | None = None
    frames: str | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    """Neighbouring canvases served by one engine.

    Attributes:
        name: how logs call it.
        model: name of its model.
        pool: name of the pool that serves it.
        canvases: (height, width) each; the first one is the most used, which a GPU engine is tuned for.
        batches: the batch sizes that are warmed, ascending, beginning with 1.
    """

    name: str
    model: str
    pool: str
    canvases: tuple[CanvasShape, ...]
    batches: tuple[int, ...]

    def warm_shapes(self) -> tuple[WarmShape, ...]:
        """Every shape that its engine may see."""
        return tuple(WarmShape(canvas, batch) for canvas in self.canvases for batch in self.batches)


class LogLevel(Enum):
    """From which weight on a line is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Keep(Enum):
    """Which frames of a camera may wait."""

    ALL = "all"
    LATEST = "latest"
    """A newer frame takes the place of the older one of its priority that still waits."""


class Oversize(Enum):
    """What becomes of a frame that is larger than every canvas of its model."""

    SHRINK = "shrink"
    """Scaled down, without distortion, to the canvas that keeps the most of its resolution."""
    TILE = "tile"
    """Cut into overlapping tiles at its own scale, whose boxes are merged."""
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class CameraRule:
    """What holds for the cameras whose name matches.

    Attributes:
        pattern: a shell pattern such as `gate-*`; the first rule that matches counts.
        model: the model that serves them; None: the plan's default.
        keep: which of their frames may wait.
        oversize: what becomes of a frame larger than every canvas.
        degrade: whether the ladder may be used for them.
        durable: whether frames that are sent for a ticket survive the service: they lie in the spool until answered.
    """

    pattern: str
    model: str | None = None
    keep: Keep = Keep.ALL
    oversize: Oversize = Oversize.SHRINK
    degrade: bool = True
    durable: bool = False


DEFAULT_RULE = CameraRule("*")


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the degradation ladder, below a camera's own model at the frame's own size.

    Attributes:
        model: which model then serves.
        max_canvas: no canvas with more pixels than this one; None: any.
    """

    model: str
    max_canvas: CanvasShape | None = None


@dataclass(frozen=True, slots=True)
class Scheduling:
    """How long work may be, and who waits for whom.

    Attributes:
        max_chunk_s: the longest piece of noncritical work: larger batches are not formed, a longer frame runs as
            tiles; None: `CHUNK_FRACTION_OF_CRITICAL_SLO` of the plan's critical deadline.
        defer_above_px: normal frames with more pixels wait until no other frame does, or until they must begin.
        max_defer_s: the age at which a deferred frame must begin, however far its deadline.
        max_starve_s: while critical frames keep a pool busy, one chunk of the others runs this often.
    """

    max_chunk_s: float | None = None
    defer_above_px: int = DEFAULT_DEFER_ABOVE_PX
    max_defer_s: float = DEFAULT_MAX_DEFER_S
    max_starve_s: float = DEFAULT_MAX_STARVE_S


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be here.

    Attributes:
        max_waiting_frames, max_waiting_bytes: frames that wait or run, and the bytes of their pixels.
        max_frame_px: pixels of one frame.
        max_tickets: tickets that are out, with their results.
        ticket_ttl_s: how long the result of a ticket is kept after its frame's end.
    """

    max_waiting_frames: int = DEFAULT_MAX_WAITING_FRAMES
    max_waiting_bytes: int = DEFAULT_MAX_WAITING_BYTES
    max_frame_px: int = MAX_FRAME_PX
    max_tickets: int = DEFAULT_MAX_TICKETS
    ticket_ttl_s: float = DEFAULT_TICKET_TTL_S


@dataclass(frozen=True, slots=True)
class CanvasChoice:
    """Where a frame goes: the bucket, the canvas in it, and whether it must shrink to fit."""

    bucket: Bucket
    canvas: CanvasShape
    shrunk: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """One deployment. Every name in it is checked when it is made.

    Attributes:
        models: model name to where its file is (a path, or `bundled:NAME`); the first one is the default.
        pools, buckets, cameras: see there.
        ladder: the rungs below a camera's own model at native size, dearest first.
        scheduling: chunks, deferral, ageing.
        slo_s: default seconds to finish, by priority.
        limits: what may wait.
        detection: which boxes are answered.
        engines: how TensorRT engines are built.
        num_routers: how many routers share the cameras.
        autoscaling: when pools grow and shrink.
        memory: from which shares of a device's memory on frames are degraded.
        spool: where durable frames are kept.
        http: what holds for callers over HTTP.
        frame_log: file that gets one JSON line a frame, on the router's machine; None: none.
        latency: file of measured latencies to begin with; None: what the warm-up measures.
        log_level: which of our lines the logs of router and replicas take.
    """

    models: Mapping[str, str]
    pools: tuple[Pool, ...]
    buckets: tuple[Bucket, ...]
    cameras: tuple[CameraRule, ...] = ()
    ladder: tuple[Rung, ...] = ()
    scheduling: Scheduling = field(default_factory=Scheduling)
    slo_s: Mapping[Priority, float] = field(
        default_factory=lambda: {Priority.CRITICAL: DEFAULT_CRITICAL_SLO_S, Priority.NORMAL: DEFAULT_NORMAL_SLO_S}
    )
    limits: Limits = field(default_factory=Limits)
    detection: DetectionLimits = field(default_factory=DetectionLimits)
    engines: EngineBuilding = field(default_factory=EngineBuilding)
    num_routers: int = 1
    autoscaling: Autoscaling = field(default_factory=Autoscaling)
    memory: MemoryMarks = field(default_factory=MemoryMarks)
    spool: SpoolRules = field(default_factory=SpoolRules)
    http: HttpRules = field(default_factory=HttpRules)
    frame_log: str | None = None
    latency: str | None = None
    log_level: LogLevel = LogLevel.INFO

    def __post_init__(self) -> None:
        for what, values in (("models", self.models), ("pools", self.pools), ("buckets", self.buckets)):
            if not values:
                raise InvalidPlanError(f"{what}: got none, a plan needs at least one")
        _check_unique("pools", [pool.name for pool in self.pools])
        _check_unique("buckets", [bucket.name for bucket in self.buckets])
        pool_names = [pool.name for pool in self.pools]
        for bucket in self.buckets:
            where = f"buckets.{bucket.name}"
            _check_name(f"{where}.pool", bucket.pool, pool_names)
            _check_name(f"{where}.model", bucket.model, list(self.models))
            _check_ladder(f"{where}.batches", bucket.batches)
            _check_canvases(f"{where}.canvases", bucket.canvases)
        for model in self.models:
            taken = [str(c) for bucket in self.buckets if bucket.model == model for c in bucket.canvases]
            if not taken:
                raise InvalidPlanError(f"models.{model}: no bucket serves it; add a bucket, or remove the model")
            _check_unique(f"canvases of model {model} over all buckets", taken)
        for pool in self.pools:
            self._check_size(pool)
            _check_place(pool)
            if pool.runtime is Runtime.TENSORRT and not pool.num_gpus:
                raise InvalidPlanError(
                    f"pools.{pool.name}.gpus: got 0 with runtime tensorrt, allowed is above 0: Ray gives a replica the "
                    "GPUs that it asks for"
                )
            if not any(bucket.pool == pool.name for bucket in self.buckets):
                raise InvalidPlanError(f"pools.{pool.name}: no bucket uses it; add a bucket, or remove the pool")
        self._check_rules()

    def _check_size(self, pool: Pool) -> None:
        """A pool grows from its least to its most replicas, and only deferred frames may find it empty."""
        where = f"pools.{pool.name}"
        if pool.max_replicas is not None and pool.max_replicas < max(1, pool.num_replicas):
            raise InvalidPlanError(
                f"{where}.max_replicas: got {pool.max_replicas}, allowed is at least {max(1, pool.num_replicas)}, its "
                "replicas; leave it out for a pool that keeps its size"
            )
        if pool.num_replicas:
            return
        if pool.max_replicas is None:
            raise InvalidPlanError(f"{where}.replicas: got 0, allowed is at least 1 for a pool without max_replicas")
        most_px = self.scheduling.defer_above_px
        small = [c for bucket in self.buckets_of(pool.name) for c in bucket.canvases if c.num_px <= most_px]
        if small:
            raise InvalidPlanError(
                f"{where}.replicas: got 0 with canvas {small[0]}, allowed is 0 where every canvas is for deferred "
                f"frames, above {most_px:,} px (scheduling.defer_above_px): others would wait for a start; set 1"
            )

    def _check_rules(self) -> None:
        """Cameras and ladder name models of the plan, and every rung leaves a canvas."""
        for rule in self.cameras:
            if rule.model is not None:
                _check_name(f"cameras.{rule.pattern}.model", rule.model, list(self.models))
            if rule.durable and rule.keep is Keep.LATEST:
                raise InvalidPlanError(
                    f"cameras.{rule.pattern}.durable: got true with keep latest, allowed is keep all: a durable frame "
                    "is answered, not replaced; leave out one of the two"
                )
        for index, rung in enumerate(self.ladder):
            _check_name(f"ladder[{index}].model", rung.model, list(self.models))
            if not self._canvases(rung.model, rung.max_canvas):
                smallest = min(canvas.num_px for _, canvas in self._canvases(rung.model, None))
                raise InvalidPlanError(
                    f"ladder[{index}].max_canvas: got {rung.max_canvas}, allowed is one with at least {smallest} px, "
                    f"the smallest canvas of model {rung.model}; add a smaller canvas to a bucket"
                )

    @property
    def default_model(self) -> str:
        """The model of cameras that no rule names."""
        return next(iter(self.models))

    @property
    def max_chunk_s(self) -> float:
        """The longest piece of noncritical work, in seconds."""
        if self.scheduling.max_chunk_s is not None:
            return self.scheduling.max_chunk_s
        return CHUNK_FRACTION_OF_CRITICAL_SLO * self.slo_s[Priority.CRITICAL]

    def rule_of(self, camera: str) -> CameraRule:
        """The first rule whose pattern matches; the defaults if none does."""
        for rule in self.cameras:
            if fnmatch.fnmatchcase(camera, rule.pattern):
                return rule
        return DEFAULT_RULE

    @property
    def has_durable(self) -> bool:
        """Whether some camera's frames go to the spool."""
        return any(rule.durable for rule in self.cameras)

    def is_durable(self, camera: str, priority: str) -> bool:
        """Whether a frame that is sent for a ticket goes to the spool; critical frames never wait for a disk."""
        return priority == Priority.NORMAL.value and self.rule_of(camera).durable

    def canvas_for(self, model: str, size_hw: tuple[int, int], max_canvas: CanvasShape | None = None) -> CanvasChoice:
        """The canvas of a model that wastes the fewest padded pixels.

        For a frame larger than all of them it is the canvas that keeps the most of its resolution.

        Args:
            model: its name in the plan.
            size_hw: (height, width) px of the frame.
            max_canvas: only canvases with at most as many pixels as this one; None: all.
        """
        height, width = size_hw
        choices = self._canvases(model, max_canvas)
        holding = [choice for choice in choices if choice[1].height >= height and choice[1].width >= width]
        if holding:
            bucket, canvas = min(holding, key=lambda choice: choice[1].num_px)
            return CanvasChoice(bucket, canvas, shrunk=False)
        bucket, canvas = max(
            choices, key=lambda c: (min(c[1].height / height, c[1].width / width), -c[1].num_px)
        )  # fmt: skip
        return CanvasChoice(bucket, canvas, shrunk=True)

    def canvases_of(self, model: str) -> Sequence[tuple[Bucket, CanvasShape]]:
        """Every canvas of a model, with its bucket."""
        return self._canvases(model, None)

    def _canvases(self, model: str, max_canvas: CanvasShape | None) -> list[tuple[Bucket, CanvasShape]]:
        return [
            (bucket, canvas)
            for bucket in self.buckets
            if bucket.model == model
            for canvas in bucket.canvases
            if max_canvas is None or canvas.num_px <= max_canvas.num_px
        ]

    def pool(self, name: str) -> Pool:
        """The pool of this name."""
        return next(pool for pool in self.pools if pool.name == name)

    def buckets_of(self, pool: str) -> tuple[Bucket, ...]:
        """The buckets that a pool serves, in the plan's order."""
        return tuple(bucket for bucket in self.buckets if bucket.pool == pool)


def _check_place(pool: Pool) -> None:
    """Ray understands the labels, and can give out such an amount of GPUs."""
    label_rules(pool.labels, f"pools.{pool.name}.labels")
    if pool.num_gpus > 1 and pool.num_gpus != int(pool.num_gpus):
        raise InvalidPlanError(
            f"pools.{pool.name}.gpus: got {pool.num_gpus:g}, allowed are whole GPUs or a part of one: Ray gives a "
            "replica no whole GPU and a part of another"
        )


def _check_unique(where: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidPlanError(f"{where}: got {', '.join(twice)} more than once, allowed is once each")


def _check_name(where: str, name: str, allowed: list[str]) -> None:
    if name not in allowed:
        raise InvalidPlanError(f"{where}: got {name!r}, allowed are the names in the plan: {', '.join(allowed)}")


def _check_canvases(where: str, canvases: tuple[CanvasShape, ...]) -> None:
    if not canvases:
        raise InvalidPlanError(f"{where}: got none, a bucket needs at least one")
    _check_unique(where, [str(canvas) for canvas in canvases])


def _check_ladder(where: str, batches: tuple[int, ...]) -> None:
    if not batches or batches[0] != 1 or list(batches) != sorted(set(batches)):
        raise InvalidPlanError(
            f"{where}: got {list(batches)}, allowed are ascending sizes that begin with 1: [1, 2, 4]"
        )
