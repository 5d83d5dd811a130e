"""All that a report says of its logs, gathered frame by frame in bounded memory. Pure but for the reading of files."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from engines.spec import CanvasShape
from serve_app.errors import FramelaneError, InvalidPlanError
from serve_app.planning.traffic import SizeHw, Traffic, merged
from serve_app.planning.traffic_count import TrafficCount
from serve_app.report.frame_groups import CameraFigures, FrameGroup, GroupKey
from serve_app.report.frame_line import CLASSES, FrameLine
from serve_app.report.log_clock import ClockSpan, LogClock, observed_s
from serve_app.report.log_reader import LogFile, ReadLine
from serve_app.report.reasons import Reasons
from serve_app.report.slow_frames import SlowestFrames
from serve_app.report.timeline import verdict_place
from serve_app.verdicts import Outcome, VerdictKind

# What a fleet may have of each, and a report still tell apart; the rest is put together. A hundred thousand lines that
# each name another camera must not fill the memory.
MAX_GROUPS = 400
MAX_CAMERAS = 20_000
MAX_PLACES = 5_000
MAX_CLOCKS = 100
MAX_ENTRIES = 20_000
OTHER_CAMERAS = "(other cameras)"

Progress = Callable[[int], None]
"""Told how many bytes were read so far, now and then."""

_TOLD_EACH = 2048


@dataclass(frozen=True, slots=True)
class Placement:
    """Where frames of a size were computed: canvas, model, rung, and whether as tiles."""

    size_hw: SizeHw
    canvas: CanvasShape
    model: str
    rung: int
    is_tiled: bool


@dataclass(slots=True, eq=False)
class LogFigures:
    """What some logs tell.

    Attributes:
        files: what was read.
        clocks: each router of each file, for as long as its clock ran forward.
        has_more_clocks: whether there are more than are told apart.
        observed_s: seconds that the files cover; files ran beside each other, so the longest counts.
        rate_hz: frames a second, of all files together.
        traffic: sizes, priorities and deadlines with their rates, for the planner; empty where no times are known.
        knows_cameras: whether the traffic tells cameras apart.
        groups: by class and size.
        cameras: by name.
        verdicts: frames by class and place in `VERDICTS`.
        placements: finished frames by where they were computed.
        batches: finished frames by (pool, bucket, frames in the batch).
        replicas: finished frames by (pool, replica).
        padded_px, computed_px: of all canvases that were computed.
        reasons: of verdicts other than admit, and of outcomes other than finished.
        slowest: by class.
    """

    files: list[LogFile] = field(default_factory=list)
    clocks: list[LogClock] = field(default_factory=list)
    has_more_clocks: bool = False
    observed_s: float = 0.0
    rate_hz: float = 0.0
    traffic: Traffic = ()
    knows_cameras: bool = True
    groups: dict[GroupKey, FrameGroup] = field(default_factory=dict)
    cameras: dict[str, CameraFigures] = field(default_factory=dict)
    verdicts: Counter[tuple[str, int]] = field(default_factory=Counter)
    placements: Counter[Placement] = field(default_factory=Counter)
    batches: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    replicas: Counter[tuple[str, str]] = field(default_factory=Counter)
    padded_px: float = 0.0
    computed_px: float = 0.0
    reasons: Reasons = field(default_factory=Reasons)
    slowest: dict[str, SlowestFrames] = field(default_factory=lambda: {name: SlowestFrames() for name in CLASSES})

    @property
    def num_frames(self) -> int:
        """Records in all."""
        return sum(file.num_records for file in self.files)

    @property
    def padding_fraction(self) -> float:
        """Share of the computed pixels that showed no frame."""
        return self.padded_px / self.computed_px if self.computed_px else 0.0

    @property
    def mean_batch(self) -> float:
        """Frames a batch, over batches; a frame in tiles counts with its last one's batch."""
        num_batches = sum(count / size for (_, _, size), count in self.batches.items() if size)
        return self.batches.total() / num_batches if num_batches else 0.0

    def own_models(self) -> dict[str, str]:
        """The model that serves each camera at its own rung, where one did."""
        return {name: camera.own_model for name, camera in self.cameras.items() if camera.own_model}

    def class_group(self, lane_class: str) -> FrameGroup:
        """All frames of a class."""
        return FrameGroup.merged(group for (name, _), group in self.groups.items() if name == lane_class)

    def whole(self) -> FrameGroup:
        """All frames."""
        return FrameGroup.merged(self.groups.values())

    def classes(self) -> tuple[str, ...]:
        """Those that have frames."""
        present = {name for name, _ in self.groups}
        return tuple(name for name in CLASSES if name in present)


def read_logs(paths: Iterable[Path], progress: Progress = lambda _: None) -> LogFigures:
    """Read frame logs, each once and line by line.

    Raises:
        FramelaneError: a file cannot be read, or none of them holds a record of a frame.
    """
    figures = LogFigures()
    num_bytes = 0
    for path in paths:
        file = LogFile(path)
        figures.files.append(file)
        _FileReader(figures, file).read(functools.partial(_advanced, progress, num_bytes))
        num_bytes += file.num_bytes
    figures.traffic = merged(figures.traffic)
    if not figures.num_frames:
        names = ", ".join(str(file.path) for file in figures.files)
        foreign = [note for file in figures.files for note in file.foreign[:1]]
        raise FramelaneError(
            f"report: got no frame record in {names}" + (f" ({'; '.join(foreign)})" if foreign else " (empty)")
            + "; allowed is a log with one or more: the file that frame_log names in the plan, or framelane demo's"
        )  # fmt: skip
    return figures


def _advanced(progress: Progress, before_bytes: int, read_bytes: int) -> None:
    progress(before_bytes + read_bytes)


class _FileReader:
    """Adds one file to the figures."""

    def __init__(self, figures: LogFigures, file: LogFile) -> None:
        self._figures = figures
        self._file = file
        self._current: dict[str, LogClock] = {}
        self._clocks: list[LogClock] = []
        self._traffic = TrafficCount(MAX_ENTRIES)
        # Two routers of one machine have one clock: then times of the whole file can be compared after all.
        self._whole = ClockSpan()
        self._is_one_clock = True

    def read(self, progress: Progress) -> None:
        for line in self._file.lines():
            self._add(line)
            if self._file.num_records % _TOLD_EACH == 0:
                progress(self._file.num_bytes)
        progress(self._file.num_bytes)
        over_s = self._whole.seconds if self._is_one_clock else observed_s(self._clocks)
        if over_s > 0:
            figures = self._figures
            figures.traffic = (*figures.traffic, *self._traffic.traffic(over_s))
            figures.knows_cameras = figures.knows_cameras and self._traffic.knows_cameras
            figures.rate_hz += self._file.num_records / over_s
            figures.observed_s = max(figures.observed_s, over_s)

    def _add(self, line: ReadLine) -> None:
        frame, figures = line.frame, self._figures
        # A size or priority that no planner plans for counts nothing there; its times count all the same.
        with contextlib.suppress(InvalidPlanError):
            self._traffic.add("record", line.record)
        self._is_one_clock = self._is_one_clock and self._whole.runs_on(frame)
        self._whole.add(frame)
        clock = self._clock(line)
        if clock is not None:
            if frame.is_finished:
                figures.slowest[frame.lane_class].offer(str(self._file.path), line.number, frame, clock.recent)
            clock.add(line.number, frame)
        _count(figures, frame)

    def _clock(self, line: ReadLine) -> LogClock | None:
        """The clock that this frame is of; None where there are too many to tell apart."""
        clock = self._current.get(line.frame.router)
        if clock is not None and clock.span.runs_on(line.frame):
            return clock
        figures = self._figures
        if len(figures.clocks) >= MAX_CLOCKS:
            figures.has_more_clocks = True
            return None
        clock = LogClock(str(self._file.path), line.frame.router, line.number)
        self._current[line.frame.router] = clock
        self._clocks.append(clock)
        figures.clocks.append(clock)
        return clock


def _count(figures: LogFigures, frame: FrameLine) -> None:
    lane_class = frame.lane_class
    key: GroupKey = (lane_class, frame.size_hw)
    if key not in figures.groups and len(figures.groups) >= MAX_GROUPS:
        key = lane_class, None
    group = figures.groups.get(key)
    if group is None:
        group = figures.groups[key] = FrameGroup()
    group.add(frame)
    _camera(figures, frame.camera).add(frame)
    figures.verdicts[lane_class, verdict_place(frame)] += 1
    if frame.outcome is Outcome.FINISHED:
        _count_finished(figures, frame)
    else:
        figures.reasons.add(frame.outcome.value, frame.error or frame.verdict_reason, frame.camera)
    if frame.verdict is VerdictKind.DEGRADE or frame.verdict is VerdictKind.DEFER:
        figures.reasons.add(frame.verdict.value, frame.verdict_reason, frame.camera)


def _camera(figures: LogFigures, name: str) -> CameraFigures:
    camera = figures.cameras.get(name)
    if camera is None:
        if len(figures.cameras) >= MAX_CAMERAS:
            return figures.cameras.setdefault(OTHER_CAMERAS, CameraFigures())
        camera = figures.cameras[name] = CameraFigures()
    return camera


def _count_finished(figures: LogFigures, frame: FrameLine) -> None:
    if frame.canvas is not None:
        pixels = frame.canvas.num_px * max(1, frame.num_tiles)
        figures.computed_px += pixels
        figures.padded_px += pixels * frame.padding_fraction
        if frame.size_hw is not None:
            place = Placement(frame.size_hw, frame.canvas, frame.model, frame.rung, frame.num_tiles > 0)
            if place in figures.placements or len(figures.placements) < MAX_PLACES:
                figures.placements[place] += 1
    lane, replica = (frame.pool, frame.bucket, frame.batch_size), (frame.pool, frame.replica)
    if lane in figures.batches or len(figures.batches) < MAX_PLACES:
        figures.batches[lane] += 1
    if replica in figures.replicas or len(figures.replicas) < MAX_PLACES:
        figures.replicas[replica] += 1
