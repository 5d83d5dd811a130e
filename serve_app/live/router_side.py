"""A router's side of the live page: what it remembers of frames, and its answer to a page that asks."""

from __future__ import annotations

from typing import Generic, TypeVar

from serve_app.live.camera_book import CameraBook
from serve_app.live.last_frames import MAX_BYTES, LastFrames
from serve_app.live.live_report import LiveAsk, LiveReport
from serve_app.results import FrameResult

# Of what may wait in the object store, last frames take no more than this share beside it.
SHARE_OF_WAITING = 0.125

RefT = TypeVar("RefT")


class RouterSide(Generic[RefT]):
    """Takes what ends, answers pages. It reads no clock and fetches no pixels."""

    def __init__(self, max_waiting_bytes: int) -> None:
        """Take how many bytes of frames may wait."""
        self._book = CameraBook()
        self._last: LastFrames[RefT] = LastFrames(max_bytes=min(MAX_BYTES, int(SHARE_OF_WAITING * max_waiting_bytes)))

    def ended(self, result: FrameResult, now_s: float) -> None:
        """A frame has ended, in whatever way."""
        self._book.ended(result, now_s)

    def keep(self, result: FrameResult, ref: RefT, num_bytes: int, now_s: float) -> None:
        """These are the pixels of a frame that has ended."""
        self._last.keep(result, ref, num_bytes, now_s)

    def tick(self, now_s: float) -> None:
        """To be called about once a second: pixels go when nobody watches any more."""
        self._last.tick(now_s)

    def answer(self, router: str, ask: LiveAsk, now_s: float) -> tuple[LiveReport, list[RefT]]:
        """What a page gets, and refs to the pixels of its frames."""
        frames = self._last.ask(ask, now_s)
        book = self._book
        report = LiveReport(
            router, book.cameras(now_s), book.flows(), book.total_s(), book.queue_s(), tuple(seen for seen, _ in frames)
        )
        return report, [ref for _, ref in frames]
