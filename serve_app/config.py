"""The only reader of files and environment: the plan's YAML, bundled models, and where a service keeps its state."""

from __future__ import annotations

import difflib
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from engines.boxes import DetectionLimits
from engines.spec import CanvasShape
from serve_app.autoscaling import Autoscaling
from serve_app.errors import InvalidPlanError
from serve_app.frames import Priority
from serve_app.http_rules import HttpRules
from serve_app.memory_level import MemoryMarks
from serve_app.plan import (
    Bucket,
    CameraRule,
    EngineBuilding,
    Limits,
    Plan,
    Pool,
    Rung,
    Runtime,
    Scheduling,
)
from serve_app.plan_schema import SECTIONS, HttpSection, PlanFile, PoolSection, SpoolSection
from serve_app.spool_rules import SpoolRules

# Models that travel with the package are named like this in a plan.
# What an address may hold before its host: a user and a password.
USER_IN_ADDRESS = re.compile(r"//[^\s'\"]*@")
BUNDLED_PREFIX = "bundled:"
DEFAULT_MODEL = "bundled:inspection-full"


class PlanLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, as YAML does; PyYAML would drop the first, a bucket say."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As PyYAML does; raises `MarkedYAMLError` at a second key of one name."""
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
        content = yaml.load(path.read_text(encoding="utf-8"), PlanLoader)  # noqa: S506 (it is a SafeLoader)
    except OSError as err:
        raise InvalidPlanError(
            f"plan {path}: {(err.strerror or str(err)).lower()}; give the path of a plan YAML"
        ) from err
    except (yaml.YAMLError, ValueError) as err:  # `ValueError`: not UTF-8, or a date that does not exist
        reason = USER_IN_ADDRESS.sub("//***@", " ".join(str(err).split()))  # it quotes the line
        raise InvalidPlanError(f"plan {path}: is no YAML ({reason[:200]})") from None
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
        pools=tuple(_pool(name, section) for name, section in file.pools.items()),
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
        cameras=tuple(
            CameraRule(name, c.model, c.keep, c.oversize, c.degrade, c.durable) for name, c in file.cameras.items()
        ),
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
        num_routers=file.routers,
        autoscaling=Autoscaling(**file.autoscaling.model_dump()),
        memory=MemoryMarks(**file.memory.model_dump()),
        spool=_spool(file.spool, folder),
        http=_http(file.http, folder),
        frame_log=_absolute(file.frame_log, folder) if file.frame_log else None,
        latency=_absolute(file.latency, folder) if file.latency else None,
        log_level=file.log_level,
    )


def _pool(name: str, section: PoolSection) -> Pool:
    return Pool(
        name,
        num_replicas=section.replicas,
        max_replicas=section.max_replicas,
        num_cpus=section.cpus,
        num_gpus=section.gpus,
        num_threads=section.threads,
        runtime=section.runtime or (Runtime.TENSORRT if section.gpus else Runtime.ONNX),
        labels=section.labels,
        max_replicas_per_node=section.max_replicas_per_node,
        surge=section.surge,
    )


def _spool(section: SpoolSection, folder: Path) -> SpoolRules:
    place = _absolute(section.folder, folder) if section.folder else None
    return SpoolRules(**section.model_dump() | {"folder": place})


def _http(section: HttpSection, folder: Path) -> HttpRules:
    said = section.model_dump()
    return HttpRules(
        is_on=said.pop("enabled"),
        num_replicas=said.pop("replicas"),
        **said
        | {
            "keys": _absolute(section.keys, folder) if section.keys else None,
            "cors_origins": tuple(section.cors_origins),
        },
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


def spool_folder(plan: Plan) -> Path:
    """Where this machine keeps durable frames: the plan's folder, else one in the user's state folder."""
    return Path(plan.spool.folder) if plan.spool.folder is not None else state_folder() / "spool"


def engine_cache_folder(plan: Plan | None = None) -> Path:
    """Where this machine keeps built engines: the plan's folder, else one in the user's cache."""
    if plan is not None and plan.engines.cache is not None:
        return Path(plan.engines.cache)
    own = os.environ.get("FRAMELANE_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(own) if own else Path(base) / "framelane" / "engines"


def http_keys_path(plan: Plan) -> Path | None:
    """The file of API keys: the environment's, else the plan's; None: there is none, anybody may call."""
    named = os.environ.get("FRAMELANE_HTTP_KEYS") or plan.http.keys
    return Path(named) if named else None


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
    # Serve's own counters are handed on ten times a second by every replica and handle, to be sent every ten seconds.
    os.environ.setdefault("RAY_SERVE_METRICS_EXPORT_INTERVAL_MS", "2000")
    # A replica that fetches a frame may ask a machine first that has just died; Ray asks the next one after this time,
    # which is 10 s unless it is told.
    os.environ.setdefault("RAY_object_manager_pull_timeout_ms", "1000")
    # A process of Ray has dozens of threads, and glibc gives each an arena that grows and is never given back: a router
    # grew by 700 bytes a frame for tens of thousands of frames. With two it settles after some thousand, and no slower.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
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
    return list((SECTIONS.get(parents[0], PlanFile) if parents else PlanFile).model_fields)
