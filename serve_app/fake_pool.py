"""Engines for a whole service that compute nothing: benches and tests of what is around them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from engines.device_facts import open_device
from engines.fake import FakeEngine
from serve_app.plan import Plan
from serve_app.pool_engines import PoolEngines


@dataclass(frozen=True, slots=True)
class FakeEngines:
    """Makes the engines of a pool: each batch takes `run_s` seconds of waiting, whatever its shape."""

    run_s: float

    def __call__(self, plan: Plan, pool: str) -> PoolEngines:
        """See `MakeEngines`."""
        engines = {
            bucket.name: FakeEngine(dict.fromkeys(bucket.warm_shapes(), self.run_s), time.sleep)
            for bucket in plan.buckets_of(pool)
        }
        return PoolEngines(engines, open_device(None), lambda: None)
