"""Knows the replicas of each pool: Serve names those that run, and once a second each is asked for its report.

Each is asked on its own line: one that does not answer holds up nobody else. Routers learn of each other in the same
way: `peer_routers.py`. Only replicas of the router's own revision count: others load other models. See `lingering.py`
for those that Serve is stopping already.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeGuard, TypeVar, runtime_checkable

from ray.serve.handle import DeploymentHandle

from serve_app.direct_calls import ReplicaLine, running_replicas
from serve_app.lingering import Lingering

logger = logging.getLogger(__name__)

# How often replicas are asked; a dead one is noticed earlier, by its failed batch, a silent one by its overdue batch.
REPORT_INTERVAL_S = 1.0
# A round waits so long for answers; a sound replica takes milliseconds, and those that take longer are waited for
# beside the next rounds.
ROUND_S = 0.5
# A replica that is busy answers its report at once (it is not queued), so this long means stopped or cut off.
REPORT_TIMEOUT_S = 5.0
# For how long a replica that Serve is stopping waits for the next question of a router that still uses it.
STAY_S = 3.0


@runtime_checkable
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


class _Known(Generic[ReportT]):
    """A replica that Serve counts as running, or that stays: its line, what it said last, the question that is out."""

    __slots__ = ("asked_s", "is_fresh", "line", "question", "report")

    def __init__(self, line: ReplicaLine) -> None:
        self.line = line
        self.report: ReportT | None = None
        self.question: asyncio.Task[Any] | None = None
        self.asked_s = 0.0
        self.is_fresh = False


class ReplicaWatch(Generic[ReportT]):
    """Keeps the latest reports of every pool, a line to each replica, and says when they may have changed.

    A replica counts from its first report on, until its report fails, Serve counts it out and it does not stay, a call
    finds it dead, or it has not answered for `REPORT_TIMEOUT_S`; then from its next report on.
    """

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
            question: gives the arguments of `own_report` for the replicas of a pool.
            revision: of the replicas that count; None: all do.
            lingering: for each pool which replicas stay in use that Serve is stopping; None: none does.
        """
        self._pools = dict(pools)
        self._on_reports = on_reports
        self._question = question
        self._revision = revision
        self._lingering = lingering or {}
        self._known: dict[str, dict[str, _Known[ReportT]]] = {pool: {} for pool in self._pools}
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
        """What the replicas of a pool that count last said of themselves, by name."""
        reports = (known.report for known in self._known[pool].values())
        return tuple(sorted((each for each in reports if self._counts(each)), key=lambda each: each.replica))

    def fresh(self, pool: str) -> tuple[ReportT, ...]:
        """Those of them that came with the last round."""
        reports = (known.report for known in self._known[pool].values() if known.is_fresh)
        return tuple(each for each in reports if self._counts(each))

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
        """The line to a replica that counts; None for any other."""
        known = self._find(pool, replica)
        return None if known is None or not self._counts(known.report) else known.line

    def died(self, pool: str, replica: str) -> None:
        """A call found a replica dead: it counts no more, unless it reports again."""
        known = self._find(pool, replica)
        if known is not None:
            known.report = None
        self._on_reports(pool, self.reports(pool))

    def _find(self, pool: str, replica: str) -> _Known[ReportT] | None:
        known = self._known[pool].values()
        return next((each for each in known if each.report is not None and each.report.replica == replica), None)

    def _counts(self, report: ReportT | None) -> TypeGuard[ReportT]:
        return report is not None and self._revision in (None, report.revision)

    async def _watch(self, pool: str) -> None:
        while True:
            had_any = bool(self.reports(pool))
            try:
                actors = await running_replicas(self._pools[pool], REPORT_TIMEOUT_S)
                for name in [name for name in actors if name not in self._known[pool]]:
                    self._known[pool][name] = _Known(ReplicaLine(actors[name]))
                self._forget_silent(pool, actors)
                await self._ask(pool)
                self._keep(pool, actors)
            except Exception as err:  # Serve cannot say; those that were counted go on
                logger.warning("pool %s: Serve does not name its replicas (%s)", pool, err)
            if had_any and not self.reports(pool):
                logger.warning("pool %s: no replica is left", pool)
            self._counted[pool].set()
            self._on_reports(pool, self.reports(pool))
            await asyncio.sleep(REPORT_INTERVAL_S)

    async def _ask(self, pool: str) -> None:
        """One round: ask who has no question out, wait a moment, take the answers that are there."""
        known = self._known[pool]
        loop, now_s = asyncio.get_running_loop(), time.monotonic()
        for each in known.values():
            if each.question is None:
                asked = each.line.call("own_report", *self._question(pool))
                each.question, each.asked_s = loop.create_task(asked), now_s
        questions = [each.question for each in known.values() if each.question is not None]
        if questions:
            await asyncio.wait(questions, timeout=ROUND_S)
        for each in known.values():
            question, each.question, each.is_fresh = each.question, None, False
            if question is None or question.cancelled():
                continue
            if question.done():
                answer: Any = question.exception() or question.result()
                each.is_fresh = isinstance(answer, Report)
                each.report = answer if each.is_fresh else None
                continue
            each.question = question
            if each.report is not None and time.monotonic() - each.asked_s >= REPORT_TIMEOUT_S:
                logger.warning("pool %s: %s is silent for %.0f s", pool, each.report.replica, REPORT_TIMEOUT_S)
                each.report = None

    def _forget_silent(self, pool: str, actors: Mapping[str, Any]) -> None:
        """Nobody is waited for whom Serve names no more, and who has said nothing of itself."""
        known = self._known[pool]
        for name in [name for name, each in known.items() if name not in actors and each.report is None]:
            self._forget(pool, name)

    def _forget(self, pool: str, name: str) -> None:
        question = self._known[pool].pop(name).question
        if question is not None:
            question.cancel()

    def _keep(self, pool: str, actors: Mapping[str, Any]) -> None:
        """Know the replicas that Serve names, those that are to stay, and no others."""
        known, revision = self._known[pool], self._revision
        announced = [each.report for name, each in known.items() if name in actors and each.report is not None]
        own = [report.replica for report in announced if self._counts(report)]
        self._others[pool] = len(announced) - len(own)
        lingering = self._lingering.get(pool)
        staying: tuple[str, ...] = ()
        if lingering is not None:
            is_update = revision is not None and any(report.revision > revision for report in announced)
            names = [report.replica for report in self.reports(pool)]
            staying = lingering.staying(names, own, time.monotonic(), is_update=is_update)
        for name in [name for name in known if name not in actors]:
            report = known[name].report
            if report is not None and report.replica in staying:
                self._let_stay(known[name].line)
            else:
                self._forget(pool, name)

    def _let_stay(self, line: ReplicaLine) -> None:
        """Keep a replica busy until the next round, so that Serve does not end it."""
        stay = asyncio.get_running_loop().create_task(line.call("stay", STAY_S))
        self._stays.add(stay)
        stay.add_done_callback(self._stayed)

    def _stayed(self, stay: asyncio.Task[None]) -> None:
        """The time is over, or the replica has died; whether it still answers is asked elsewhere."""
        self._stays.discard(stay)
        if not stay.cancelled():
            stay.exception()
