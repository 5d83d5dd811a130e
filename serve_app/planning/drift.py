"""Whether live traffic still fits a plan. Pure: traffic, plan and latencies in, a report out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from engines.spec import CanvasShape, fitting_canvas
from serve_app.frames import MAX_SLO_S
from serve_app.latency import LatencyModel
from serve_app.plan import Plan
from serve_app.planning.engine_memory import EngineMemory
from serve_app.planning.plan_load import SizeLoad, loads_under, model_of, padding_fraction, padding_of
from serve_app.planning.planner import propose
from serve_app.planning.proposal import PlannedModel, PlannerLimits, Proposal
from serve_app.planning.traffic import SizeHw, Traffic, histogram_distance, merged, total_rate_hz

# A size whose padding stays below this is well served.
GOOD_PADDING_FRACTION = 0.04
# Making new engines for less than a tenth of the device time is not worth the restart.
MAX_REGRET_FRACTION = 0.10
# So many more frames than planned may be larger than every canvas.
MAX_OVERSIZE_FRACTION = 0.05
# Planned is 0.7; above 0.9 of a server's time the queue is nine times as long as the work.
MAX_UTILISATION = 0.9


class Fit(Enum):
    """The verdict."""

    FITS = "fits"
    DRIFTED = "drifted"


@dataclass(frozen=True, slots=True)
class SizeFit:
    """How one size lies on the plan's canvases.

    Attributes:
        size_hw: (height, width) px of the frames.
        rate_hz: frames a second.
        canvas: where the plan places them.
        shrunk: whether they are larger than every canvas.
        padding_fraction: of that canvas.
        least_padding_fraction: on the canvas of their own size, which the stride alone makes larger.
    """

    size_hw: SizeHw
    rate_hz: float
    canvas: CanvasShape
    shrunk: bool
    padding_fraction: float
    least_padding_fraction: float

    @property
    def fits_well(self) -> bool:
        """Whether padding is small, or as small as the stride allows."""
        return not self.shrunk and self.padding_fraction <= max(GOOD_PADDING_FRACTION, self.least_padding_fraction)


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What live traffic is to a plan.

    Attributes:
        fit: the verdict; `reasons` says why it is `DRIFTED`, one sentence each.
        sizes: each size, the one with the most padded pixels a second first.
        padding_fraction: of all computed pixels.
        oversize_fraction: share of frames that are larger than every canvas.
        device_s_per_s: predicted device seconds a second under the plan.
        fresh_s_per_s: the same under a fresh plan of as many canvases and buckets.
        fresh: that plan, one proposal for each model that frames ask for.
        utilisation: share of each pool's replicas that the traffic keeps busy; above 1 it cannot be served.
        distance_fraction: share of frames that changed size since the plan was made; None: not known.
    """

    fit: Fit
    reasons: tuple[str, ...]
    sizes: tuple[SizeFit, ...]
    padding_fraction: float
    oversize_fraction: float
    device_s_per_s: float
    fresh_s_per_s: float
    fresh: tuple[Proposal, ...]
    utilisation: Mapping[str, float]
    distance_fraction: float | None

    @property
    def regret_fraction(self) -> float:
        """Share of the device time that a fresh plan would save; 0 or more."""
        return max(0.0, 1 - self.fresh_s_per_s / self.device_s_per_s)

    @property
    def misfits(self) -> tuple[SizeFit, ...]:
        """The sizes that no canvas of the plan fits well."""
        return tuple(size for size in self.sizes if not size.fits_well)


def compare(
    plan: Plan,
    traffic: Traffic,
    latency: LatencyModel,
    *,
    strides_px: Mapping[str, int],
    planned: Traffic | None = None,
) -> DriftReport:
    """Compare live traffic with a plan.

    Drifted is what a new plan would mend: device time that other canvases would save, frames larger than every canvas
    that were not expected, pools with too few replicas. Padding alone is no drift: where as many canvases cannot do
    better, the plan fits.

    Args:
        plan: what is deployed.
        traffic: one entry or more, with cameras where the plan's rules name any.
        latency: predicts seconds by the plan's model names.
        strides_px: stride by model name, of the plan's models.
        planned: what the plan was made for, if known.
    """
    traffic = merged(traffic)
    loads = loads_under(plan, traffic, latency)
    oversize_fraction = _oversize_fraction(loads)
    expected_fraction = _oversize_fraction(loads_under(plan, planned, latency)) if planned else 0.0
    fresh = _fresh(plan, traffic, latency, strides_px)
    report = DriftReport(
        fit=Fit.FITS,
        reasons=(),
        sizes=_sizes(loads, strides_px),
        padding_fraction=padding_fraction(loads),
        oversize_fraction=oversize_fraction,
        device_s_per_s=sum(load.device_s_per_s for load in loads),
        fresh_s_per_s=sum(proposal.device_s_per_s for proposal in fresh),
        fresh=fresh,
        utilisation=_utilisation(plan, loads),
        distance_fraction=histogram_distance(planned, traffic) if planned else None,
    )
    reasons = _reasons(report, expected_fraction)
    return dataclasses.replace(report, fit=Fit.DRIFTED if reasons else Fit.FITS, reasons=reasons)


def _reasons(report: DriftReport, expected_oversize_fraction: float) -> tuple[str, ...]:
    reasons = []
    if report.regret_fraction > MAX_REGRET_FRACTION:
        worst = ", ".join(
            f"{size.size_hw[0]}×{size.size_hw[1]} on {size.canvas.height}×{size.canvas.width}"
            for size in report.misfits[:3]
        )
        reasons.append(
            f"other canvases would save {report.regret_fraction:.0%} of the device time, allowed are "
            f"{MAX_REGRET_FRACTION:.0%}" + (f"; the worst now: {worst}" if worst else "")
        )
    if report.oversize_fraction > expected_oversize_fraction + MAX_OVERSIZE_FRACTION:
        reasons.append(
            f"{report.oversize_fraction:.0%} of the frames are larger than every canvas and lose resolution; the plan "
            f"was made for {expected_oversize_fraction:.0%}"
        )
    for pool, share in report.utilisation.items():
        if share > MAX_UTILISATION:
            reasons.append(
                f"pool {pool} would be {share:.0%} busy, allowed are {MAX_UTILISATION:.0%}: it needs replicas"
            )
    return tuple(reasons)


def _sizes(loads: Sequence[SizeLoad], strides_px: Mapping[str, int]) -> tuple[SizeFit, ...]:
    fits: dict[tuple[SizeHw, CanvasShape, str], SizeFit] = {}
    for load in loads:
        size_hw, choice = load.size.size_hw, load.choice
        least = padding_of(size_hw, fitting_canvas(size_hw, strides_px[choice.bucket.model]))
        before = fits.get((size_hw, choice.canvas, choice.bucket.model))
        rate_hz = load.size.rate_hz + (before.rate_hz if before else 0.0)
        fits[size_hw, choice.canvas, choice.bucket.model] = SizeFit(
            size_hw, rate_hz, choice.canvas, choice.shrunk, load.padding_fraction, least
        )
    worst_first = sorted(fits.values(), key=lambda fit: -fit.rate_hz * fit.padding_fraction * fit.canvas.num_px)
    return tuple(worst_first)


def _oversize_fraction(loads: Sequence[SizeLoad]) -> float:
    return total_rate_hz(load.size for load in loads if load.choice.shrunk) / total_rate_hz(load.size for load in loads)


def _utilisation(plan: Plan, loads: Sequence[SizeLoad]) -> dict[str, float]:
    busy_s = dict.fromkeys((pool.name for pool in plan.pools), 0.0)
    for load in loads:
        busy_s[load.choice.bucket.pool] += load.device_s_per_s
    return {pool.name: busy_s[pool.name] / pool.num_replicas for pool in plan.pools}


def _fresh(plan: Plan, traffic: Traffic, latency: LatencyModel, strides_px: Mapping[str, int]) -> tuple[Proposal, ...]:
    """A fresh plan for each model that frames ask for, of as many canvases, buckets and batches as now."""
    proposals = []
    for model, source in plan.models.items():
        # Without deadlines: whether they can be met is no matter of canvases that drifted.
        entries = [dataclasses.replace(e, slo_s=MAX_SLO_S) for e in traffic if model_of(plan, e) == model]
        if not entries:
            continue
        buckets = [bucket for bucket in plan.buckets if bucket.model == model]
        canvases = [canvas for bucket in buckets for canvas in bucket.canvases]
        shrinks = any(load.choice.shrunk for load in loads_under(plan, entries, latency))
        limits = PlannerLimits(
            max_canvases=len(canvases),
            max_buckets=len(buckets),
            max_batch=max(bucket.batches[-1] for bucket in buckets),
            max_canvas=max(canvases, key=lambda canvas: canvas.num_px) if shrinks else None,
            max_chunk_s=plan.max_chunk_s,
        )
        planned_model = PlannedModel(model, source, strides_px[model], EngineMemory(weights_bytes=0))
        proposals.append(propose(tuple(entries), planned_model, latency, limits, pool=plan.pools[0]))
    return tuple(proposals)
