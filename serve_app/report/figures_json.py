"""The figures of a report as JSON: every key is only ever added to. Pure."""

from __future__ import annotations

from serve_app.report.advice import Advice
from serve_app.report.findings import findings
from serve_app.report.frame_groups import FrameGroup
from serve_app.report.frame_line import STAGES
from serve_app.report.log_figures import LogFigures
from serve_app.report.quantile_sketch import QuantileSketch
from serve_app.report.slow_frames import SlowFrame
from serve_app.report.slow_story import story
from serve_app.report.timeline import ENDS, RUNGS, VERDICTS, TimeSeries


def figures_json(figures: LogFigures, advice: Advice) -> dict[str, object]:
    """All of it, for `json.dumps`; times in milliseconds, sizes as [height, width]."""
    whole = figures.whole()
    return {
        "files": [
            {"path": str(file.path), "records": file.num_records, "left_out": file.num_foreign, "is_torn": file.is_torn}
            for file in figures.files
        ],
        "frames": figures.num_frames,
        "cameras": len(figures.cameras),
        "observed_s": round(figures.observed_s, 3),
        "rate_hz": figures.rate_hz,
        "padding_fraction": figures.padding_fraction,
        "mean_batch": figures.mean_batch,
        "all": _group(whole),
        "classes": {name: _group(figures.class_group(name)) for name in figures.classes()},
        "sizes": [
            {"size_hw": size_hw, "class": name} | _group(group) for (name, size_hw), group in figures.groups.items()
        ],
        "verdicts": {
            name: sum(figures.verdicts[lane_class, place] for lane_class in figures.classes())
            for place, name in enumerate(VERDICTS)
        },
        "batches": [
            {"pool": pool, "bucket": bucket, "batch_size": size, "frames": number}
            for (pool, bucket, size), number in figures.batches.items()
        ],
        "placements": [
            {"size_hw": place.size_hw, "canvas_hw": list(place.canvas), "model": place.model, "rung": place.rung,
             "is_tiled": place.is_tiled, "frames": number}
            for place, number in figures.placements.items()
        ],
        "clocks": [
            {"file": clock.file, "router": clock.router, "frames": clock.num_frames, "seconds": clock.span.seconds}
            | _series(clock.timeline.series())
            for clock in figures.clocks
        ],
        "reasons": [
            {"what": reason.what, "example": reason.example, "frames": reason.num_frames}
            for reason in figures.reasons.most_frequent()
        ],
        "slowest": [_slow(slow) for name in figures.classes() for slow in figures.slowest[name].frames()],
        "advice": _advice(advice),
        "findings": [
            {"weight": finding.weight.name.lower(), "text": finding.text, "cure": finding.cure}
            for finding in findings(figures, advice)
        ],
    }  # fmt: skip


def _group(group: FrameGroup) -> dict[str, object]:
    counts = group.counts
    return {
        "frames": counts.num_frames,
        "finished": counts.num_finished,
        "due": counts.num_due,
        "in_time": counts.num_in_time,
        "in_time_fraction": counts.in_time_fraction,
        "lower_rung": counts.num_lower,
        "ends": dict(zip(ENDS, group.ends, strict=True)),
        "total_ms": _quantiles(group.total),
        "stages_ms": {stage: _quantiles(sketch) for stage, sketch in zip(STAGES, group.stages, strict=True)},
    }


def _quantiles(sketch: QuantileSketch) -> dict[str, float | None]:
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "most": 1.0}
    return {"mean": _ms(sketch.mean if len(sketch) else None)} | {
        name: _ms(sketch.quantile(share)) for name, share in shares.items()
    }


def _series(series: TimeSeries) -> dict[str, object]:
    return {
        "step_s": series.step_s,
        "ends": dict(zip(ENDS, series.ends, strict=True)),
        "verdicts_by_step": dict(zip(VERDICTS, series.verdicts, strict=True)),
        "rungs": dict(zip(RUNGS, series.rungs, strict=True)),
    }


def _slow(slow: SlowFrame) -> dict[str, object]:
    frame = slow.frame
    return {
        "file": slow.file, "line": slow.line, "frame_id": frame.frame_id, "camera": frame.camera,
        "class": frame.lane_class, "size_hw": frame.size_hw, "total_ms": _ms(frame.total_s),
        "slo_s": frame.slo_s, "story": " ".join(story(slow)),
    }  # fmt: skip


def _advice(advice: Advice) -> dict[str, object]:
    drift = advice.drift
    if drift is None:
        return {"problem": advice.problem}
    return {
        "is_plan_known": advice.is_plan_known,
        "fit": drift.fit.value,
        "reasons": list(drift.reasons),
        "device_s_per_s": drift.device_s_per_s,
        "fresh_s_per_s": drift.fresh_s_per_s,
        "fresh_canvases_hw": [list(canvas) for canvas in advice.fresh_canvases],
        "misfits": [
            {"size_hw": fit.size_hw, "canvas_hw": list(fit.canvas), "shrunk": fit.shrunk, "rate_hz": fit.rate_hz,
             "padding_fraction": fit.padding_fraction, "least_padding_fraction": fit.least_padding_fraction,
             "cameras": list((advice.cameras or {}).get(fit.size_hw, ()))}
            for fit in advice.misfits
        ],
    }  # fmt: skip


def _ms(value_s: float | None) -> float | None:
    return None if value_s is None else round(value_s * 1000, 3)
