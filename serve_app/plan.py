"""The plan of one deployment: which sizes are served, by which models, on which pools, within which limits.

Values only, and the one rule that follows from them: which canvas a frame of a given size is placed on. Reading the
YAML file is `config.py`'s work.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field

from engines.boxes import DetectionLimits
from engines.frame_array import MAX_FRAME_PX
from engines.spec import CanvasShape, WarmShape
from serve_app.errors import InvalidPlanError
from serve_app.frames import Priority

# A critical frame that is older than this is of no use to a safety stop.
DEFAULT_CRITICAL_SLO_S = 0.25
# A second is what people call "live".
DEFAULT_NORMAL_SLO_S = 1.0
# 500 full-HD frames: half a minute's work of one CPU, ten seconds' of a GPU; more waiting would only expire.
DEFAULT_MAX_WAITING_FRAMES = 500
# Must stay below the object store, which Ray makes 30 % of the memory, at most 200 GB.
DEFAULT_MAX_WAITING_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Pool:
    """Replicas of one kind, which serve the same buckets.

    Attributes:
        name: how buckets refer to it.
        num_replicas: how many; each has its own engines.
        num_cpus, num_gpus: what Ray reserves for one replica.
        num_threads: threads of one inference on the CPU; 0: one a core.
    """

    name: str
    num_replicas: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    num_threads: int = 0


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


@dataclass(frozen=True, slots=True)
class CameraRule:
    """What holds for the cameras whose name matches.

    Attributes:
        pattern: a shell pattern such as `gate-*`; the first rule that matches counts.
        model: the model that serves them; None: the plan's default.
    """

    pattern: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What may wait, and how large a frame may be."""

    max_waiting_frames: int = DEFAULT_MAX_WAITING_FRAMES
    max_waiting_bytes: int = DEFAULT_MAX_WAITING_BYTES
    max_frame_px: int = MAX_FRAME_PX


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
        slo_s: default seconds to finish, by priority.
        limits: what may wait.
        detection: which boxes are answered.
        frame_log: file that gets one JSON line a frame, on the router's machine; None: none.
    """

    models: Mapping[str, str]
    pools: tuple[Pool, ...]
    buckets: tuple[Bucket, ...]
    cameras: tuple[CameraRule, ...] = ()
    slo_s: Mapping[Priority, float] = field(
        default_factory=lambda: {Priority.CRITICAL: DEFAULT_CRITICAL_SLO_S, Priority.NORMAL: DEFAULT_NORMAL_SLO_S}
    )
    limits: Limits = field(default_factory=Limits)
    detection: DetectionLimits = field(default_factory=DetectionLimits)
    frame_log: str | None = None

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
            if not any(bucket.pool == pool.name for bucket in self.buckets):
                raise InvalidPlanError(f"pools.{pool.name}: no bucket uses it; add a bucket, or remove the pool")
        for rule in self.cameras:
            if rule.model is not None:
                _check_name(f"cameras.{rule.pattern}.model", rule.model, list(self.models))

    @property
    def default_model(self) -> str:
        """The model of cameras that no rule names."""
        return next(iter(self.models))

    def model_of(self, camera: str) -> str:
        """The model that serves this camera."""
        for rule in self.cameras:
            if fnmatch.fnmatchcase(camera, rule.pattern):
                return rule.model or self.default_model
        return self.default_model

    def canvas_for(self, camera: str, size_hw: tuple[int, int]) -> CanvasChoice:
        """The canvas of this camera's model that wastes the fewest padded pixels.

        For a frame larger than all of them it is the canvas that keeps the most of its resolution.
        """
        height, width = size_hw
        model = self.model_of(camera)
        choices = [(bucket, canvas) for bucket in self.buckets if bucket.model == model for canvas in bucket.canvases]
        holding = [choice for choice in choices if choice[1].height >= height and choice[1].width >= width]
        if holding:
            bucket, canvas = min(holding, key=lambda choice: choice[1].num_px)
            return CanvasChoice(bucket, canvas, shrunk=False)
        bucket, canvas = max(
            choices, key=lambda c: (min(c[1].height / height, c[1].width / width), -c[1].num_px)
        )  # fmt: skip
        return CanvasChoice(bucket, canvas, shrunk=True)

    def buckets_of(self, pool: str) -> tuple[Bucket, ...]:
        """The buckets that a pool serves, in the plan's order."""
        return tuple(bucket for bucket in self.buckets if bucket.pool == pool)


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
