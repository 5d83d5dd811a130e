"""The sections of a report about causes: slow frames, reasons, sizes that lie badly, cameras. Pure."""

from __future__ import annotations

from serve_app.planning.drift import SizeFit
from serve_app.report import charts, words
from serve_app.report.advice import MAX_SIZES, Advice
from serve_app.report.frame_line import STAGES
from serve_app.report.latency_sections import STAGE_STYLES, section, table
from serve_app.report.log_figures import LogFigures
from serve_app.report.markup import Content, Markup, tag
from serve_app.report.slow_frames import SlowFrame
from serve_app.report.slow_story import story

MAX_REASONS = 12
MAX_MISFITS = 12
MAX_CAMERAS = 12
MAX_NAMED_CAMERAS = 3


def slow_section(figures: LogFigures) -> Markup:
    """The slowest frames of each class, with their story."""
    cards = [_card(slow) for name in figures.classes() for slow in figures.slowest[name].frames()]
    if not cards:
        return Markup("")
    return section(
        "Slowest frames", "slowest",
        tag("div", *cards, class_="cards"),
        charts.legend(list(zip(STAGES, STAGE_STYLES, strict=True))),
        tag("p", "Of each class the slowest frame of the cameras where that was slowest.", class_="note"),
    )  # fmt: skip


def _card(slow: SlowFrame) -> Markup:
    frame = slow.frame
    late = tag("b", ", late", class_="bad") if frame.slo_s is not None and frame.total_s > frame.slo_s else None
    deadline = "no deadline known" if frame.slo_s is None else f"deadline {words.seconds(frame.slo_s)}"
    parts = [
        (f"{stage}: {words.seconds(took_s)}", style, took_s)
        for stage, style, took_s in zip(STAGES, STAGE_STYLES, frame.stages_s, strict=True)
    ]
    return tag(
        "article",
        tag("h3", tag("b", words.seconds(frame.total_s)), " ", words.name(frame.camera)),
        tag("p", tag("i", class_=f"dot fill class-{frame.lane_class}"),
            f"{frame.lane_class}, {words.size(frame.size_hw)}, {deadline}", late, class_="facts"),
        charts.bar(parts, max(frame.total_s, sum(frame.stages_s))),
        tag("p", " ".join(story(slow))),
        tag("p", tag("code", words.name(frame.frame_id)), f", line {slow.line} of {words.name(slow.file)}",
            class_="note"),
    )  # fmt: skip


def reason_section(figures: LogFigures) -> Markup:
    """Why frames did not finish, shrank or waited."""
    reasons = figures.reasons.most_frequent()
    if not reasons:
        return Markup("")
    rows: list[list[Content]] = [
        [reason.what, words.sentence(reason.example) or words.NONE, words.count(reason.num_frames),
         words.name(reason.camera)]
        for reason in reasons[:MAX_REASONS]
    ]  # fmt: skip
    left_out = sum(reason.num_frames for reason in reasons[MAX_REASONS:])
    return section(
        "Reasons", "reasons",
        table(["what", "reason, as the first such frame has it", "frames", "first camera"], rows,
              words_in=(0,), long_in=(1, 3)),
        tag("p", f"Other reasons: {words.frames(left_out)}.", class_="note") if left_out else None,
    )  # fmt: skip


def canvas_section(figures: LogFigures, advice: Advice) -> Markup:
    """Sizes that lie badly, whose they are, and what the planner would do."""
    title, anchor, drift = "Sizes that are badly served, and the planner’s advice", "advice", advice.drift
    if drift is None:
        return section(title, anchor, tag("p", f"Not compared: {words.sentence(advice.problem)}."))
    verdict = "drifted" if drift.reasons else "fits"
    basis = (
        "The planner compared this traffic with the plan. "
        if advice.is_plan_known
        else "The planner compared this traffic with the canvases that the log shows; give --plan for the plan itself, "
        "its latencies and its replicas. "
    )
    saving = (
        f"It predicts {drift.device_s_per_s:.3g} device seconds a second now, and {drift.fresh_s_per_s:.3g} on as many "
        f"canvases chosen afresh ({words.share(drift.regret_fraction)} less): "
        + ", ".join(dict.fromkeys(words.size(canvas) for canvas in advice.fresh_canvases)) + "."
    )  # fmt: skip
    rows: list[list[Content]] = []
    for fit in advice.misfits[:MAX_MISFITS]:
        fresh = _fresh_canvas(advice, fit.size_hw)
        rows.append(
            [
                words.size(fit.size_hw), words.size(fit.canvas) + _how(figures, fit),
                words.share(fit.padding_fraction), words.share(fit.least_padding_fraction), words.rate(fit.rate_hz),
                fresh, _cameras(advice, fit.size_hw),
            ]
        )  # fmt: skip
    left_out = f"{advice.num_left_out} rarer sizes than the {MAX_SIZES} most frequent were left out. "
    return section(
        title, anchor,
        tag("p", basis, "Verdict: ", tag("b", verdict, class_="bad" if drift.reasons else "good"), ". ", saving),
        tag("ul", *(tag("li", f"{reason}.") for reason in drift.reasons)) if drift.reasons else None,
        table(["size, px", "canvas", "padding", "least", "rate", "afresh on", "cameras"], rows,
              words_in=(0, 1, 5), long_in=(6,))
        if rows
        else tag("p", "Every size has a canvas that fits it well."),
        tag("p", left_out if advice.num_left_out else None,
            "Padding: share of the canvas computed on top of the frame’s own pixels; least: on a canvas of its own "
            "size, which the model’s stride alone makes larger. To plan anew: ", tag("code", "framelane plan LOG"), ".",
            class_="note"),
    )  # fmt: skip


def _how(figures: LogFigures, fit: SizeFit) -> str:
    """What became of frames that are larger than every canvas."""
    if not fit.shrunk:
        return ""
    own = [place for place in figures.placements if place.size_hw == fit.size_hw and place.rung == 0]
    return ", cut in tiles" if any(place.is_tiled for place in own) else ", shrunk"


def _fresh_canvas(advice: Advice, size_hw: tuple[int, int]) -> str:
    """Where the fresh plan would place a size."""
    proposals = advice.drift.fresh if advice.drift is not None else ()
    canvases = {
        words.size(use.canvas)
        for proposal in proposals
        for use in proposal.canvases
        if any(load.size.size_hw == size_hw for load in use.loads)
    }
    return ", ".join(sorted(canvases)) or words.NONE


def _cameras(advice: Advice, size_hw: tuple[int, int]) -> str:
    names = (advice.cameras or {}).get(size_hw, ())
    shown = ", ".join(words.name(camera) for camera in names[:MAX_NAMED_CAMERAS])
    rest = len(names) - MAX_NAMED_CAMERAS
    return (f"{shown} and {rest} more" if rest > 0 else shown) or words.NONE


def camera_section(figures: LogFigures) -> Markup:
    """The cameras with the smallest share in time."""
    due = [(name, camera) for name, camera in figures.cameras.items() if camera.in_time_fraction is not None]
    worst = sorted(due, key=lambda item: (item[1].in_time_fraction or 0.0, -item[1].num_frames))[:MAX_CAMERAS]
    if not worst:
        return Markup("")
    rows: list[list[Content]] = [
        [
            words.name(name), words.count(camera.num_frames), words.share(camera.in_time_fraction),
            words.count(camera.num_frames - camera.num_finished),
            words.share(camera.num_lower / camera.num_finished if camera.num_finished else None),
            words.seconds(camera.slowest_s if camera.num_finished else None),
        ]
        for name, camera in worst
    ]  # fmt: skip
    of = f"The {len(worst)} of {words.count(len(figures.cameras))} cameras with the smallest share in time."
    return section(
        "Cameras", "cameras",
        table(["camera", "frames", "in time", "not finished", "lower rung", "slowest"], rows, long_in=(0,)),
        tag("p", of, class_="note"),
    )  # fmt: skip
