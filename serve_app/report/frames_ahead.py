"""What was served while a frame waited, as far as its log tells. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.report.frame_line import STAGES, FrameLine

# Records that are looked back at: some seconds of a busy router, half a MiB.
WINDOW = 512

QUEUE, TRANSFER, PREPROCESS, INFER, POSTPROCESS = range(len(STAGES))


@dataclass(frozen=True, slots=True)
class FramesAhead:
    """Frames of the same pool and router that were answered while one waited for its batch.

    Attributes:
        num_frames: how many.
        num_batches: in how many batches.
        num_later: those of them that came after it, and so overtook it.
        by_class: how many of each class.
        longest: the one whose batch ran longest; None: there is none.
        reaches_back: whether the records that were kept go back to when it came; if not, there may have been more.
    """

    num_frames: int
    num_batches: int
    num_later: int
    by_class: Mapping[str, int]
    longest: FrameLine | None
    reaches_back: bool


class RecentFrames:
    """The last records of one router, in the order in which they ended."""

    def __init__(self) -> None:
        """Start with none."""
        self._frames: deque[tuple[float, float, FrameLine]] = deque(maxlen=WINDOW)
        self._has_dropped = False

    def add(self, frame: FrameLine) -> None:
        """Take a frame that a replica answered."""
        if frame.at_s is not None and frame.is_finished:
            self._has_dropped = self._has_dropped or len(self._frames) == WINDOW
            self._frames.append((frame.at_s, frame.at_s + frame.total_s, frame))

    def ahead_of(self, frame: FrameLine) -> FramesAhead | None:
        """What was answered while this one waited; None if its log has no times."""
        if frame.at_s is None:
            return None
        # Another one's answer travelled back after its run had ended, and this one's pixels travelled before its own.
        begun_s = frame.at_s + frame.stages_s[QUEUE] + frame.stages_s[TRANSFER]
        own_batch = _batch_of(frame)
        ahead = [
            (came_s, other)
            for came_s, ended_s, other in self._frames
            if frame.at_s < ended_s
            and ended_s - other.stages_s[TRANSFER] - other.stages_s[POSTPROCESS] <= begun_s
            and other.pool == frame.pool
            and _batch_of(other) != own_batch
        ]
        return FramesAhead(
            num_frames=len(ahead),
            num_batches=len({_batch_of(other) for _, other in ahead}),
            num_later=sum(came_s > frame.at_s for came_s, _ in ahead),
            by_class=Counter(other.lane_class for _, other in ahead),
            longest=max((other for _, other in ahead), key=lambda other: other.stages_s[INFER], default=None),
            reaches_back=not self._has_dropped or self._frames[0][1] <= frame.at_s,
        )


def _batch_of(frame: FrameLine) -> tuple[object, ...]:
    """What frames of one batch have in common, and others hardly ever: its times are measured once for all."""
    return frame.replica, frame.canvas, frame.batch_size, frame.stages_s[PREPROCESS:]
