"""The slowest frame of each camera, for the cameras where that was slowest. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.report.frame_line import FrameLine
from serve_app.report.frames_ahead import FramesAhead, RecentFrames

# Of each class: enough to see whether they have one cause.
MAX_FRAMES = 4


@dataclass(frozen=True, slots=True)
class SlowFrame:
    """One slow frame.

    Attributes:
        file, line: where its record stands.
        frame: the record.
        ahead: what was served while it waited; None: its log does not tell.
    """

    file: str
    line: int
    frame: FrameLine
    ahead: FramesAhead | None


class SlowestFrames:
    """Keeps the slowest finished frames of one class, at most one a camera: ten of one camera tell no more than one."""

    def __init__(self, max_frames: int = MAX_FRAMES) -> None:
        """Take how many are kept."""
        self._max_frames = max_frames
        self._by_camera: dict[str, SlowFrame] = {}
        self._least_s = 0.0

    def offer(self, file: str, line: int, frame: FrameLine, recent: RecentFrames) -> None:
        """Keep a finished frame if it is among the slowest; `recent` is what its router answered before it."""
        kept = self._by_camera
        is_full = len(kept) == self._max_frames
        if is_full and frame.total_s <= self._least_s:
            return
        same = kept.get(frame.camera)
        if same is not None and frame.total_s <= same.frame.total_s:
            return
        if same is None and is_full:
            # Whoever leaves comes back with a slower frame only, since the least of the kept ones never falls.
            del kept[min(kept, key=lambda camera: kept[camera].frame.total_s)]
        kept[frame.camera] = SlowFrame(file, line, frame, recent.ahead_of(frame))
        self._least_s = min(slow.frame.total_s for slow in kept.values())

    def frames(self) -> tuple[SlowFrame, ...]:
        """The slowest first."""
        return tuple(sorted(self._by_camera.values(), key=lambda slow: -slow.frame.total_s))
