"""Which sizes are badly served, and what the planner would do: its own rules, asked with a log's traffic. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from engines.spec import CanvasShape
from serve_app.errors import FramelaneError
from serve_app.latency import LatencyModel
from serve_app.plan import Bucket, CameraRule, Plan, Pool
from serve_app.planning.drift import DriftReport, SizeFit, compare
from serve_app.planning.traffic import SizeHw, SizeRate, Traffic, merged, rate_by_size
from serve_app.report.log_figures import LogFigures

# The search over canvases takes milliseconds for forty sizes and minutes for a thousand: the most frequent ones count.
MAX_SIZES = 60
# Of models that are not at hand: what all YOLO detectors so far have.
USUAL_STRIDE_PX = 32
# The log does not say how many replicas there are to be: so many that none is too few.
ENOUGH_REPLICAS = 1_000_000


@dataclass(frozen=True, slots=True)
class Advice:
    """What the planner says of a log.

    Attributes:
        drift: its comparison; None: there was nothing to compare, `problem` says why.
        problem: why there is no comparison; empty if there is one.
        is_plan_known: whether it was compared with the plan itself, or with the canvases that the log shows.
        num_sizes, num_left_out: sizes that were compared, and rarer ones that were not.
        cameras: whose frames have a size.
    """

    drift: DriftReport | None
    problem: str = ""
    is_plan_known: bool = False
    num_sizes: int = 0
    num_left_out: int = 0
    cameras: Mapping[SizeHw, tuple[str, ...]] | None = None

    @property
    def misfits(self) -> tuple[SizeFit, ...]:
        """The sizes that no canvas fits well, the one with the most padded pixels first."""
        return self.drift.misfits if self.drift is not None else ()

    @property
    def fresh_canvases(self) -> tuple[CanvasShape, ...]:
        """Those of a fresh plan of as many canvases."""
        proposals = self.drift.fresh if self.drift is not None else ()
        return tuple(use.canvas for proposal in proposals for use in proposal.canvases)


def advise(
    figures: LogFigures,
    plan: Plan | None,
    latency: LatencyModel,
    *,
    strides_px: Mapping[str, int],
    planned: Traffic | None = None,
) -> Advice:
    """Compare a log's traffic with a plan, or with what the log shows of one.

    Args:
        figures: of the log.
        plan: what was deployed; None: not given.
        latency: predicts seconds by the plan's model names.
        strides_px: stride by model name; `USUAL_STRIDE_PX` where one is missing.
        planned: what the plan was made for, if known.
    """
    if not figures.traffic:
        return Advice(None, "a rate needs two frames that came at different times, and the log has none such")
    compared = plan if plan is not None else _plan_of(figures)
    if compared is None:
        return Advice(None, "no frame was answered, so the log shows no canvas; give the plan with --plan")
    frequent = _frequent_sizes(figures.traffic)
    num_all = len(rate_by_size(figures.traffic))
    taken = tuple(entry for entry in figures.traffic if entry.size_hw in frequent)
    entries = merged(_as_logged(taken, figures) if plan is None else _as_planned(taken, plan))
    strides = {model: strides_px.get(model, USUAL_STRIDE_PX) for model in compared.models}
    try:
        # What the log shows may shrink on purpose; without the plan nobody knows what was meant.
        meant = planned if plan is not None else entries
        drift = compare(compared, entries, latency, strides_px=strides, planned=meant)
    except FramelaneError as err:
        return Advice(None, f"the planner has no answer: {err}", is_plan_known=plan is not None)
    return Advice(
        drift, "", plan is not None, len(frequent), num_all - len(frequent), _cameras_of(figures.traffic, frequent)
    )  # fmt: skip


def _frequent_sizes(traffic: Traffic) -> frozenset[SizeHw]:
    rates_hz = rate_by_size(traffic)
    return frozenset(sorted(rates_hz, key=lambda size_hw: -rates_hz[size_hw])[:MAX_SIZES])


def _as_planned(traffic: Traffic, plan: Plan) -> list[SizeRate]:
    """The entries with no more of their cameras than the plan's rules make of them, or ten thousand would be rows."""
    shown: dict[str, str | None] = {}
    for camera in {entry.camera for entry in traffic if entry.camera is not None}:
        shown[camera] = camera if plan.rule_of(camera).model is not None else None
    return _renamed(traffic, shown)


def _as_logged(traffic: Traffic, figures: LogFigures) -> list[SizeRate]:
    """The entries with the model that serves them in the place of their camera: see `_plan_of`."""
    return _renamed(traffic, figures.own_models())


def _renamed(traffic: Traffic, names: Mapping[str, str | None]) -> list[SizeRate]:
    return [
        SizeRate(entry.size_hw, entry.rate_hz, entry.priority, entry.slo_s, names.get(entry.camera or ""))
        for entry in traffic
    ]


def _cameras_of(traffic: Traffic, sizes: frozenset[SizeHw]) -> dict[SizeHw, tuple[str, ...]]:
    """The cameras of each size, the one that sends most first."""
    rates_hz: dict[SizeHw, Counter[str]] = defaultdict(Counter)
    for entry in traffic:
        if entry.size_hw in sizes and entry.camera is not None:
            rates_hz[entry.size_hw][entry.camera] += entry.rate_hz  # type: ignore[assignment]
    return {size_hw: tuple(name for name, _ in cameras.most_common()) for size_hw, cameras in rates_hz.items()}


def _plan_of(figures: LogFigures) -> Plan | None:
    """The plan as far as the log shows it: its models, canvases and batches, with replicas enough."""
    frames: Counter[str] = Counter()
    canvases: dict[str, Counter[CanvasShape]] = defaultdict(Counter)
    for place, count in figures.placements.items():
        frames[place.model] += count if place.rung == 0 else 0
        canvases[place.model][place.canvas] += count
    if not frames:
        return None
    most = max((1, *(size for _, _, size in figures.batches)))  # records of refused frames say 0
    batches = tuple(size for size in (1, 2, 4, 8, 16, 32, 64) if size <= most)
    models = [model for model, _ in frames.most_common()]
    buckets = tuple(
        Bucket(model, model, "logged", tuple(canvas for canvas, _ in canvases[model].most_common()), batches)
        for model in models
    )
    # Which camera has which model is not known as a rule, so entries carry their model's name as their camera's.
    rules = tuple(CameraRule(_literal(model), model=model) for model in models)
    return Plan(dict.fromkeys(models, ""), (Pool("logged", ENOUGH_REPLICAS),), buckets, rules)


def _literal(name: str) -> str:
    """A pattern that matches this name alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
