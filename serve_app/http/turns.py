"""When requests that are not critical may begin to cost: so a crowd never stands between a critical one and the loop.

A process that has more work than its event loop can do handles every step of every request late, critical ones too,
whatever is decided later about their order. So the others begin only as the loop keeps up; until then they wait here,
where waiting costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from serve_app.frames import Priority

# A critical frame may lose so much to the loop's other work; far below its deadline of a quarter of a second.
MAX_LAG_S = 0.02
TICK_S = 0.05
# Enough to keep a CPU's engines busy even where the loop is always late, as on a crowded machine.
MIN_ACTIVE = 8
# One more a tick while there is room; less by a quarter when the loop is late: so it is found within a second.
STEP = 4
SHRINK = 0.75
# How long a queue must have stood until its pace is believed; a burst that is soon let in is no queue.
MIN_TICKS = 20
# How much one tick counts in the pace.
PACE_WEIGHT = 0.1


class Turns:
    """How many noncritical requests are under way, at most as many as the event loop bears.

    Algorithm: additive increase, multiplicative decrease of the bound, by how late the loop wakes a sleeper.
    Order: first come, first served. Critical requests wait for nobody and take nobody's place.
    Bound: `MIN_ACTIVE` to `max_active` are under way.
    Liveness: `MIN_ACTIVE` always are, however late the loop is.
    """

    def __init__(self, max_active: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Begin with the smallest bound."""
        self._max_active = max(MIN_ACTIVE, max_active)
        self._clock_s = clock_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._watching: asyncio.Task[None] | None = None
        self._num_ticks = 0
        self._num_ended = 0
        self._ended_a_tick = 0.0
        self.num_active = 0
        self.bound = MIN_ACTIVE

    @asynccontextmanager
    async def taken(self, priority: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it for as long as the block lasts."""
        if priority == Priority.CRITICAL.value:
            yield
            return
        await self._begin()
        try:
            yield
        finally:
            self.num_active -= 1
            self._num_ended += 1
            self._let_in()

    def wait_s(self) -> float:
        """How long one that comes now would wait, by the pace of those before it; 0 where there is no lasting queue."""
        if self._num_ticks < MIN_TICKS or not self._ended_a_tick:
            return 0.0
        return len(self._waiting) / self._ended_a_tick * TICK_S

    def heard(self, lag_s: float) -> None:
        """A tick has passed and the loop was so late; change the bound, and let in whom it has room for."""
        self._keep_pace(TICK_S + lag_s)
        if lag_s > MAX_LAG_S:
            self.bound = max(MIN_ACTIVE, int(self.bound * SHRINK))
        elif self._waiting:
            self.bound = min(self._max_active, self.bound + STEP)
        self._let_in()

    def _keep_pace(self, tick_s: float) -> None:
        ended, self._num_ended = self._num_ended * TICK_S / tick_s, 0
        if not self._waiting:
            self._num_ticks, self._ended_a_tick = 0, 0.0
            return
        self._num_ticks += 1
        # The mean of all ticks at first, of the last ones later.
        self._ended_a_tick += max(PACE_WEIGHT, 1 / self._num_ticks) * (ended - self._ended_a_tick)

    async def _begin(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        if self.num_active < self.bound and not self._waiting:
            self.num_active += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn had come in the same moment
                self.num_active -= 1
                self._let_in()
            raise

    def _let_in(self) -> None:
        while self._waiting and self.num_active < self.bound:
            turn = self._waiting.popleft()
            if not turn.done():  # else its caller has gone
                self.num_active += 1
                turn.set_result(None)

    async def _watch(self) -> None:
        """Listen to the loop for as long as somebody is under way."""
        while self.num_active or self._waiting:
            began_s = self._clock_s()
            await asyncio.sleep(TICK_S)
            self.heard(self._clock_s() - began_s - TICK_S)
