"""One replica of a pool: fetches the frames of a batch, places them, runs the engine, answers boxes in source px.

It decides nothing about order or admission: that is the router's scheduler. While one batch runs, the next one is
fetched and placed (the router holds two credits a replica).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from engines.base import Engine, EngineOutput
from engines.detections import Detections
from engines.detector import PlacedBatch, detect_placed, place_batch
from engines.errors import EngineError
from engines.frame_array import check_frame
from engines.letterbox import Image
from serve_app.errors import FrameFailedError, FramelaneError, FrameLostError, InvalidFrameError
from serve_app.plan import Bucket, Plan
from serve_app.results import BatchReply, BatchRequest, ReplicaReport

logger = logging.getLogger(__name__)

# A frame's pixels lie in a node's memory; what takes longer is a dead owner or a cut network.
MAX_FETCH_S = 10.0

MakeEngine = Callable[[Bucket, Plan], Engine]


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One call of an engine: its output or its error, and how long the engine's thread was busy."""

    output: EngineOutput | None
    error: FrameFailedError | None
    busy_s: float


class EngineReplica:
    """Serves the buckets of one pool on one device. Serve calls it ready when the constructor returns."""

    def __init__(self, plan: Plan, pool: str, make_engine: MakeEngine) -> None:
        """Load and warm every engine of the pool: no request is the first of its shape.

        Args:
            plan: the deployment's plan.
            pool: which pool this replica belongs to.
            make_engine: makes the engine of a bucket, not yet warm.
        """
        started_s = time.monotonic()
        self._max_frame_px = plan.limits.max_frame_px
        self._engines: dict[str, Engine] = {}
        for bucket in plan.buckets_of(pool):
            engine = make_engine(bucket, plan)
            engine.warm(bucket.warm_shapes())
            self._engines[bucket.name] = engine
        # One thread owns the engines; the other places the next batch meanwhile.
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._placing_thread = ThreadPoolExecutor(1, "placing")
        self._warm_s = time.monotonic() - started_s
        self._num_batches = 0
        context = ray.get_runtime_context()
        self._node = context.get_node_id()[:8]
        self._replica = f"{pool}-{(context.get_actor_id() or '')[:8]}"
        logger.info("replica %s: %d engines warm after %.1f s", self._replica, len(self._engines), self._warm_s)

    async def infer(self, request: BatchRequest, refs: list[ray.ObjectRef[Any]]) -> BatchReply:
        """Answer one batch.

        Args:
            request: bucket, canvas and announced sizes.
            refs: one object ref a frame, to a uint8 array `(height, width, 3)` BGR; read without a copy.

        Returns:
            One entry a frame: boxes, or that frame's own error. The other frames are answered all the same.
        """
        began_s = time.monotonic()
        frames = await asyncio.gather(*map(self._fetch, refs, request.sizes_hw))
        fetched_s = time.monotonic()
        errors = [frame if isinstance(frame, FramelaneError) else None for frame in frames]
        images_hwc = [None if isinstance(frame, FramelaneError) else frame for frame in frames]
        self._num_batches += 1
        if all(errors):  # nothing to infer: the next batch need not wait for grey
            return BatchReply(self._replica, tuple(error for error in errors if error), fetched_s - began_s, 0, 0, 0, 0)
        loop = asyncio.get_running_loop()
        placed = await loop.run_in_executor(self._placing_thread, place_batch, images_hwc, request.canvas)
        placed_s = time.monotonic()
        run = await loop.run_in_executor(self._engine_thread, self._run, request.bucket, placed)
        ended_s = time.monotonic()
        staged_s = max(0.0, ended_s - placed_s - run.busy_s)
        infer_s = run.output.run_s if run.output else 0.0
        return BatchReply(
            replica=self._replica,
            frames=tuple(error or self._answer(request.bucket, run, slot) for slot, error in enumerate(errors)),
            fetch_s=fetched_s - began_s,
            preprocess_s=placed_s - fetched_s,
            staged_s=staged_s,
            infer_s=infer_s,
            postprocess_s=run.busy_s - infer_s,
        )

    async def report(self) -> ReplicaReport:
        """What this replica says of itself; the router asks every second, and counts those that answer."""
        memory = next(iter(self._engines.values())).memory()
        return ReplicaReport(
            self._replica, self._node, self._num_batches, self._warm_s, memory.used_bytes, memory.total_bytes
        )

    async def _fetch(self, ref: ray.ObjectRef[Any], size_hw: tuple[int, int]) -> Image | FramelaneError:
        """The pixels behind a ref, or why this frame cannot be served."""
        try:
            image = await asyncio.wait_for(_get(ref), MAX_FETCH_S)
            image_hwc = check_frame(image, max_frame_px=self._max_frame_px)
        except (RayError, asyncio.TimeoutError) as err:
            reason = (
                f"no answer in {MAX_FETCH_S:.0f} s" if isinstance(err, asyncio.TimeoutError) else type(err).__name__
            )
            return FrameLostError(f"frame: its pixels cannot be fetched ({reason}); keep the sending process alive")
        except EngineError as err:
            return InvalidFrameError(str(err))
        if image_hwc.shape[:2] != tuple(size_hw):
            got, said = "×".join(map(str, image_hwc.shape[:2])), "×".join(map(str, size_hw))
            return InvalidFrameError(f"frame: got {got} px, announced were {said} px; send the array's own size")
        return image_hwc

    def _run(self, bucket: str, placed: PlacedBatch) -> _Run:
        began_s = time.monotonic()
        try:
            output = detect_placed(self._engines[bucket], placed)
        except Exception as err:
            logger.exception("replica %s: batch of bucket %s failed", self._replica, bucket)
            reason = str(err) if isinstance(err, EngineError) else f"{type(err).__name__}: {err}"
            return _Run(None, FrameFailedError(f"engine of bucket {bucket}: {reason}"), time.monotonic() - began_s)
        return _Run(output, None, time.monotonic() - began_s)

    def _answer(self, bucket: str, run: _Run, slot: int) -> tuple[Detections, tuple[str, ...]] | FramelaneError:
        if run.output is None:
            return run.error or FrameFailedError("engine: no output")
        found = run.output.detections[slot]
        model = self._engines[bucket].model
        return found, tuple(model.class_name(int(class_id)) for class_id in found.class_ids)


async def _get(ref: ray.ObjectRef[Any]) -> object:
    return await ref
