"""Knows the replicas of each pool by asking them: once a second, those that answer their report are ready.

Routers learn of each other in the same way: `peer_routers.py`. Only replicas of the router's own revision count: others
load other models. See `lingering.py` for those that Serve is stopping already.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from ray.serve.handle import DeploymentHandle

from serve_app.direct_calls import ReplicaLine
from serve_app.lingering import Lingering

logger = logging.getLogger(__name__)

# How often replicas are counted; a dead one is noticed earlier, by its failed batch.
REPORT_INTERVAL_S = 1.0
# A replica that is busy answers its report at once (it is not queued), so this long means gone.
REPORT_TIMEOUT_S = 5.0
# For how long a replica that Serve is stopping waits for the next question of a router that still uses it.
STAY_S = 3.0


class Report(Protocol):
    """What is asked for."""

    @property
    def replica(self) -> str:
        """The name of the replica that it is of."""

    @property
    def revision(self) -> int:
        """Of the application that the replica is part of."""


ReportT = TypeVar("ReportT", bound=Report)


def nothing(_: str) -> tuple[object, ...]:
    """A question without arguments."""
    return ()


class ReplicaWatch(Generic[ReportT]):
    """Keeps the latest reports of every pool, a line to each replica, and says when they may have changed."""

    def __init__(
        self,
        pools: Mapping[str, DeploymentHandle[Any]],
        on_reports: Callable[[str, tuple[ReportT, ...]], None],
        question: Callable[[str], tuple[object, ...]] = nothing,
        *,
        revision: int | None = None,
        lingering: Mapping[str, Lingering] | None = None,
    ) -> None:
        """Take a handle for each pool, whom to tell every round, and what to tell the replicas of a pool.

        Args:
            pools: a handle for each.
            on_reports: gets the pool and the reports of its replicas that are ready.
            question: gives the arguments of `report` for the replicas of a pool.
            revision: of the replicas that count; None: all do.
            lingering: for each pool which replicas stay in use that Serve is stopping; None: none does.
        """
        self._pools = dict(pools)
        self._on_reports = on_reports
        self._question = question
        self._reports: dict[str, tuple[ReportT, ...]] = dict.fromkeys(self._pools, ())
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

    def reports(self, pool: str) -> tuple[ReportT, ...]:
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
                response = self._pools[pool].broadcast("report", *self._question(pool))
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

    async def _take(self, pool: str, answers: list[tuple[ReportT, object]]) -> None:
        """Keep the reports of a round, and the lines that are open already."""
        lines = self._lines[pool]
        revision = self._revision
        own = [(report, actor) for report, actor in answers if revision is None or report.revision == revision]
        self._others[pool] = len(answers) - len(own)
        is_update = revision is not None and any(report.revision > revision for report, _ in answers)
        announced = {report.replica: lines.get(report.replica) or ReplicaLine(actor) for report, actor in own}
        staying = await self._staying(pool, announced, is_update=is_update)
        self._lines[pool] = announced | {report.replica: lines[report.replica] for report in staying}
        self._reports[pool] = tuple(sorted([report for report, _ in own] + staying, key=lambda each: each.replica))

    async def _staying(self, pool: str, announced: Mapping[str, ReplicaLine], *, is_update: bool) -> list[ReportT]:
        """The reports of the replicas that Serve is stopping and that stay in use, asked of each one directly."""
        lingering = self._lingering.get(pool)
        if lingering is None:
            return []
        known = [report.replica for report in self._reports[pool]]
        names = lingering.staying(known, announced, time.monotonic(), is_update=is_update)
        answers = await asyncio.gather(*(self._ask_to_stay(pool, self._lines[pool][name]) for name in names))
        return [answer for answer in answers if answer is not None]

    async def _ask_to_stay(self, pool: str, line: ReplicaLine) -> ReportT | None:
        """The report of a replica, which now waits for the next question; None if it has gone."""
        stay = asyncio.get_running_loop().create_task(line.call("stay", STAY_S))
        self._stays.add(stay)
        stay.add_done_callback(self._stayed)
        try:
            asked = line.call("own_report", *self._question(pool))
            report: ReportT = await asyncio.wait_for(asked, REPORT_TIMEOUT_S)
        except Exception as err:  # dead, its device lost, or silent: it counts no more
            logger.info("a replica that was to stay has gone: %r", err)
            return None
        return report

    def _stayed(self, stay: asyncio.Task[None]) -> None:
        """The time is over, or the replica has died; whether it still answers is asked elsewhere."""
        self._stays.discard(stay)
        if not stay.cancelled():
            stay.exception()
