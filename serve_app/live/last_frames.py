"""The last finished frame of each camera, kept only while a page watches: which a router holds, and when it lets go.

It knows nothing of refs but that holding one keeps pixels in the object store.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve_app.live.camera_book import shown_name
from serve_app.live.live_report import FrameSeen, LiveAsk
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome

# As many pictures as a wall shows, and full-HD frames of half of them.
MAX_FRAMES = 64
MAX_BYTES = 128 * 1024**2
# A page in several processes asks from each of them.
MAX_WATCHERS = 16
# Longer than any page needs between two questions: a page that has died pins nothing for longer.
MAX_LEASE_S = 30.0
# Of so many rounds of cameras it is known when they were told last; names are clients' words, and must not pile up.
TURNS = 8

RefT = TypeVar("RefT")


@dataclass(slots=True)
class _Kept(Generic[RefT]):
    """A frame, and the pixels that it keeps."""

    seen: FrameSeen
    ref: RefT


class LastFrames(Generic[RefT]):
    """Keeps a ref to the last frame of each camera, so many and so many bytes, as long as a lease runs.

    When there is no room for a camera, the one that was told last makes room for it: so all take turns. Adding takes
    O(1), with full room O(frames), which are few.
    """

    def __init__(self, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_BYTES) -> None:
        """Take the bounds."""
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._kept: dict[str, _Kept[RefT]] = {}
        self._told_s: dict[str, float] = {}
        self._until_s: dict[str, float] = {}
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, result: FrameResult, ref: RefT, num_bytes: int, now_s: float) -> None:
        """A frame has ended with these pixels; kept if it finished and somebody watches."""
        if not self._until_s or result.outcome is not Outcome.FINISHED:
            return
        if now_s >= max(self._until_s.values()):
            self.tick(now_s)
            return
        camera = shown_name(result.camera)
        self._forget(camera)
        if num_bytes > self._max_bytes or not self._has_made_room(camera, num_bytes):
            return
        seen = FrameSeen(camera, result.frame_id, num_bytes, result.detections, result.class_names)
        self._kept[camera] = _Kept(seen, ref)
        self.num_bytes += num_bytes

    def ask(self, ask: LiveAsk, now_s: float) -> list[tuple[FrameSeen, RefT]]:
        """A page asks, or says that it stops: frames that it does not show yet, first those told longest ago."""
        if ask.lease_s > 0:
            self._until_s[ask.watcher] = now_s + min(ask.lease_s, MAX_LEASE_S)
            while len(self._until_s) > MAX_WATCHERS:
                del self._until_s[min(self._until_s, key=lambda watcher: self._until_s[watcher])]
        else:
            self._until_s.pop(ask.watcher, None)
        self.tick(now_s)
        if ask.lease_s <= 0:
            return []
        fresh = [camera for camera, kept in self._kept.items() if ask.known.get(camera) != kept.seen.frame_id]
        fresh.sort(key=lambda camera: self._told_s.get(camera, -math.inf))
        told = fresh[: ask.max_frames]
        for camera in told:
            self._told_s.pop(camera, None)  # so that the oldest come first
            self._told_s[camera] = now_s
        for camera in list(self._told_s)[: -self._max_frames * TURNS]:
            del self._told_s[camera]
        return [(self._kept[camera].seen, self._kept[camera].ref) for camera in told]

    def tick(self, now_s: float) -> None:
        """Let go of everything when the last lease is over; to be called about once a second."""
        self._until_s = {watcher: until_s for watcher, until_s in self._until_s.items() if until_s > now_s}
        if not self._until_s:
            self._kept.clear()
            self._told_s.clear()
            self.num_bytes = 0

    def _has_made_room(self, camera: str, num_bytes: int) -> bool:
        """Whether there is room now, if need be by forgetting cameras that were told after this one was."""
        mine_s = self._told_s.get(camera, -math.inf)
        while len(self._kept) >= self._max_frames or self.num_bytes + num_bytes > self._max_bytes:
            latest = max(self._kept, key=lambda other: self._told_s.get(other, -math.inf))
            if self._told_s.get(latest, -math.inf) <= mine_s:
                return False
            self._forget(latest)
        return True

    def _forget(self, camera: str) -> None:
        kept = self._kept.pop(camera, None)
        if kept is not None:
            self.num_bytes -= kept.seen.num_bytes
