"""Between a camera's thread and the event loop: at most one frame, and the gaps around it, in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from engines.letterbox import Image
from serve_app.streams.stream_values import Gap, GapCause, StreamFrame

# While nobody takes anything, gaps of changing causes pile up; beyond so many, neighbours are joined.
MAX_GAPS = 32
NOT_TAKEN = GapCause.SUPERSEDED, "a newer frame came while it waited here"


class Mailbox:
    """One camera's next frame.

    It numbers frames: each number is given to one frame, or lies in one gap. One thread puts, the event loop takes.
    With `keeps_latest` a frame that still lies here gives way to a newer one; otherwise whoever puts must wait.
    """

    def __init__(
        self,
        camera: str,
        *,
        keeps_latest: bool,
        wake: Callable[[], None],
        why_waiting: Callable[[], tuple[GapCause, str]] = lambda: NOT_TAKEN,
    ) -> None:
        """Take whose it is, what to call when there is something to take, and whom to ask why a frame had to wait.

        Both are called by the thread that puts.
        """
        self._camera = camera
        self._keeps_latest = keeps_latest
        self._wake = wake
        self._items: deque[StreamFrame | Gap] = deque()
        self._free = threading.Condition()
        self._next_number = 0
        self._is_closed = False
        self._is_ended = False
        self._why_waiting = why_waiting

    @property
    def num_read(self) -> int:
        """Frames that were put, or reported as lost."""
        return self._next_number

    def put_frame(self, image_hwc: Image, at_s: float) -> bool:
        """Leave a frame; waits for room unless newer ones replace older ones. False: it was closed meanwhile."""
        with self._free:
            if self._keeps_latest:
                self._replace_waiting()
            else:
                self._free.wait_for(lambda: self._is_closed or not self._has_frame())
            if self._is_closed:
                return False
            self._items.append(StreamFrame(self._camera, self._next_number, at_s, image_hwc))
            self._next_number += 1
        self._wake()
        return True

    def put_gap(self, cause: GapCause, reason: str, num_frames: int) -> None:
        """Leave word that frames are missing here; a number each."""
        with self._free:
            if self._is_closed:
                return
            self._append_gap(Gap(self._camera, self._next_number, num_frames, cause, reason))
            self._next_number += num_frames
        self._wake()

    def end(self) -> None:
        """Nothing more will be put."""
        with self._free:
            self._is_ended = True
        self._wake()

    def close(self) -> None:
        """Take nothing more; whoever waits for room goes on. What lies here can still be taken."""
        with self._free:
            self._is_closed = self._is_ended = True
            self._free.notify_all()
        self._wake()

    def take(self) -> StreamFrame | Gap | None:
        """The oldest item; None if there is none."""
        with self._free:
            if not self._items:
                return None
            item = self._items.popleft()
            self._free.notify_all()
            return item

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing lies here and nothing more will come."""
        with self._free:
            return self._is_ended and not self._items

    def _has_frame(self) -> bool:
        return any(isinstance(item, StreamFrame) for item in self._items)

    def _replace_waiting(self) -> None:
        """The frame that waits becomes a gap in its place."""
        items, self._items = self._items, deque()
        cause, reason = self._why_waiting()
        for item in items:
            if isinstance(item, StreamFrame):
                self._append_gap(Gap(self._camera, item.number, 1, cause, reason))
            else:
                self._append_gap(item)

    def _append_gap(self, gap: Gap) -> None:
        last = self._items[-1] if self._items else None
        is_same = isinstance(last, Gap) and last.cause is gap.cause and (gap.num_frames > 0) == (last.num_frames > 0)
        if isinstance(last, Gap) and (is_same or len(self._items) >= MAX_GAPS):
            self._items[-1] = last.joined(gap)
        else:
            self._items.append(gap)
