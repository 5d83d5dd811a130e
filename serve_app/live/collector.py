"""One collector for all who watch: looks once a second while there are any, and rests otherwise."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from serve_app.errors import FramelaneError
from serve_app.live.numbers import Numbers
from serve_app.live.pictures import Picture, Pictures, key_of
from serve_app.live.source import LiveSource
from serve_app.live.viewers import RETRY_S, Event, TooManyViewersError, Viewer

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
# A look asks the routers and Serve, each of which has a limit of its own.
LOOK_TIMEOUT_S = 15.0
# A control room; each costs some KB a second.
MAX_VIEWERS = 32
# A page that is loaded anew leaves and joins within this.
LINGER_S = 2.0
# Of several processes that serve HTTP one has the line to a viewer, and another may be asked for a picture: it looks as
# well, as long as it is asked.
ASKED_LINGER_S = 5.0
# 2 ms each: so many a second are a sixteenth of a core, and each of 60 cameras has its turn every two seconds.
MAX_PICTURES_A_LOOK = 32


class Collector:
    """Looks at a source for all viewers. Everything happens in one event loop."""

    def __init__(
        self,
        source: LiveSource,
        *,
        every_s: float = LOOK_INTERVAL_S,
        max_viewers: int = MAX_VIEWERS,
        linger_s: float = LINGER_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what to look at, how often, for how many, how long to go on without any, and a monotonic clock."""
        self._source = source
        self._every_s = every_s
        self._max_viewers = max_viewers
        self._linger_s = linger_s
        self._clock_s = clock_s
        self._viewers: set[Viewer] = set()
        self._work: asyncio.Task[None] | None = None
        self._numbers = Numbers(key_of)
        self._pictures = Pictures()
        self._last: Event | None = None
        self._joined = asyncio.Event()
        self._asked_s = float("-inf")
        # Numbers of events mean nothing to another process.
        self._epoch = uuid.uuid4().hex[:8]
        self._number = 0

    @property
    def is_resting(self) -> bool:
        """Whether it looks at nothing, since nobody watches."""
        return self._work is None

    @property
    def num_viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    def join(self, may_see: Callable[[str], bool] | None = None, last_event_id: str = "") -> Viewer:
        """Let somebody watch, who then must `leave`. The first event says hello, with what was missed of the charts.

        Args:
            may_see: whether this viewer may see a camera; None: all of them.
            last_event_id: what the browser got last, before its line broke.

        Raises:
            TooManyViewersError: there is no room.
        """
        if len(self._viewers) >= self._max_viewers:
            raise TooManyViewersError(
                f"live page: {len(self._viewers)} watch already, allowed are {self._max_viewers}; close one, or try "
                f"again in {RETRY_S:g} s",
                RETRY_S,
            )
        viewer = Viewer(may_see)
        self._viewers.add(viewer)
        viewer.tell(self._hello(last_event_id))
        if self._last is not None:
            viewer.tell(self._last)
        self._begin()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Somebody has gone."""
        self._viewers.discard(viewer)

    def picture(self, key: str) -> Picture | None:
        """The picture of a camera by its key; None: there is none, but there may be one in a second."""
        self._asked_s = self._clock_s()
        self._begin()
        return self._pictures.find(key)

    def event_id(self, event: Event) -> str:
        """What the browser says back to go on from here."""
        return f"{self._epoch}-{event.number}"

    async def close(self) -> None:
        """Stop looking, whoever watches; pixels are let go."""
        self._viewers.clear()
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    def _begin(self) -> None:
        """Look from now on, if it rests."""
        self._joined.set()
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._collect())

    def _hello(self, last_event_id: str) -> Event:
        """The charts' points that came after an event of ours; of another process all that there are."""
        epoch, _, number = last_event_id.partition("-")
        seen = int(number) if epoch == self._epoch and number.isdecimal() else 0
        history = [point for point in self._numbers.history if point["number"] > seen]
        content: dict[str, Any] = {
            "epoch": self._epoch,
            "now_s": round(self._clock_s(), 3),
            "every_s": self._every_s,
            "goes_on": bool(seen),
            "history": history,
        }
        return Event(self._number, "hello", content)

    async def _collect(self) -> None:
        try:
            while await self._is_watched():
                begun_s = self._clock_s()
                self._tell(await self._looked())
                await asyncio.sleep(max(0.05, self._every_s - (self._clock_s() - begun_s)))
        finally:
            self._work = None
            self._last = None
            self._pictures.clear()
            try:
                await asyncio.wait_for(self._source.rest(), LOOK_TIMEOUT_S)
            except Exception as err:  # leases end by themselves
                logger.info("live page: resting could not be told: %r", err)

    async def _is_watched(self) -> bool:
        """Whether somebody watches, or comes within moments."""
        self._joined.clear()
        if self._viewers or self._clock_s() - self._asked_s < ASKED_LINGER_S:
            return True
        try:
            await asyncio.wait_for(self._joined.wait(), self._linger_s)
        except asyncio.TimeoutError:
            return False
        return True

    async def _looked(self) -> tuple[str, dict[str, Any]]:
        """One look as the page gets it, or why there is none."""
        try:
            known = self._pictures.known()
            look = await asyncio.wait_for(self._source.look(known, MAX_PICTURES_A_LOOK), LOOK_TIMEOUT_S)
            await self._pictures.make(look.frames)
            shown = self._numbers.taken(
                self._source.plan, look.view, look.reports, self._pictures.known(), self._clock_s()
            )
        except FramelaneError as err:
            return "away", {"why": str(err)}
        except Exception as err:  # the page must outlive whatever it looks at
            logger.exception("live page: a look failed")
            return "away", {"why": f"the service could not be looked at ({type(err).__name__}); see the log"}
        return "numbers", shown

    def _tell(self, told: tuple[str, dict[str, Any]]) -> None:
        kind, content = told
        self._number += 1
        content["num_viewers"] = len(self._viewers)
        content["now_s"] = round(self._clock_s(), 3)
        if kind == "numbers":
            content["point"]["number"] = self._number
        self._last = Event(self._number, kind, content)
        for viewer in self._viewers:
            viewer.tell(self._last)
        self._viewers = {viewer for viewer in self._viewers if viewer.is_here}
