"""The only reader of files and environment: the plan's YAML, bundled models, and where a service keeps its state."""

from __future__ import annotations

import difflib
import os
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from engines.boxes import DetectionLimits
from engines.engine_spec import Precision
from engines.frame_array import MAX_FRAME_PX
from engines.spec import CanvasShape
from serve_app.errors import InvalidPlanError
from serve_app.frames import MAX_SLO_S, Priority
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
    Bucket,
    CameraRule,
    EngineBuilding,
    Keep,
    Limits,
    Oversize,
    Plan,
    Pool,
    Rung,
    Runtime,
    Scheduling,
)

# Models that travel with the package are named like this in a plan.
BUNDLED_PREFIX = "bundled:"
DEFAULT_MODEL = "bundled:inspection-full"

_ULTRALYTICS = DetectionLimits()


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
# Likewise 1 TiB; the builder takes no number of bytes beyond 64 bits.
MAX_WORKSPACE_MIB = 2**20
WorkspaceMib = Annotated[int, Field(ge=1, le=MAX_WORKSPACE_MIB), BeforeValidator(_no_switch)]


class _Section(BaseModel):
    """A part of the plan file; keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _PoolSection(_Section):
    replicas: NumReplicas = 1
    cpus: Amount = 1.0
    gpus: Amount = 0.0
    threads: Annotated[int, Field(ge=0), BeforeValidator(_no_switch)] = 0
    runtime: Runtime | None = None


class _BucketSection(_Section):
    model: Name | None = None
    pool: Name | None = None
    canvases: Annotated[list[tuple[CanvasSidePx, CanvasSidePx]], Field(min_length=1)]
    batches: Annotated[list[BatchSize], Field(min_length=1)] = [1]


class _CameraSection(_Section):
    model: Name | None = None
    keep: Keep = Keep.ALL
    oversize: Oversize = Oversize.SHRINK
    degrade: bool = True


class _RungSection(_Section):
    model: Name | None = None
    max_canvas: tuple[CanvasSidePx, CanvasSidePx] | None = None


class _SchedulingSection(_Section):
    max_chunk_s: Seconds | None = None
    defer_above_px: PositiveInt = DEFAULT_DEFER_ABOVE_PX
    max_defer_s: Seconds = DEFAULT_MAX_DEFER_S
    max_starve_s: Seconds = DEFAULT_MAX_STARVE_S


class _SloSection(_Section):
    critical: Seconds = DEFAULT_CRITICAL_SLO_S
    normal: Seconds = DEFAULT_NORMAL_SLO_S


class _LimitsSection(_Section):
    max_waiting_frames: PositiveInt = DEFAULT_MAX_WAITING_FRAMES
    max_waiting_bytes: PositiveInt = DEFAULT_MAX_WAITING_BYTES
    max_frame_px: PositiveInt = MAX_FRAME_PX
    max_tickets: PositiveInt = DEFAULT_MAX_TICKETS
    ticket_ttl_s: Seconds = DEFAULT_TICKET_TTL_S


class _DetectionSection(_Section):
    min_score: Fraction = _ULTRALYTICS.min_score
    max_iou: Fraction = _ULTRALYTICS.max_iou
    max_boxes: PositiveInt = _ULTRALYTICS.max_boxes


class _EnginesSection(_Section):
    precision: Precision = Precision.FP16
    workspace_mib: WorkspaceMib | None = None
    cache: str | None = None
    frames: str | None = None


class PlanFile(_Section):
    """The plan as people write it; see `docs/plan.md` for what each key means."""

    models: Annotated[dict[Name, str], Field(min_length=1)]
    pools: dict[Name, _PoolSection] = {"cpu": _PoolSection()}
    buckets: Annotated[dict[Name, _BucketSection], Field(min_length=1)]
    cameras: dict[str, _CameraSection] = {}
    ladder: list[_RungSection] = []
    scheduling: _SchedulingSection = _SchedulingSection()
    slo_s: _SloSection = _SloSection()
    limits: _LimitsSection = _LimitsSection()
    detection: _DetectionSection = _DetectionSection()
    engines: _EnginesSection = _EnginesSection()
    frame_log: str | None = None
    latency: str | None = None


class _PlanLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, as YAML does; PyYAML would drop the first, a bucket say."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for index, key in enumerate(keys):
            if any(key.value == earlier.value for earlier in keys[:index]):
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} stands there twice", problem_mark=key.start_mark)
        return node


def load_plan(path: Path) -> Plan:
    """Read a plan; paths in it are relative to its folder.

    Raises:
        InvalidPlanError: missing, not YAML, an unknown key, a wrong value; names the key and the nearest right one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InvalidPlanError(f"plan {path}: is a device or a pipe; give the path of a plan YAML")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _PlanLoader)  # noqa: S506 (it is a SafeLoader)
    except OSError as err:
        raise InvalidPlanError(
            f"plan {path}: {(err.strerror or str(err)).lower()}; give the path of a plan YAML"
        ) from err
    except (yaml.YAMLError, ValueError) as err:  # `ValueError`: not UTF-8, or a date that does not exist
        raise InvalidPlanError(f"plan {path}: is no YAML ({' '.join(str(err).split())[:200]})") from err
    if not isinstance(content, dict):
        raise InvalidPlanError(f"plan {path}: got {type(content).__name__}, allowed is a mapping; see docs/plan.md")
    try:
        return plan_from(content, path.parent)
    except InvalidPlanError as err:
        raise InvalidPlanError(f"plan {path}: {err}") from err


def plan_from(content: dict[str, Any], folder: Path) -> Plan:
    """A plan from the content of its file; `folder` is what its paths are relative to. Raises `InvalidPlanError`."""
    try:
        file = PlanFile.model_validate(content)
    except ValidationError as err:
        raise InvalidPlanError(_explain(err)) from err
    first_pool, first_model = next(iter(file.pools), ""), next(iter(file.models))
    return Plan(
        models={
            name: model if model.startswith(BUNDLED_PREFIX) else _absolute(model, folder)
            for name, model in file.models.items()
        },
        pools=tuple(
            Pool(n, p.replicas, p.cpus, p.gpus, p.threads, p.runtime or (Runtime.TENSORRT if p.gpus else Runtime.ONNX))
            for n, p in file.pools.items()
        ),
        buckets=tuple(
            Bucket(
                name,
                b.model or first_model,
                b.pool or first_pool,
                tuple(CanvasShape(*canvas) for canvas in b.canvases),
                tuple(b.batches),
            )
            for name, b in file.buckets.items()
        ),
        cameras=tuple(CameraRule(name, c.model, c.keep, c.oversize, c.degrade) for name, c in file.cameras.items()),
        ladder=tuple(
            Rung(rung.model or first_model, CanvasShape(*rung.max_canvas) if rung.max_canvas else None)
            for rung in file.ladder
        ),
        scheduling=Scheduling(**file.scheduling.model_dump()),
        slo_s={Priority.CRITICAL: file.slo_s.critical, Priority.NORMAL: file.slo_s.normal},
        limits=Limits(**file.limits.model_dump()),
        detection=DetectionLimits(**file.detection.model_dump()),
        engines=EngineBuilding(
            precision=file.engines.precision,
            workspace_bytes=file.engines.workspace_mib * 2**20 if file.engines.workspace_mib else None,
            cache=_absolute(file.engines.cache, folder) if file.engines.cache else None,
            frames=_absolute(file.engines.frames, folder) if file.engines.frames else None,
        ),
        frame_log=_absolute(file.frame_log, folder) if file.frame_log else None,
        latency=_absolute(file.latency, folder) if file.latency else None,
    )


def model_path(source: str) -> Path:
    """The file of a model: a path, or `bundled:NAME` for one that travels with the package.

    Raises:
        InvalidPlanError: no bundled model of that name.
    """
    if not source.startswith(BUNDLED_PREFIX):
        return Path(source)
    folder = Path(str(resources.files("framelane_inspection"))) / "models"
    path = folder / f"{source.removeprefix(BUNDLED_PREFIX)}.onnx"
    if not path.is_file():
        names = ", ".join(f"{BUNDLED_PREFIX}{found.stem}" for found in sorted(folder.glob("*.onnx")))
        raise InvalidPlanError(f"model: got {source!r}, allowed are a path or the bundled models: {names}")
    return path


def plan_path(source: str) -> Path:
    """The file of a plan: a path, or `bundled:NAME` for one that travels with the package.

    Raises:
        InvalidPlanError: no bundled plan of that name.
    """
    if not source.startswith(BUNDLED_PREFIX):
        return Path(source)
    plans = {f"{BUNDLED_PREFIX}{path.stem}": path for path in bundled_plans()}
    if source not in plans:
        raise InvalidPlanError(f"plan: got {source!r}, allowed are a path or the bundled plans: {', '.join(plans)}")
    return plans[source]


def bundled_plans() -> list[Path]:
    """The plans that travel with the package."""
    return sorted((Path(str(resources.files("serve_app"))) / "plans").glob("*.yaml"))


def state_folder() -> Path:
    """Where `framelane up` notes its service, for other commands of the same user to find it."""
    own = os.environ.get("FRAMELANE_STATE_DIR")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(own) if own else Path(base) / "framelane"


def engine_cache_folder(plan: Plan | None = None) -> Path:
    """Where this machine keeps built engines: the plan's folder, else one in the user's cache."""
    if plan is not None and plan.engines.cache is not None:
        return Path(plan.engines.cache)
    own = os.environ.get("FRAMELANE_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(own) if own else Path(base) / "framelane" / "engines"


def ray_address() -> str | None:
    """The Ray cluster that the user's environment names, as Ray itself reads it."""
    return os.environ.get("RAY_ADDRESS") or None


def prepare_ray_environment() -> None:
    """Set what Ray reads from the environment of the process that starts it; call before `ray.init`."""
    # Refs must travel nested in arguments; smuggled any other way they would pin frames for ever. Make that an error.
    os.environ.setdefault("RAY_allow_out_of_band_object_ref_serialization", "0")
    # Our deployments never block their loop, so they need no thread beside Serve's: two hops fewer for each call.
    os.environ.setdefault("RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", "0")
    # Serve's controller looks ten times a second whether anything has changed: 45 ms of CPU a second with what that
    # asks of Ray's own store, which an embedded device wants for frames. Twice a second a dead replica is seen as well.
    os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.5")
    # Nothing about a factory leaves it unasked.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def _absolute(path: str, folder: Path) -> str:
    return str((folder / Path(path).expanduser()).resolve())


def _explain(err: ValidationError) -> str:
    """All problems of a plan in one message, each with its place, what was got and what is allowed."""
    problems = []
    for problem in err.errors():
        place = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        if problem["type"] == "extra_forbidden":
            *parents, key = (str(part) for part in problem["loc"])
            known = _known_keys(parents)
            near = difflib.get_close_matches(key, known, 1, 0.5)
            cure = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(known)}"
            problems.append(f"{place}: unknown key; {cure}")
        elif problem["type"] == "missing":
            problems.append(f"{place}: is missing")
        else:
            problems.append(f"{place}: got {problem['input']!r:.80}, {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return "; ".join(problems)


def _known_keys(parents: list[str]) -> list[str]:
    """The keys that are allowed below this place of a plan."""
    sections: dict[str, type[_Section]] = {
        "pools": _PoolSection,
        "buckets": _BucketSection,
        "cameras": _CameraSection,
        "ladder": _RungSection,
        "scheduling": _SchedulingSection,
        "slo_s": _SloSection,
        "limits": _LimitsSection,
        "detection": _DetectionSection,
        "engines": _EnginesSection,
    }
    section = sections.get(parents[0], PlanFile) if parents else PlanFile
    return list(section.model_fields)
