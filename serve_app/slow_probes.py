"""Slow replicas that get no frames: each is probed with a grey batch now and then, and told to end if it stays slow."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from typing import Any

from serve_app.direct_calls import ReplicaLine
from serve_app.replica_watch import ReplicaWatch
from serve_app.results import ReplicaReport
from serve_app.scheduler import Scheduler

logger = logging.getLogger(__name__)

# A probe is one small batch; three good ones bring a replica back.
PROBE_INTERVAL_S = 2.0
PROBE_TIMEOUT_S = 10.0
# A throttled device or a neighbour that computes may pass; what lasts longer is worth the minute of a new start.
REPLACE_AFTER_S = 60.0
# Where a new replica is as slow as the one before (the machine is), replacing more often only costs.
REPLACE_INTERVAL_S = 600.0


class SlowProbes:
    """Probes the slow replicas of all pools; `look` is to be called about once a second for each pool."""

    def __init__(self, scheduler: Scheduler, replicas: ReplicaWatch[ReplicaReport]) -> None:
        """Take who knows which replicas are slow, and who has lines to them."""
        self._scheduler = scheduler
        self._replicas = replicas
        self._slow_since_s: dict[tuple[str, str], float] = {}
        self._probed_s: dict[tuple[str, str], float] = {}
        self._replaced_s: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def look(self, pool: str) -> None:
        """Begin probes that are due."""
        now_s = time.monotonic()
        slow = self._scheduler.slow_replicas(pool)
        self._forget_others(pool, slow)
        for name in slow:
            key, line = (pool, name), self._replicas.line(pool, name)
            if key not in self._slow_since_s:
                logger.warning("pool %s: %s is slow: it gets no frames while another one can", pool, name)
            since_s = self._slow_since_s.setdefault(key, now_s)
            if line is None or now_s - self._probed_s.get(key, since_s) < PROBE_INTERVAL_S:
                continue
            self._probed_s[key] = now_s
            is_hopeless = now_s - since_s >= REPLACE_AFTER_S
            if is_hopeless and now_s - self._replaced_s.get(pool, now_s - REPLACE_INTERVAL_S) >= REPLACE_INTERVAL_S:
                self._replaced_s[pool] = now_s
                self._start(self._retire(pool, name, line, now_s - since_s))
            else:
                self._start(self._probe(pool, name, line))

    def _forget_others(self, pool: str, slow: Collection[str]) -> None:
        for key in [key for key in self._slow_since_s if key[0] == pool and key[1] not in slow]:
            del self._slow_since_s[key]
            self._probed_s.pop(key, None)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self, pool: str, name: str, line: ReplicaLine) -> None:
        try:
            bucket, shape, took_s = await asyncio.wait_for(line.call("probe"), PROBE_TIMEOUT_S)
        except Exception as err:  # it stays slow; what else is wrong with it others will find
            logger.warning("pool %s: %s cannot be probed (%s)", pool, name, type(err).__name__)
            return
        model = self._scheduler.model_of(bucket)
        if model is None:
            return
        predicted_s = self._scheduler.latency.predict_s(model, shape.canvas, shape.batch)
        self._scheduler.replica_probed(pool, name, predicted_s, took_s)
        if name not in self._scheduler.slow_replicas(pool):
            logger.warning("pool %s: %s is as fast as the others again: it gets frames", pool, name)

    async def _retire(self, pool: str, name: str, line: ReplicaLine, slow_s: float) -> None:
        reason = f"it has been several times slower than the other replicas for {slow_s:.0f} s"
        logger.warning("pool %s: %s is to be replaced: %s", pool, name, reason)
        try:
            await asyncio.wait_for(line.call("retire", reason), PROBE_TIMEOUT_S)
        except Exception as err:  # it is asked again after the interval
            logger.warning("pool %s: %s cannot be told (%s)", pool, name, type(err).__name__)
