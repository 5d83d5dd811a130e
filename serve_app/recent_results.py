"""How the last frames of a router ended, for callers that ask a second time: once answered, never served twice."""

from __future__ import annotations

from collections import OrderedDict

from serve_app.results import FrameResult

# A caller whose call broke asks again within milliseconds, or when its network is back.
MAX_AGE_S = 10.0
# A few kilobytes each; more than a router answers while a broken call is tried again.
MAX_RESULTS = 2000


class RecentResults:
    """Keeps results by frame id, so many and for so long; the oldest leave first. Adding and finding take O(1)."""

    def __init__(self, max_results: int = MAX_RESULTS, max_age_s: float = MAX_AGE_S) -> None:
        """Take both bounds."""
        self._max_results = max_results
        self._max_age_s = max_age_s
        self._kept: OrderedDict[str, tuple[float, FrameResult]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, result: FrameResult, now_s: float) -> None:
        """A frame ended; of an id that ended before, only this result is kept."""
        self._kept[result.frame_id] = now_s, result
        self._kept.move_to_end(result.frame_id)
        while self._kept and (len(self._kept) > self._max_results or self._is_old(next(iter(self._kept)), now_s)):
            self._kept.popitem(last=False)

    def find(self, frame_id: str, now_s: float) -> FrameResult | None:
        """How a frame of this id ended; None if none did of late."""
        return self._kept[frame_id][1] if frame_id in self._kept and not self._is_old(frame_id, now_s) else None

    def _is_old(self, frame_id: str, now_s: float) -> bool:
        return now_s - self._kept[frame_id][0] > self._max_age_s
