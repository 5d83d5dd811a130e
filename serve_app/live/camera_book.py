"""What a router remembers of its cameras, of the ways that frames went and of how long they took.

It costs 4 µs a frame (measured on a 2-core machine), and is bounded whatever clients say: cameras and sizes are words
of theirs.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from serve_app.lane_key import LaneClass
from serve_app.live.live_report import CameraSeen, FlowKey
from serve_app.live.spread import Spread, SpreadCount
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome, VerdictKind

# A router serves about 100 frames a second: more cameras than that send less than a frame a second each.
MAX_CAMERAS = 256
# Plans have a dozen canvases, and cameras as many sizes.
MAX_FLOWS = 256
MAX_NAME_CHARS = 120
OTHER_SIZE = (0, 0)
LANES = tuple(lane_class.name.lower() for lane_class in LaneClass)
CRITICAL, NORMAL, DEFERRED = LANES

FINISHED, DEFER = Outcome.FINISHED, VerdictKind.DEFER


def shown_name(camera: object) -> str:
    """A camera's name as pages know it: a text of bounded length."""
    name = camera if isinstance(camera, str) else str(camera)
    return name if len(name) <= MAX_NAME_CHARS else f"{name[: MAX_NAME_CHARS - 1]}…"


def lane_of(result: FrameResult) -> str:
    """The class that a frame waited in."""
    if result.priority == CRITICAL:
        return CRITICAL
    return DEFERRED if result.verdict is not None and result.verdict.kind is DEFER else NORMAL


@dataclass(slots=True)
class _Camera:
    """The last frame of a camera, when it ended, what its last finished one took, and counts."""

    last: FrameResult
    at_s: float
    total_s: float | None = None
    num_ended: int = 0
    num_finished: int = 0


class CameraBook:
    """Takes every result of a router. Of more cameras than it may remember, those that were silent longest go."""

    def __init__(self, max_cameras: int = MAX_CAMERAS, max_flows: int = MAX_FLOWS) -> None:
        """Take the bounds."""
        self._max_cameras, self._max_flows = max_cameras, max_flows
        self._cameras: OrderedDict[str, _Camera] = OrderedDict()
        self._flows: Counter[FlowKey] = Counter()
        self._total_s = {lane: SpreadCount() for lane in LANES}
        self._queue_s = {lane: SpreadCount() for lane in LANES}

    def ended(self, result: FrameResult, now_s: float) -> None:
        """A frame has ended, in whatever way."""
        name = shown_name(result.camera)
        camera = self._cameras.get(name)
        if camera is None:
            camera = self._cameras[name] = _Camera(result, now_s)
            if len(self._cameras) > self._max_cameras:
                self._cameras.popitem(last=False)
        else:
            self._cameras.move_to_end(name)
        camera.last, camera.at_s = result, now_s
        camera.num_ended += 1
        if result.outcome is FINISHED:
            camera.num_finished += 1
            camera.total_s = result.times.total_s
            lane = lane_of(result)
            self._total_s[lane].add(result.times.total_s)
            self._queue_s[lane].add(result.times.queue_s)
            self._went(result)

    def _went(self, result: FrameResult) -> None:
        if result.canvas is None or result.bucket is None or result.pool is None:
            return
        is_tiled = result.num_tiles > 0
        key = FlowKey(result.size_hw, result.canvas, result.bucket, result.pool, is_tiled)
        if key not in self._flows and len(self._flows) >= self._max_flows:
            key = FlowKey(OTHER_SIZE, result.canvas, result.bucket, result.pool, is_tiled)
        self._flows[key] += 1

    def cameras(self, now_s: float) -> tuple[CameraSeen, ...]:
        """All that it remembers, by name."""
        return tuple(_seen(name, camera, now_s) for name, camera in sorted(self._cameras.items()))

    def flows(self) -> dict[FlowKey, int]:
        """Finished frames so far, by the way that they went."""
        return dict(self._flows)

    def total_s(self) -> dict[str, Spread]:
        """Finished frames so far by lane class: from receipt to answer."""
        return {lane: count.spread() for lane, count in self._total_s.items()}

    def queue_s(self) -> dict[str, Spread]:
        """Finished frames so far by lane class: what of that was waiting."""
        return {lane: count.spread() for lane, count in self._queue_s.items()}


def _seen(name: str, camera: _Camera, now_s: float) -> CameraSeen:
    last = camera.last
    return CameraSeen(
        name, _word(last.priority), _size(last.size_hw), last.outcome.value, last.verdict.kind.value if last.verdict
        else "", last.pool, last.bucket, last.model, last.canvas, last.rung, last.num_tiles, len(last.detections),
        camera.total_s, now_s - camera.at_s, camera.num_ended, camera.num_finished,
    )  # fmt: skip


def _word(priority: object) -> str:
    """The priority, unless a refused frame carries something else."""
    return priority if isinstance(priority, str) and priority in LANES else "other"


def _size(size_hw: object) -> tuple[int, int]:
    """The size, unless a refused frame carries something else."""
    is_pair = isinstance(size_hw, tuple) and len(size_hw) == 2 and all(isinstance(side, int) for side in size_hw)
    return (int(size_hw[0]), int(size_hw[1])) if is_pair else OTHER_SIZE  # type: ignore[index]
