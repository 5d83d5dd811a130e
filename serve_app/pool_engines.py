"""The engines of one replica: one a bucket of its pool, made together because they may share a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engines.base import Engine
from engines.device_facts import Device, open_device
from engines.onnx_run import OnnxEngine
from serve_app.config import model_path
from serve_app.plan import Plan


@dataclass(frozen=True, slots=True, eq=False)
class PoolEngines:
    """The engines of one pool's replica; one thread at a time uses them.

    Attributes:
        by_bucket: the engine of each bucket, not yet warm, in the plan's order.
        device: what they run on, to be asked how it is.
        close: frees them and what they share, and lets go of the device; calling it again does nothing.
    """

    by_bucket: Mapping[str, Engine]
    device: Device
    close: Callable[[], None]


# Makes the engines of a pool, named like this in the plan.
MakeEngines = Callable[[Plan, str], PoolEngines]


def onnx_engines(plan: Plan, pool: str) -> PoolEngines:
    """Engines on ONNX Runtime's CPU provider."""
    num_threads = plan.pool(pool).num_threads
    engines = {
        bucket.name: OnnxEngine(
            model_path(plan.models[bucket.model]), num_threads=num_threads, limits=plan.detection
        )
        for bucket in plan.buckets_of(pool)
    }  # fmt: skip

    def close() -> None:
        for engine in engines.values():
            engine.close()

    return PoolEngines(engines, open_device(None), close)
