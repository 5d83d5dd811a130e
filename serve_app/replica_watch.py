"""Knows the replicas of each pool: Serve names those that run, and once a second each is asked for its report.

Each is asked on its own line: one that does not answer holds up nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

from serve_app.direct_calls import ReplicaLine, running_replicas
from serve_app.results import ReplicaReport

logger = logging.getLogger(__name__)

# How often replicas are asked; a dead one is noticed earlier, by its failed batch, a silent one by its overdue batch.
REPORT_INTERVAL_S = 1.0
# A round waits so long for answers; a sound replica takes milliseconds, and those that take longer are waited for
# beside the next rounds.
ROUND_S = 0.5
# A replica that is busy answers its report at once (it is not queued), so this long means stopped or cut off.
REPORT_TIMEOUT_S = 5.0


@dataclass(slots=True, eq=False)
class _Known:
    """A replica that Serve counts as running: its line, what it said last, and the question that is out."""

    line: ReplicaLine
    report: ReplicaReport | None = None
    question: asyncio.Task[Any] | None = None
    asked_s: float = 0.0
    is_fresh: bool = False


class ReplicaWatch:
    """Keeps the latest reports of every pool, a line to each replica, and says when they may have changed.

    A replica counts from its first report on, until its report fails, Serve counts it out, a call finds it dead, or it
    has not answered for `REPORT_TIMEOUT_S`; then from its next report on.
    """

    def __init__(
        self,
        pools: Mapping[str, DeploymentHandle[Any]],
        on_reports: Callable[[str, tuple[ReplicaReport, ...]], None],
    ) -> None:
        """Take a handle for each pool, and whom to tell (pool, reports of the replicas that are ready) every round."""
        self._pools = dict(pools)
        self._on_reports = on_reports
        self._known: dict[str, dict[str, _Known]] = {pool: {} for pool in self._pools}
        self._counted = {pool: asyncio.Event() for pool in self._pools}
        self._tasks: list[asyncio.Task[None]] = []

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
        reports = (known.report for known in self._known[pool].values() if known.report is not None)
        return tuple(sorted(reports, key=lambda report: report.replica))

    def fresh(self, pool: str) -> tuple[ReplicaReport, ...]:
        """Those of them that came with the last round."""
        known = (each for each in self._known[pool].values() if each.is_fresh)
        return tuple(each.report for each in known if each.report is not None)

    def line(self, pool: str, replica: str) -> ReplicaLine | None:
        """The line to a replica that counts; None for any other."""
        for known in self._known[pool].values():
            if known.report is not None and known.report.replica == replica:
                return known.line
        return None

    def died(self, pool: str, replica: str) -> None:
        """A call found a replica dead: it counts no more, unless it reports again."""
        for known in self._known[pool].values():
            if known.report is not None and known.report.replica == replica:
                known.report = None
        self._on_reports(pool, self.reports(pool))

    async def _watch(self, pool: str) -> None:
        while True:
            had_any = bool(self.reports(pool))
            try:
                self._take(pool, await running_replicas(self._pools[pool], REPORT_TIMEOUT_S))
                await self._ask(pool)
            except Exception as err:  # Serve cannot say; those that were counted go on
                logger.warning("pool %s: Serve does not name its replicas (%s)", pool, err)
            if had_any and not self.reports(pool):
                logger.warning("pool %s: no replica is left", pool)
            self._counted[pool].set()
            self._on_reports(pool, self.reports(pool))
            await asyncio.sleep(REPORT_INTERVAL_S)

    def _take(self, pool: str, actors: Mapping[str, Any]) -> None:
        """Know these replicas and no others; lines that are open stay."""
        known = self._known[pool]
        for name in [name for name in known if name not in actors]:
            question = known.pop(name).question
            if question is not None:
                question.cancel()
        for name, actor in actors.items():
            if name not in known:
                known[name] = _Known(ReplicaLine(actor))

    async def _ask(self, pool: str) -> None:
        """One round: ask who has no question out, wait a moment, take the answers that are there."""
        known = self._known[pool]
        loop, now_s = asyncio.get_running_loop(), time.monotonic()
        for each in known.values():
            if each.question is None:
                each.question, each.asked_s = loop.create_task(each.line.call("own_report")), now_s
        questions = [each.question for each in known.values() if each.question is not None]
        if questions:
            await asyncio.wait(questions, timeout=ROUND_S)
        for each in known.values():
            question, each.question, each.is_fresh = each.question, None, False
            if question is None or question.cancelled():
                continue
            if question.done():
                answer = question.exception() or question.result()
                each.is_fresh = isinstance(answer, ReplicaReport)
                each.report = answer if isinstance(answer, ReplicaReport) else None
                continue
            each.question = question
            if each.report is not None and time.monotonic() - each.asked_s >= REPORT_TIMEOUT_S:
                logger.warning("pool %s: %s is silent for %.0f s", pool, each.report.replica, REPORT_TIMEOUT_S)
                each.report = None
