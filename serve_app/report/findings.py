"""What stands out in a log, worst first, each with the knob to turn. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from serve_app.planning.drift import Fit
from serve_app.report import words
from serve_app.report.advice import Advice
from serve_app.report.frame_groups import FrameGroup
from serve_app.report.frame_line import STAGES
from serve_app.report.log_figures import LogFigures
from serve_app.report.timeline import ENDS

# Below it a class has missed its promise by more than single frames.
GOOD_IN_TIME_FRACTION = 0.99
# From here on these shares are worth a sentence.
MUCH_LOWER_FRACTION = 0.05
MUCH_WAITING_FRACTION = 0.5
MUCH_TRANSFER_FRACTION = 0.3
# Of frames that did not finish a reader wants to know from the first percent on.
MUCH_UNFINISHED_FRACTION = 0.01
# Below it waiting and transfer are nobody's concern.
LONG_S = 0.02


class Weight(IntEnum):
    """How much it matters."""

    GOOD = 0
    NOTE = 1
    BAD = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, and what to do; `cure` is empty where nothing is to be done."""

    weight: Weight
    text: str
    cure: str = ""


def findings(figures: LogFigures, advice: Advice) -> tuple[Finding, ...]:
    """Worst first; never none."""
    found = [*_promises(figures), *_unfinished(figures), *_stages(figures), *_ladder(figures), *_canvases(advice)]
    return tuple(sorted(found, key=lambda finding: -finding.weight))


def _promises(figures: LogFigures) -> Iterator[Finding]:
    for name in figures.classes():
        counts = figures.class_group(name).counts
        in_time = counts.in_time_fraction
        if in_time is None:
            continue
        num_missed = counts.num_due - counts.num_in_time
        text = f"{words.share(in_time)} of the {name} frames were answered within their deadline"
        if in_time == 1:
            yield Finding(Weight.GOOD, f"All {words.frames(counts.num_due)} of class {name} were in time.")
        elif in_time >= GOOD_IN_TIME_FRACTION:
            yield Finding(Weight.GOOD if name != "critical" else Weight.NOTE, f"{text}; {num_missed:,} were not.")
        else:
            cure = (
                "a smaller max_chunk_s, more replicas, a longer slo_s.critical"
                if name == "critical"
                else "more replicas, a ladder, or a longer slo_s"
            )
            yield Finding(Weight.BAD, f"{text}; {num_missed:,} of {counts.num_due:,} were not.", cure)


def _unfinished(figures: LogFigures) -> Iterator[Finding]:
    whole = figures.whole()
    ends = dict(zip(ENDS, whole.ends, strict=True))
    for end, cure in (
        ("failed", "the logs of router and replicas, by frame id"),
        ("expired", "more replicas, a ladder, a longer slo_s, or fewer frames a second"),
        ("rejected", "more replicas, larger limits, or callers that wait for retry_after_s"),
    ):
        number = ends[end]
        if number and (end == "failed" or number >= MUCH_UNFINISHED_FRACTION * figures.num_frames):
            part = words.share(number / figures.num_frames)
            yield Finding(Weight.BAD, f"{words.frames(number)} ({part}) {end}.", cure)


def _stages(figures: LogFigures) -> Iterator[Finding]:
    for name in ("critical", "normal"):
        group = figures.class_group(name)
        if group.total.mean < LONG_S:
            continue
        waiting, transfer = (_stage_share(group, stage) for stage in ("queue", "transfer"))
        if waiting > MUCH_WAITING_FRACTION:
            yield Finding(
                Weight.NOTE, f"{words.share(waiting)} of the time of {name} frames was waiting.",
                "a smaller max_chunk_s, more replicas" if name == "critical" else "more replicas, larger batches",
            )  # fmt: skip
        if transfer > MUCH_TRANSFER_FRACTION:
            yield Finding(
                Weight.NOTE, f"{words.share(transfer)} of the time of {name} frames was transfer.",
                "clients nearer to the replicas",
            )  # fmt: skip


def _stage_share(group: FrameGroup, stage: str) -> float:
    return group.stages[STAGES.index(stage)].sum / group.total.sum if group.total.sum else 0.0


def _ladder(figures: LogFigures) -> Iterator[Finding]:
    counts = figures.whole().counts
    lower = counts.num_lower / counts.num_finished if counts.num_finished else 0.0
    if lower > MUCH_LOWER_FRACTION:
        yield Finding(
            Weight.NOTE, f"{words.share(lower)} of the answered frames ran below their own rung of the ladder.",
            "more replicas; degrade: false for cameras whose quality must not drop",
        )  # fmt: skip


def _canvases(advice: Advice) -> Iterator[Finding]:
    drift = advice.drift
    if drift is None:
        return
    if drift.fit is Fit.DRIFTED:
        for reason in drift.reasons:
            yield Finding(Weight.NOTE, f"The planner says: {reason}.", "framelane plan with this log")
    elif not advice.misfits:
        yield Finding(Weight.GOOD, "Every frame size has a canvas that fits it.")
    else:
        number = len(advice.misfits)
        sizes = "one frame size lies" if number == 1 else f"{number} frame sizes lie"
        yield Finding(
            Weight.GOOD,
            f"{sizes.capitalize()} badly on the canvases, yet others would save no more than "
            f"{words.share(drift.regret_fraction)} of the device time.",
        )
