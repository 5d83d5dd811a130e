"""When a camera's next frame is due, and which frames a cap lets pass. Pure."""

from __future__ import annotations

# Cameras are not punctual: a frame that comes by this share of a period too early still counts as due.
EARLY_FRACTION = 0.25


class RateCap:
    """At most so many frames a second; which ones pass depends on their own times alone."""

    def __init__(self, max_fps: float | None) -> None:
        """Take the cap; None: all pass."""
        self._period_s = None if max_fps is None else 1.0 / max_fps
        self._due_s: float | None = None

    def passes(self, at_s: float) -> bool:
        """Whether the frame of this time is taken; call once a frame, in their order."""
        if self._period_s is None:
            return True
        if self._due_s is not None and at_s < self._due_s - EARLY_FRACTION * self._period_s:
            return False
        # On the grid while frames keep up with it, so that the mean rate is the cap; anew after a pause.
        is_late = self._due_s is None or at_s > self._due_s + self._period_s
        self._due_s = (at_s if is_late or self._due_s is None else self._due_s) + self._period_s
        return True


class PlayClock:
    """When to show a file's frames: at a rate, or at the times that stand in the file."""

    def __init__(self, began_s: float, fps: float | None) -> None:
        """Take the moment of the first frame, and the rate; None: the file's own times."""
        self._began_s = began_s
        self._fps = fps

    def due_s(self, index: int, at_s: float) -> float:
        """When the frame of this index and this time in the file is due."""
        return self._began_s + (at_s if self._fps is None else index / self._fps)
