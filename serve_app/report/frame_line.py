"""One record of a frame log, checked: what a report needs of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from engines.spec import CanvasShape
from serve_app.errors import InvalidPlanError
from serve_app.file_fields import MAX_SIDE_PX, number_of, refuse
from serve_app.frames import Priority
from serve_app.planning.traffic import SizeHw
from serve_app.verdicts import Outcome, VerdictKind

STAGES = ("queue", "transfer", "preprocess", "infer", "postprocess")
CLASSES = ("critical", "normal", "deferred", "other")
"""As `framelane simulate` has them; `other`: refused because its priority was none."""

# Words that a log may hold; clients choose names, and a name is no book.
MAX_TEXT = 300
# Milliseconds of four months: whatever is more was not measured.
MAX_AMOUNT = 1e10

_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_VERDICTS = {kind.value: kind for kind in VerdictKind}
_PRIORITIES = frozenset(priority.value for priority in Priority)
_PARTS = tuple(f"{stage}_ms" for stage in STAGES)


class FrameLine(NamedTuple):
    """One frame.

    Attributes:
        at_s: when it came, on its router's clock; None: a log that was written by a client.
        frame_id, camera: as its client called them, cut to `MAX_TEXT`.
        size_hw: (height, width) px; None: the client said none.
        lane_class: of `CLASSES`.
        slo_s: seconds that it had; None: not known.
        verdict: None for a frame that was refused unread.
        verdict_reason, error: in words; empty if there are none.
        canvas, bucket, pool, replica, model, router: where it went; None or empty if nowhere.
        rung, num_tiles, batch_size: as the log has them.
        padding_fraction: share of the canvas that showed no frame.
        stages_s: seconds in each of `STAGES`.
        total_s: from its coming to its answer.
        outcome: how it ended.
    """

    at_s: float | None
    frame_id: str
    camera: str
    size_hw: SizeHw | None
    lane_class: str
    slo_s: float | None
    verdict: VerdictKind | None
    verdict_reason: str
    error: str
    canvas: CanvasShape | None
    bucket: str
    pool: str
    replica: str
    model: str
    router: str
    rung: int
    num_tiles: int
    batch_size: int
    padding_fraction: float
    stages_s: tuple[float, ...]
    total_s: float
    outcome: Outcome

    @property
    def is_finished(self) -> bool:
        """Whether it was answered."""
        return self.outcome is Outcome.FINISHED

    @property
    def is_in_time(self) -> bool:
        """Whether it was answered within its deadline; False where that is not known."""
        return self.outcome is Outcome.FINISHED and self.slo_s is not None and self.total_s <= self.slo_s

    @property
    def is_due(self) -> bool:
        """Whether it counts for the share within the deadline: it had one, and was not refused unread."""
        return self.slo_s is not None and (self.verdict is not None or self.outcome is not Outcome.REJECTED)


def frame_line(where: str, record: Mapping[str, object]) -> FrameLine:
    """Check a record.

    Raises:
        InvalidPlanError: it is none of a frame, or holds a value that no router writes.
    """
    outcome = _OUTCOMES.get(_text(record, "outcome"))
    if outcome is None:
        refuse(where, "outcome", record.get("outcome"), "one of " + ", ".join(_OUTCOMES))
    verdict_name = _text(record, "verdict")
    verdict = _VERDICTS.get(verdict_name)
    if verdict is None and verdict_name:
        refuse(where, "verdict", verdict_name, "one of " + ", ".join(_VERDICTS))
    at_s = record.get("at_s")
    slo_s = record.get("slo_s")
    return FrameLine(
        None if at_s is None else number_of(where, "at_s", at_s, "seconds on the router's clock"),
        _text(record, "frame_id"),
        _text(record, "camera"),
        _size(where, record, "source_hw"),
        _class_of(_text(record, "priority"), verdict),
        None if slo_s is None else number_of(where, "slo_s", slo_s, "seconds"),
        verdict,
        _text(record, "verdict_reason"),
        _text(record, "error"),
        _canvas(where, record),
        _text(record, "bucket"),
        _text(record, "pool"),
        _text(record, "replica"),
        _text(record, "model"),
        _text(record, "router"),
        _count(where, record, "rung"),
        _count(where, record, "num_tiles"),
        _count(where, record, "batch_size"),
        min(1.0, _amount(where, record, "padding_fraction")),
        tuple([_amount(where, record, part) / 1000 for part in _PARTS]),
        _amount(where, record, "total_ms") / 1000,
        outcome,
    )


def _class_of(priority: str, verdict: VerdictKind | None) -> str:
    if priority not in _PRIORITIES:
        return "other"
    return "deferred" if verdict is VerdictKind.DEFER and priority == Priority.NORMAL.value else priority


def _text(record: Mapping[str, object], key: str) -> str:
    value = record.get(key)
    return "" if value is None else str(value)[:MAX_TEXT]


def _amount(where: str, record: Mapping[str, object], key: str) -> float:
    value = record.get(key)
    if type(value) is float and 0 <= value < MAX_AMOUNT:  # what nearly all lines have
        return value
    number = 0.0 if value is None else max(0.0, number_of(where, key, value, "0 or more"))
    if number >= MAX_AMOUNT:
        refuse(where, key, value, f"less than {MAX_AMOUNT:g}")
    return number


def _count(where: str, record: Mapping[str, object], key: str) -> int:
    value = record.get(key)
    if type(value) is int and value >= 0:
        return value
    return 0 if value is None else max(0, int(number_of(where, key, value, "0 or more")))


def _size(where: str, record: Mapping[str, object], key: str) -> SizeHw | None:
    """Whatever a client said, if it is a size."""
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidPlanError(f"{where}: {key}: got {value!r:.80}, allowed is [height, width] in px")
    height, width = value
    if type(height) is not int or type(width) is not int or not (height > 0 and width > 0):
        raise InvalidPlanError(f"{where}: {key}: got {value!r:.80}, allowed is [height, width] in px")
    return height, width


def _canvas(where: str, record: Mapping[str, object]) -> CanvasShape | None:
    size_hw = _size(where, record, "canvas_hw")
    if size_hw is not None and max(size_hw) > MAX_SIDE_PX:
        refuse(where, "canvas_hw", list(size_hw), f"sides of at most {MAX_SIDE_PX} px")
    return None if size_hw is None else CanvasShape(*size_hw)
