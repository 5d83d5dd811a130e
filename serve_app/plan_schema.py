"""What a plan file may say: its sections, their keys, and which values are allowed; the meaning is in `plan.py`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from engines.boxes import DetectionLimits
from engines.engine_spec import Precision
from engines.frame_array import MAX_FRAME_PX
from serve_app.autoscaling import Autoscaling
from serve_app.frames import MAX_SLO_S
from serve_app.http_rules import HttpRules
from serve_app.memory_level import MemoryMarks
from serve_app.plan import (
    DEFAULT_CRITICAL_SLO_S,
    DEFAULT_DEFER_ABOVE_PX,
    DEFAULT_MAX_DEFER_S,
    DEFAULT_MAX_STARVE_S,
    DEFAULT_MAX_TICKETS,
    DEFAULT_MAX_WAITING_BYTES,
    DEFAULT_MAX_WAITING_FRAMES,
    DEFAULT_NORMAL_SLO_S,
    DEFAULT_TICKET_TTL_S,
    Keep,
    LogLevel,
    Oversize,
    Runtime,
)
from serve_app.spool_rules import SpoolRules

_ULTRALYTICS = DetectionLimits()
_AUTOSCALING, _MEMORY, _SPOOL, _HTTP = Autoscaling(), MemoryMarks(), SpoolRules(), HttpRules()


def _no_switch(value: object) -> object:
    """YAML reads `yes` and `on` as true, which pydantic would take for 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("switch", "Input should be a number")
    return value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
PositiveInt = Annotated[int, Field(ge=1), BeforeValidator(_no_switch)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_no_switch)]
Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(_no_switch)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SLO_S, allow_inf_nan=False), BeforeValidator(_no_switch)]
# Bounds that only a slip of the pen passes: no GPU of today holds such a batch, no cluster so many replicas.
CanvasSidePx = Annotated[int, Field(ge=1, le=16_384), BeforeValidator(_no_switch)]
BatchSize = Annotated[int, Field(ge=1, le=256), BeforeValidator(_no_switch)]
NumReplicas = Annotated[int, Field(ge=1, le=10_000), BeforeValidator(_no_switch)]
# Serve takes no higher limit.
ReplicasPerNode = Annotated[int, Field(ge=1, le=100), BeforeValidator(_no_switch)]
# None at all is for pools that scale; `Plan` says for which of them.
LeastReplicas = Annotated[int, Field(ge=0, le=10_000), BeforeValidator(_no_switch)]
Port = Annotated[int, Field(ge=1024, le=65535), BeforeValidator(_no_switch)]
NumRouters = Annotated[int, Field(ge=1, le=100), BeforeValidator(_no_switch)]
Quality = Annotated[int, Field(ge=1, le=100), BeforeValidator(_no_switch)]
# Likewise 1 TiB; the builder takes no number of bytes beyond 64 bits.
MAX_WORKSPACE_MIB = 2**20
WorkspaceMib = Annotated[int, Field(ge=1, le=MAX_WORKSPACE_MIB), BeforeValidator(_no_switch)]


class Section(BaseModel):
    """A part of the plan file; keys that it does not know are errors.

    The text below each key is its description in `docs/configuration.md`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PoolSection(Section):
    """Below `pools`, by name."""

    replicas: LeastReplicas = 1
    """How many; with `max_replicas` the least. 0 is for pools of deferred frames only."""
    max_replicas: NumReplicas | None = None
    """It grows so far, as the load asks. Without it the pool keeps its size."""
    max_replicas_per_node: ReplicasPerNode | None = None
    """How many one machine may run. Without it: as many as it has room for."""
    labels: dict[str, str] = {}
    """Of the machines that may run its replicas: `l4`, `"!l4"`, `"in(l4, a10)"`, `"!in(l4, a10)"`. Empty: any
    machine."""
    cpus: Amount = 1.0
    """What Ray reserves for a replica, in CPU cores."""
    gpus: Amount = 0.0
    """What Ray reserves for a replica, in GPUs: whole ones, or a part of one."""
    threads: Annotated[int, Field(ge=0), BeforeValidator(_no_switch)] = 0
    """Threads of one inference on a CPU; 0: one a core."""
    runtime: Runtime | None = None
    """What runs the networks. Without it: `tensorrt` where `gpus` is above 0, else `onnxruntime`."""
    surge: bool = True
    """An update starts new replicas beside the old ones; false: it stops old ones first."""


class BucketSection(Section):
    """Below `buckets`, by name."""

    model: Name | None = None
    """A name from `models`. Without it: the first model."""
    pool: Name | None = None
    """A name from `pools`. Without it: the first pool."""
    canvases: Annotated[list[tuple[CanvasSidePx, CanvasSidePx]], Field(min_length=1)]
    """`[height, width]` each, multiples of the model's stride; the most used one first."""
    batches: Annotated[list[BatchSize], Field(min_length=1)] = [1]
    """The batch sizes that are warmed, ascending from 1."""


class CameraSection(Section):
    """Below `cameras`, by pattern."""

    model: Name | None = None
    """A name from `models`. Without it: the first model."""
    keep: Keep = Keep.ALL
    """`latest`: a newer frame takes the place of an older one that waits."""
    oversize: Oversize = Oversize.SHRINK
    """What becomes of a frame that is larger than every canvas."""
    degrade: bool = True
    """Whether the ladder may be used for its frames."""
    durable: bool = False
    """Frames that are sent for a ticket survive a restart of the service."""


class RungSection(Section):
    """One of `ladder`."""

    model: Name | None = None
    """A name from `models`. Without it: the first model."""
    max_canvas: tuple[CanvasSidePx, CanvasSidePx] | None = None
    """`[height, width]`: no canvas with more pixels. Without it: any canvas."""


class SchedulingSection(Section):
    """Below `scheduling`."""

    max_chunk_s: Seconds | None = None
    """The longest piece of noncritical work. Without it: 0.4 of `slo_s.critical`."""
    defer_above_px: PositiveInt = DEFAULT_DEFER_ABOVE_PX
    """Normal frames with more pixels are deferred."""
    max_defer_s: Seconds = DEFAULT_MAX_DEFER_S
    """The age at which a deferred frame must begin, however far its deadline."""
    max_starve_s: Seconds = DEFAULT_MAX_STARVE_S
    """While critical frames keep a pool busy, one chunk of the others runs this often."""


class SloSection(Section):
    """Below `slo_s`."""

    critical: Seconds = DEFAULT_CRITICAL_SLO_S
    """Until a critical frame must be done, unless its caller says otherwise."""
    normal: Seconds = DEFAULT_NORMAL_SLO_S
    """Until a normal frame must be done, unless its caller says otherwise."""


class LimitsSection(Section):
    """Below `limits`."""

    max_waiting_frames: PositiveInt = DEFAULT_MAX_WAITING_FRAMES
    """Frames that wait and run; more are rejected, noncritical ones from 90 % on."""
    max_waiting_bytes: PositiveInt = DEFAULT_MAX_WAITING_BYTES
    """Of their pixels, likewise. Keep it below Ray's object store."""
    max_frame_px: PositiveInt = MAX_FRAME_PX
    """Pixels of one frame; a larger one is refused."""
    max_tickets: PositiveInt = DEFAULT_MAX_TICKETS
    """Tickets that are out, with their results."""
    ticket_ttl_s: Seconds = DEFAULT_TICKET_TTL_S
    """How long a result is kept for its ticket after its frame's end."""


class DetectionSection(Section):
    """Below `detection`."""

    min_score: Fraction = _ULTRALYTICS.min_score
    """Boxes that score no more are dropped."""
    max_iou: Fraction = _ULTRALYTICS.max_iou
    """NMS: the most overlap of two boxes of one class, as intersection over union."""
    max_boxes: PositiveInt = _ULTRALYTICS.max_boxes
    """The most boxes of one frame."""


class EnginesSection(Section):
    """Below `engines`."""

    precision: Precision = Precision.FP16
    """In which numbers engines compute; `as_is` is for a graph with INT8 Q/DQ nodes."""
    workspace_mib: WorkspaceMib | None = None
    """What one kernel may take for itself while it runs. Without it: the builder's own choice."""
    cache: str | None = None
    """The folder of built engines, on each machine. Without it: `~/.cache/framelane/engines`."""
    frames: str | None = None
    """A folder of real frames on which FP16 must find what FP32 finds. Without it: scenes that are drawn."""


class AutoscalingSection(Section):
    """Below `autoscaling`."""

    max_wait_s: Seconds = _AUTOSCALING.max_wait_s
    """What waits for a pool should be done within so long."""
    utilisation: Annotated[float, Field(gt=0, le=1), BeforeValidator(_no_switch)] = _AUTOSCALING.utilisation
    """The share of its time that a replica should be busy with what comes."""
    up_after_s: Amount = _AUTOSCALING.up_after_s
    """For how long more replicas must be wanted before a pool grows."""
    down_after_s: Amount = _AUTOSCALING.down_after_s
    """For how long fewer must be wanted before it shrinks."""


class MemorySection(Section):
    """Below `memory`."""

    high: Fraction = _MEMORY.high
    """From this share of a device's memory on normal frames go one rung down."""
    critical: Fraction = _MEMORY.critical
    """From this share on normal frames go to the last rung, and deferred ones wait."""
    shed: Fraction = _MEMORY.shed
    """From this share on normal frames are rejected."""
    calm_s: Amount = _MEMORY.calm_s
    """For so long less must be used before the next lower level holds."""


class SpoolSection(Section):
    """Below `spool`."""

    folder: str | None = None
    """Of the SQLite file, on the machine that runs the spool. Without it: below the user's state folder."""
    redis: str | None = None
    """The address of a Redis that all machines share, instead of `folder`: `redis://10.0.0.5:6379/0`."""
    max_bytes: PositiveInt = _SPOOL.max_bytes
    """What may lie there; beyond it frames are refused."""
    jpeg_quality: Quality | None = None
    """How frames are stored. Without it: as PNG, which loses nothing."""
    max_age_s: Seconds = _SPOOL.max_age_s
    """An older frame is answered as expired."""
    result_ttl_s: Seconds = _SPOOL.result_ttl_s
    """How long results are kept."""
    labels: dict[str, str] = {}
    """Of the machine that may run the spool, as for pools."""


class HttpSection(Section):
    """Below `http`."""

    enabled: bool = _HTTP.is_on
    """Whether `framelane up` serves HTTP without `--http`."""
    port: Port = _HTTP.port
    """Where HTTP listens."""
    host: Annotated[str, Field(min_length=1, max_length=253)] = _HTTP.host
    """The address on which HTTP listens; `0.0.0.0` is all of the machine's."""
    critical_port: Port | None = None
    """Another port, for keys that may send critical frames alone: a process of its own answers there, so that no crowd
    at `port` stands before them. Without it: none."""
    replicas: NumRouters = _HTTP.num_replicas
    """Processes that decode and answer; each has its share of every key's rate."""
    keys: str | None = None
    """The file of API keys. Without it anybody may call."""
    allow_anonymous: bool = _HTTP.allow_anonymous
    """Whether it may listen on other addresses than this machine's own without keys."""
    max_body_bytes: PositiveInt = _HTTP.max_body_bytes
    """Of one request, whatever it holds."""
    max_bodies_bytes: PositiveInt = _HTTP.max_bodies_bytes
    """Of all requests of one replica together; noncritical ones may take 80 % of it."""
    max_image_px: PositiveInt | None = None
    """Of one image. Without it: `limits.max_frame_px`."""
    max_parts: PositiveInt = _HTTP.max_parts
    """Images, or other parts, of one request."""
    read_timeout_s: Seconds = _HTTP.read_timeout_s
    """How long the body of a request may take."""
    max_requests: PositiveInt = _HTTP.max_requests
    """Requests at a time in one replica; noncritical ones may take 80 % of them."""
    cors_origins: list[str] = []
    """From whose pages browsers may call. Empty: from none."""


class PlanFile(Section):
    """The plan as people write it; `docs/plan.md` tells how its parts work together."""

    models: Annotated[dict[Name, str], Field(min_length=1)]
    """Name to ONNX file, relative to the plan, or `bundled:NAME`. The first is the default."""
    pools: dict[Name, PoolSection] = {"cpu": PoolSection()}
    """Replicas of one kind, by name. The first pool is the default."""
    buckets: Annotated[dict[Name, BucketSection], Field(min_length=1)]
    """Neighbouring canvases that one engine serves, by name."""
    cameras: dict[str, CameraSection] = {}
    """Rules by name of camera; `*` stands for anything, and the first pattern that matches counts."""
    ladder: list[RungSection] = []
    """What frames may be served with below their own model at their own size, dearest first."""
    scheduling: SchedulingSection = SchedulingSection()
    """Which frame goes next."""
    slo_s: SloSection = SloSection()
    """Seconds until a frame must be done."""
    limits: LimitsSection = LimitsSection()
    """What may wait, and how large."""
    detection: DetectionSection = DetectionSection()
    """Which boxes are answered; the defaults are those of ultralytics."""
    engines: EnginesSection = EnginesSection()
    """How the engines of `tensorrt` pools are built."""
    routers: NumRouters = 1
    """How many routers share the cameras."""
    autoscaling: AutoscalingSection = AutoscalingSection()
    """When pools with `max_replicas` grow and shrink."""
    memory: MemorySection = MemorySection()
    """The shares of a device's memory from which on a level holds."""
    spool: SpoolSection = SpoolSection()
    """Where the frames of durable cameras are kept."""
    http: HttpSection = HttpSection()
    """How the service is called over HTTP; `framelane up --http` switches it on."""
    frame_log: str | None = None
    """A file that gets one JSON line a frame, on the router's machine. Without it: none."""
    latency: str | None = None
    """What `framelane profile` measured on this machine. Without it: what the warm-up measures."""
    log_level: LogLevel = LogLevel.INFO
    """From which level on router and replicas log a line."""


# What lies below the keys of a plan file.
SECTIONS: dict[str, type[Section]] = {
    "pools": PoolSection,
    "buckets": BucketSection,
    "cameras": CameraSection,
    "ladder": RungSection,
    "scheduling": SchedulingSection,
    "slo_s": SloSection,
    "limits": LimitsSection,
    "detection": DetectionSection,
    "engines": EnginesSection,
    "autoscaling": AutoscalingSection,
    "memory": MemorySection,
    "spool": SpoolSection,
    "http": HttpSection,
}
