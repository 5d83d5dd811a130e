"""One lane: the frames of one canvas and one priority that wait, earliest deadline first."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from serve_app.frames import Frame


class Lane:
    """An earliest-deadline-first heap with removal by id.

    Order: deadline, then arrival. Adding and popping take O(log n). A removed frame leaves its heap entry behind, which
    is dropped when it reaches the top, or with all others of its kind when a removal finds them to be most of the heap:
    so removal takes O(1) on average, and what is left behind never outgrows what waited. An entry counts only with its
    own order number, so that an id may come back with another deadline.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str]] = []
        self._waiting: dict[str, tuple[int, Frame]] = {}
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Frame]:
        return (frame for _, frame in self._waiting.values())

    def add(self, frame: Frame) -> None:
        """Put a frame in; its id must not be waiting here."""
        if frame.frame_id in self._waiting:
            raise ValueError(f"frame {frame.frame_id}: waits in this lane already")
        order = next(self._order)
        self._waiting[frame.frame_id] = order, frame
        heapq.heappush(self._heap, (frame.deadline_s, order, frame.frame_id))

    def remove(self, frame_id: str) -> Frame | None:
        """Take a frame out wherever it stands; None if it does not wait here."""
        if frame_id not in self._waiting:
            return None
        _, removed = self._waiting.pop(frame_id)
        if len(self._heap) > 2 * len(self._waiting):
            self._heap = [(frame.deadline_s, order, frame.frame_id) for order, frame in self._waiting.values()]
            heapq.heapify(self._heap)
        return removed

    def first(self) -> Frame | None:
        """The most urgent frame, which stays; None if the lane is empty."""
        while self._heap:
            _, order, frame_id = self._heap[0]
            entry = self._waiting.get(frame_id)
            if entry is not None and entry[0] == order:
                return entry[1]
            heapq.heappop(self._heap)
        return None

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
