"""Knows the replicas of each pool by asking them: once a second, those that answer their report are ready.

Only replicas of the router's own revision count: others load other models. See `lingering.py` for those that Serve is
stopping already.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.serve.handle import DeploymentHandle

from serve_app.direct_calls import ReplicaLine
from serve_app.lingering import Lingering
from serve_app.results import ReplicaReport

logger = logging.getLogger(__name__)

# How often replicas are counted; a dead one is noticed earlier, by its failed batch.
REPORT_INTERVAL_S = 1.0
# A replica that is busy answers its report at once (it is not queued), so this long means gone.
REPORT_TIMEOUT_S = 5.0
# For how long a replica that Serve is stopping waits for the next question of a router that still uses it.
STAY_S = 3.0


class ReplicaWatch:
    """Keeps the latest reports of every pool, a line to each replica, and says when they may have changed."""

    def __init__(
        self,
        pools: Mapping[str, DeploymentHandle[Any]],
        on_reports: Callable[[str, tuple[ReplicaReport, ...]], None],
        *,
        revision: int = 0,
        lingering: Mapping[str, Lingering] | None = None,
    ) -> None:
        """Take the pools and whom to tell of their replicas.

        Args:
            pools: a handle for each.
            on_reports: is told (pool, reports of the replicas that are ready) every round.
            revision: of the replicas that count.
            lingering: for each pool which replicas stay in use that Serve is stopping; None: none does.
        """
        self._pools = dict(pools)
        self._on_reports = on_reports
        self._reports: dict[str, tuple[ReplicaReport, ...]] = dict.fromkeys(self._pools, ())
        self._lines: dict[str, dict[str, ReplicaLine]] = {pool: {} for pool in self._pools}
        self._revision = revision
        self._lingering = lingering or {}
        self._others: dict[str, int] = dict.fromkeys(self._pools, 0)
        self._counted = {pool: asyncio.Event() for pool in self._pools}
        self._tasks: list[asyncio.Task[None]] = []
        self._stays: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to ask, in the running event loop; calling it again does nothing."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._watch(pool)) for pool in self._pools]

    async def counted(self) -> None:
        """Wait until every pool has been counted once, or for as long as a report may take."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(each.wait() for each in self._counted.values())), REPORT_TIMEOUT_S)

    def reports(self, pool: str) -> tuple[ReplicaReport, ...]:
        """What the replicas of a pool last said of themselves, by name."""
        return self._reports[pool]

    def num_others(self, pool: str) -> int:
        """How many replicas of a pool, of those that Serve announced last, are of other revisions."""
        return self._others[pool]

    def leave(self) -> None:
        """No replica that Serve is stopping is needed here any more."""
        for lingering in self._lingering.values():
            lingering.leave()
        for stay in self._stays:
            stay.cancel()

    def line(self, pool: str, replica: str) -> ReplicaLine | None:
        """The line to a replica that was counted in the last round; None for any other."""
        return self._lines[pool].get(replica)

    def died(self, pool: str, replica: str) -> None:
        """A call found a replica dead: it counts no more, unless it reports again."""
        self._reports[pool] = tuple(report for report in self._reports[pool] if report.replica != replica)
        self._on_reports(pool, self._reports[pool])

    async def _watch(self, pool: str) -> None:
        while True:
            try:
                response = self._pools[pool].broadcast("report")
                answers = await response.results_async(timeout_s=REPORT_TIMEOUT_S, return_exceptions=True)
            except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
                # One silent replica fails the whole round: those that were counted before go on.
                logger.warning("pool %s: a replica did not report in %.0f s", pool, REPORT_TIMEOUT_S)
            except Exception as err:  # no replica yet, or none any more: Serve brings one
                if self._reports[pool]:
                    logger.warning("pool %s: no replica (%s)", pool, err)
                await self._take(pool, [])
            else:
                await self._take(pool, [answer for answer in answers if isinstance(answer, tuple)])
            self._counted[pool].set()
            self._on_reports(pool, self._reports[pool])
            await asyncio.sleep(REPORT_INTERVAL_S)

    async def _take(self, pool: str, answers: list[tuple[ReplicaReport, object]]) -> None:
        """Keep the reports of a round, and the lines that are open already."""
        lines = self._lines[pool]
        own = [(report, actor) for report, actor in answers if report.revision == self._revision]
        self._others[pool] = len(answers) - len(own)
        is_update = any(report.revision > self._revision for report, _ in answers)
        announced = {report.replica: lines.get(report.replica) or ReplicaLine(actor) for report, actor in own}
        staying = await self._staying(pool, announced, is_update=is_update)
        self._lines[pool] = announced | {report.replica: lines[report.replica] for report in staying}
        self._reports[pool] = tuple(sorted([report for report, _ in own] + staying, key=lambda each: each.replica))

    async def _staying(
        self, pool: str, announced: Mapping[str, ReplicaLine], *, is_update: bool
    ) -> list[ReplicaReport]:
        """The reports of the replicas that Serve is stopping and that stay in use, asked of each one directly."""
        lingering = self._lingering.get(pool)
        if lingering is None:
            return []
        known = [report.replica for report in self._reports[pool]]
        names = lingering.staying(known, announced, time.monotonic(), is_update=is_update)
        answers = await asyncio.gather(*(self._ask_to_stay(self._lines[pool][name]) for name in names))
        return [answer for answer in answers if answer is not None]

    async def _ask_to_stay(self, line: ReplicaLine) -> ReplicaReport | None:
        """The report of a replica, which now waits for the next question; None if it has gone."""
        stay = asyncio.get_running_loop().create_task(line.call("stay", STAY_S))
        self._stays.add(stay)
        stay.add_done_callback(self._stayed)
        try:
            report: ReplicaReport = await asyncio.wait_for(line.call("own_report"), REPORT_TIMEOUT_S)
        except Exception as err:  # dead, its device lost, or silent: it counts no more
            logger.info("a replica that was to stay has gone: %r", err)
            return None
        return report

    def _stayed(self, stay: asyncio.Task[None]) -> None:
        """The time is over, or the replica has died; whether it still answers is asked elsewhere."""
        self._stays.discard(stay)
        if not stay.cancelled():
            stay.exception()
