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
    """A part of the plan file; keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PoolSection(Section):
    """Below `pools`, by name."""

    replicas: LeastReplicas = 1
    max_replicas: NumReplicas | None = None
    max_replicas_per_node: ReplicasPerNode | None = None
    labels: dict[str, str] = {}
    cpus: Amount = 1.0
    gpus: Amount = 0.0
    threads: Annotated[int, Field(ge=0), BeforeValidator(_no_switch)] = 0
    runtime: Runtime | None = None
    surge: bool = True


class BucketSection(Section):
    """Below `buckets`, by name."""

    model: Name | None = None
    pool: Name | None = None
    canvases: Annotated[list[tuple[CanvasSidePx, CanvasSidePx]], Field(min_length=1)]
    batches: Annotated[list[BatchSize], Field(min_length=1)] = [1]


class CameraSection(Section):
    """Below `cameras`, by pattern."""

    model: Name | None = None
    keep: Keep = Keep.ALL
    oversize: Oversize = Oversize.SHRINK
    degrade: bool = True
    durable: bool = False


class RungSection(Section):
    """One of `ladder`."""

    model: Name | None = None
    max_canvas: tuple[CanvasSidePx, CanvasSidePx] | None = None


class SchedulingSection(Section):
    """Below `scheduling`."""

    max_chunk_s: Seconds | None = None
    defer_above_px: PositiveInt = DEFAULT_DEFER_ABOVE_PX
    max_defer_s: Seconds = DEFAULT_MAX_DEFER_S
    max_starve_s: Seconds = DEFAULT_MAX_STARVE_S


class SloSection(Section):
    """Below `slo_s`."""

    critical: Seconds = DEFAULT_CRITICAL_SLO_S
    normal: Seconds = DEFAULT_NORMAL_SLO_S


class LimitsSection(Section):
    """Below `limits`."""

    max_waiting_frames: PositiveInt = DEFAULT_MAX_WAITING_FRAMES
    max_waiting_bytes: PositiveInt = DEFAULT_MAX_WAITING_BYTES
    max_frame_px: PositiveInt = MAX_FRAME_PX
    max_tickets: PositiveInt = DEFAULT_MAX_TICKETS
    ticket_ttl_s: Seconds = DEFAULT_TICKET_TTL_S


class DetectionSection(Section):
    """Below `detection`."""

    min_score: Fraction = _ULTRALYTICS.min_score
    max_iou: Fraction = _ULTRALYTICS.max_iou
    max_boxes: PositiveInt = _ULTRALYTICS.max_boxes


class EnginesSection(Section):
    """Below `engines`."""

    precision: Precision = Precision.FP16
    workspace_mib: WorkspaceMib | None = None
    cache: str | None = None
    frames: str | None = None


class AutoscalingSection(Section):
    """Below `autoscaling`."""

    max_wait_s: Seconds = _AUTOSCALING.max_wait_s
    utilisation: Annotated[float, Field(gt=0, le=1), BeforeValidator(_no_switch)] = _AUTOSCALING.utilisation
    up_after_s: Amount = _AUTOSCALING.up_after_s
    down_after_s: Amount = _AUTOSCALING.down_after_s


class MemorySection(Section):
    """Below `memory`."""

    high: Fraction = _MEMORY.high
    critical: Fraction = _MEMORY.critical
    shed: Fraction = _MEMORY.shed
    calm_s: Amount = _MEMORY.calm_s


class SpoolSection(Section):
    """Below `spool`."""

    folder: str | None = None
    redis: str | None = None
    max_bytes: PositiveInt = _SPOOL.max_bytes
    jpeg_quality: Quality | None = None
    max_age_s: Seconds = _SPOOL.max_age_s
    result_ttl_s: Seconds = _SPOOL.result_ttl_s
    labels: dict[str, str] = {}


class HttpSection(Section):
    """Below `http`."""

    enabled: bool = _HTTP.is_on
    port: Port = _HTTP.port
    host: Annotated[str, Field(min_length=1, max_length=253)] = _HTTP.host
    replicas: NumRouters = _HTTP.num_replicas
    keys: str | None = None
    allow_anonymous: bool = _HTTP.allow_anonymous
    max_body_bytes: PositiveInt = _HTTP.max_body_bytes
    max_bodies_bytes: PositiveInt = _HTTP.max_bodies_bytes
    max_image_px: PositiveInt | None = None
    max_parts: PositiveInt = _HTTP.max_parts
    read_timeout_s: Seconds = _HTTP.read_timeout_s
    max_requests: PositiveInt = _HTTP.max_requests
    cors_origins: list[str] = []


class PlanFile(Section):
    """The plan as people write it; see `docs/plan.md` for what each key means."""

    models: Annotated[dict[Name, str], Field(min_length=1)]
    pools: dict[Name, PoolSection] = {"cpu": PoolSection()}
    buckets: Annotated[dict[Name, BucketSection], Field(min_length=1)]
    cameras: dict[str, CameraSection] = {}
    ladder: list[RungSection] = []
    scheduling: SchedulingSection = SchedulingSection()
    slo_s: SloSection = SloSection()
    limits: LimitsSection = LimitsSection()
    detection: DetectionSection = DetectionSection()
    engines: EnginesSection = EnginesSection()
    routers: NumRouters = 1
    autoscaling: AutoscalingSection = AutoscalingSection()
    memory: MemorySection = MemorySection()
    spool: SpoolSection = SpoolSection()
    http: HttpSection = HttpSection()
    frame_log: str | None = None
    latency: str | None = None
    log_level: LogLevel = LogLevel.INFO


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
