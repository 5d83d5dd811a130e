"""What replicas say of themselves, handed on: latencies and memory to the scheduler, loads to logs and metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from serve_app.frame_book import FrameBook
from serve_app.memory_gauge import MemoryGauge
from serve_app.metrics import RouterMetrics
from serve_app.overdue import OVERDUE_FLOOR_S
from serve_app.plan import Plan
from serve_app.replica_credits import MAX_CREDITS_PER_REPLICA
from serve_app.replica_limits import ReplicaLimits
from serve_app.results import ReplicaReport
from serve_app.router_credits import RouterCredits
from serve_app.router_log import RouterLog
from serve_app.scheduler import Scheduler

logger = logging.getLogger(__name__)


class ReplicaNews:
    """Keeps the scheduler, the log and the metrics of a router up to date with its replicas.

    Attributes:
        uncounted: pools of which no replica has reported yet.
    """

    def __init__(
        self,
        plan: Plan,
        scheduler: Scheduler,
        limits: ReplicaLimits,
        grants: RouterCredits,
        log: RouterLog,
        metrics: RouterMetrics,
    ) -> None:
        """Take the plan, and who is told."""
        self._scheduler = scheduler
        self._limits = limits
        self._grants = grants
        self._log = log
        self._metrics = metrics
        self._memory = MemoryGauge(plan.memory)
        self._models = {bucket.name: bucket.model for bucket in plan.buckets}
        self.uncounted = {pool.name for pool in plan.pools}

    def counted(self, pool: str, reports: tuple[ReplicaReport, ...], fresh: tuple[ReplicaReport, ...]) -> None:
        """The replicas of a pool were counted; `fresh` are those that have just answered."""
        latency = self._scheduler.latency
        for report in reports:
            for bucket, shape, run_s in report.latencies:
                model = self._models.get(bucket)  # None: a replica of another plan, which is about to go
                if model is not None and not latency.is_measured(model, shape.canvas, shape.batch):
                    latency.observe(model, shape.canvas, shape.batch, run_s)
        if reports:
            self.uncounted.discard(pool)
        before, level = self._memory.level(pool), self._memory.reported(pool, reports, time.monotonic())
        if level is not before:
            was, now = before.name.lower(), level.name.lower()
            logger.warning("pool %s: memory level %s, was %s; %s", pool, now, was, self._memory.fullest(pool))
        self._use_memory(pool)
        self._grants.reported(pool, reports, time.monotonic())
        for report in fresh:
            if report.busy_s < OVERDUE_FLOOR_S:
                self._scheduler.replica_is_alive(pool, report.replica)

    def out_of_memory(self, pool: str, replica: str, *, is_broken: bool) -> bool:
        """A replica had no memory for a batch; whether it serves no more, while another of its pool does."""
        elsewhere = is_broken and self._memory.broke(pool, replica)
        self._use_memory(pool)
        return elsewhere

    def tell(self, reports: Mapping[str, tuple[ReplicaReport, ...]], book: FrameBook) -> None:
        """Let logs and metrics look at the pools."""
        now_s, loads = time.monotonic(), self._scheduler.loads()
        self._log.tick(now_s, loads)
        self._metrics.tick(now_s, loads, reports, num_in_flight=len(book), num_records_lost=book.num_records_lost)

    def _use_memory(self, pool: str) -> None:
        """Let the scheduler know how full a pool's devices are, and which replicas may take how much."""
        self._scheduler.memory_is(pool, self._memory.level(pool))
        limits = self._memory.limits(pool)
        for replica, most in limits.items():
            self._limits.limit("memory", pool, replica, most if most < MAX_CREDITS_PER_REPLICA else None)
        self._limits.ready(pool, limits)
