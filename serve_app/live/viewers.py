"""Who watches the page: a bounded queue each, so that a slow one holds back nobody and misses old news first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.errors import FramelaneError

# Each object is the whole page: a viewer who lags needs the newest only.
MAX_QUEUED = 2
RETRY_S = 5.0
# Events in a row that a viewer did not take: half a minute of them, after which nobody sits there any more.
MAX_MISSED = 30


class TooManyViewersError(FramelaneError):
    """As many people watch as may."""

    http_status = 503


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the stream: its number, its kind and the JSON object that it carries."""

    number: int
    kind: str
    content: dict[str, object]


class Viewer:
    """One open page.

    Attributes:
        may_see: whether it may see a camera of this name; None: all of them.
        num_missed: events in a row that made room for newer ones.
        is_here: whether it still takes some.
    """

    def __init__(self, may_see: Callable[[str], bool] | None = None) -> None:
        """Take whether it may see a camera of this name; None: all of them."""
        self._queue: asyncio.Queue[Event] = asyncio.Queue(MAX_QUEUED)
        self.may_see = may_see
        self.num_missed = 0
        self.is_here = True

    def tell(self, event: Event) -> None:
        """Put an event into its queue, in place of the oldest one if that is full; who never takes any has gone."""
        if self._queue.full():
            self._queue.get_nowait()
            self.num_missed += 1
            self.is_here = self.num_missed <= MAX_MISSED
        self._queue.put_nowait(event)

    async def next(self, timeout_s: float) -> Event | None:
        """The next event; None: nothing came in time."""
        try:
            event = await asyncio.wait_for(self._queue.get(), timeout_s)
        except asyncio.TimeoutError:
            return None
        self.num_missed = 0
        return event
