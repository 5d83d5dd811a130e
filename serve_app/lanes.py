"""One lane: the frames of one canvas and one priority that wait, earliest deadline first."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from serve_app.frames import Frame


class Lane:
    """An earliest-deadline-first heap with removal by id.

    Order: deadline, then arrival. Adding and popping take O(log n); a removed frame leaves its heap entry behind, which
    is dropped when it reaches the top, so removal is O(1) and the heap holds at most the frames ever added.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str]] = []
        self._waiting: dict[str, Frame] = {}
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._waiting.values())

    def add(self, frame: Frame) -> None:
        """Put a frame in; its id must not be waiting here."""
        if frame.frame_id in self._waiting:
            raise ValueError(f"frame {frame.frame_id}: waits in this lane already")
        self._waiting[frame.frame_id] = frame
        heapq.heappush(self._heap, (frame.deadline_s, next(self._order), frame.frame_id))

    def remove(self, frame_id: str) -> Frame | None:
        """Take a frame out wherever it stands; None if it does not wait here."""
        return self._waiting.pop(frame_id, None)

    def first(self) -> Frame | None:
        """The most urgent frame, which stays; None if the lane is empty."""
        while self._heap and self._heap[0][2] not in self._waiting:
            heapq.heappop(self._heap)
        return self._waiting[self._heap[0][2]] if self._heap else None

    def pop(self) -> Frame:
        """Take the most urgent frame out.

        Raises:
            IndexError: the lane is empty.
        """
        frame = self.first()
        if frame is None:
            raise IndexError("pop from an empty lane")
        heapq.heappop(self._heap)
        del self._waiting[frame.frame_id]
        return frame

    def pop_expired(self, now_s: float) -> list[Frame]:
        """Take out every frame whose deadline has passed."""
        expired = []
        while (frame := self.first()) is not None and frame.deadline_s <= now_s:
            expired.append(self.pop())
        return expired
