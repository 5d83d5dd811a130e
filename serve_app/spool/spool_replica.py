"""The spool as a Serve deployment: the real parts of a `SpoolService`."""

from __future__ import annotations

import asyncio
import logging

import ray

from serve_app.client import Client
from serve_app.config import spool_folder
from serve_app.metric_catalog import SPOOL_CATALOG
from serve_app.metrics import GAUGE_INTERVAL_S
from serve_app.plan import Plan
from serve_app.ray_metrics import RayMetrics
from serve_app.spool.machine_clocks import read_clocks
from serve_app.spool.redis_spool import connect_redis, place_of
from serve_app.spool.spool import Spool
from serve_app.spool.spool_feeder import FeedLine
from serve_app.spool.spool_metrics import tell_spool
from serve_app.spool.spool_service import SpoolService
from serve_app.spool.sqlite_spool import SqliteSpool

logger = logging.getLogger(__name__)

# The store is counted at each so-manieth telling: every five seconds.
LOOKS = 5


class SpoolReplica(SpoolService):
    """The one replica. It feeds from its start on, without being asked: frames of the one before it may wait."""

    async def __init__(self, plan: Plan) -> None:  # type: ignore[misc]  # Serve awaits it
        rules, folder = plan.spool, spool_folder(plan)

        def open_store() -> Spool:
            if rules.redis is not None:
                return connect_redis(rules.redis, max_bytes=rules.max_bytes, result_ttl_s=rules.result_ttl_s)
            return SqliteSpool(folder, max_bytes=rules.max_bytes, result_ttl_s=rules.result_ttl_s).open()

        place = place_of(rules.redis) if rules.redis is not None else str(folder)
        super().__init__(
            plan,
            place,
            ray.get_runtime_context().get_node_id()[:8],
            open_store=open_store,
            read_clocks=read_clocks,
            connect=_service,
        )
        self.start()
        self._tasks.append(asyncio.get_running_loop().create_task(self._tell_metrics()))

    async def _tell_metrics(self) -> None:
        """Tell the gauges again and again, or Ray forgets them."""
        sink, looks = RayMetrics(SPOOL_CATALOG), 0
        status = await self.status()
        while True:
            try:
                # Counting asks the store, which has better to do than that every second.
                if looks % LOOKS == 0:
                    status = await self.status()
                tell_spool(status, sink)
            except Exception:  # frames are worth more than their numbers
                logger.exception("spool: its metrics cannot be told")
            looks += 1
            await asyncio.sleep(GAUGE_INTERVAL_S)


async def _service() -> FeedLine:
    """A client of the service, like any other."""
    return await asyncio.to_thread(Client.connect)
