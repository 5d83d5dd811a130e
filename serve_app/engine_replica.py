"""One replica of a pool: fetches the frames of a batch, places them, runs the engine, answers boxes in source px.

It decides nothing about admission: that is the router's scheduler. While one batch runs, the next ones are fetched and
placed; which of them runs next is `device_turns.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RaySystemError

from engines.base import Engine, EngineOutput
from engines.detections import Detections
from engines.detector import PlacedBatch, detect_placed, place_batch
from engines.device_facts import DeviceFacts
from engines.errors import DeviceError, DeviceLostError, EngineError, EngineMemoryError
from engines.frame_array import check_frame
from engines.letterbox import FILL, Image
from engines.spec import CanvasShape, WarmShape
from engines.tiles import crop
from serve_app.bucket_repair import BucketRepair, OutOfMemory
from serve_app.credit_grants import CreditAsk, CreditGrants
from serve_app.device_turns import DeviceTurns
from serve_app.direct_calls import DirectlyCalled, own_actor
from serve_app.errors import FrameFailedError, FramelaneError, FrameLostError, InvalidFrameError, ReplicaLeavingError
from serve_app.log_fields import fields, log_to_serve
from serve_app.plan import Bucket, Plan, Runtime
from serve_app.pool_engines import MakeEngines, PoolEngines
from serve_app.results import BatchReply, BatchRequest, ReplicaReport
from serve_app.start_patience import with_patience

logger = logging.getLogger(__name__)

# A frame's pixels lie in a node's memory; what takes longer is a dead owner or a cut network.
MAX_FETCH_S = 10.0
# A batch that keeps the engine for so long will keep it for ever: GPU drivers give up on a hung kernel earlier, and no
# machine that still serves is fifty times slower than it was.
STUCK_FLOOR_S = 10.0
STUCK_RATIO = 50.0
# Of so many runs of each warm shape the shortest counts.
NUM_TIMINGS = 3
# Placing so many pixels takes less than handing them to another thread and back.
INLINE_PLACING_PX = 600_000
# A device that has not answered for so long may be as full as ever, or empty: its memory is not known.
MAX_MEMORY_AGE_S = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One call of an engine: its output or its error, how long its thread was busy, whether memory was short."""

    output: EngineOutput | None
    error: FrameFailedError | None
    busy_s: float
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A batch that is ready for the device, and where its run is awaited."""

    bucket: str
    placed: PlacedBatch
    ran: asyncio.Future[_Run]


class EngineReplica(DirectlyCalled):
    """Serves the buckets of one pool on one device. Serve calls it ready when the constructor returns."""

    def __init__(self, plan: Plan, pool: str, make_engines: MakeEngines, revision: int = 0) -> None:
        """Load and warm every engine of the pool: no request is the first of its shape.

        Args:
            plan: the deployment's plan.
            pool: which pool this replica belongs to.
            make_engines: makes the engines of a pool.
            revision: of the application that it is part of.
        """
        log_to_serve(plan.log_level.value)
        self._started_s = started_s = time.monotonic()
        self._revision = revision
        self._max_frame_px = plan.limits.max_frame_px
        made, self._facts, self._latencies = with_patience(partial(_started, plan, pool, make_engines), f"pool {pool}")
        self._engines, self._device = made.by_bucket, made.device
        self._lost: str | None = None
        self._is_silent = False
        self._facts_s = time.monotonic()
        # One thread owns the engines; the other places the next batch meanwhile.
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._placing_thread = ThreadPoolExecutor(1, "placing")
        self._warm_s = time.monotonic() - started_s
        self._num_batches = 0
        self._turns: DeviceTurns[_Job] = DeviceTurns(plan.scheduling.max_starve_s)
        self._credits = CreditGrants()
        self._running: _Job | None = None
        # When the engine's thread began what it runs, and how long that takes by rights; None: it is free.
        self._run_began: tuple[float, float] | None = None
        self._usual_s = {(bucket, shape): run_s for bucket, shape, run_s in self._latencies}
        self._is_leaving = False
        self._copies_ahead = plan.pool(pool).runtime is Runtime.TENSORRT
        self._staged: _Job | None = None
        self._repair = BucketRepair(self._engines, plan.buckets_of(pool), self._on_engine_thread, self._is_lost)
        context = ray.get_runtime_context()
        self._node = context.get_node_id()[:8]
        self._replica = f"{pool}-{(context.get_actor_id() or '')[:8]}"
        logger.info("replica %s: %d engines warm after %.1f s", self._replica, len(self._engines), self._warm_s)

    async def infer(self, request: BatchRequest, refs: list[ray.ObjectRef[Any]]) -> BatchReply:
        """Answer one batch, unless it is not critical and its router has no credit here.

        Args:
            request: bucket, canvas, announced sizes, which part of its frame each piece is, and who sends it.
            refs: one object ref a piece, to its frame, a uint8 array `(height, width, 3)` BGR; read without a copy.

        Returns:
            One entry a piece: boxes in its px, or its frame's own error. The others are answered all the same.
        """
        self._check_staying()
        router = request.router
        number = self._credits.came(router, request.run_s, time.monotonic(), urgent=request.urgent)
        if number is None:
            grant = self._credits.grant(router, time.monotonic())
            return BatchReply(self._replica, (), 0, 0, 0, 0, 0, no_credit=True, grant=grant)
        busy_s = 0.0
        try:
            reply = await self._infer(request, refs)
            busy_s = reply.infer_s + reply.postprocess_s
        finally:
            self._credits.ended(number, busy_s, time.monotonic())
        grant = self._credits.grant(router, time.monotonic())
        return reply if grant is None else replace(reply, grant=grant)

    async def _infer(self, request: BatchRequest, refs: list[ray.ObjectRef[Any]]) -> BatchReply:
        began_s = time.monotonic()
        shape = WarmShape(request.canvas, len(refs))
        refusal = self._repair.refusal(request.bucket, shape)
        if refusal is None:
            try:
                reply = await self._answered(request, refs, began_s)
            except MemoryError as err:  # while frames are fetched or placed
                logger.exception("replica %s: no memory beside the engine of bucket %s", self._replica, request.bucket)
                refusal = f"no memory beside the engine: {err}"
            else:
                if not reply.out_of_memory:
                    return reply
                reason = next(str(frame) for frame in reply.frames if isinstance(frame, FrameFailedError))
                return replace(reply, is_broken=self._repair.out_of_memory(request.bucket, shape, reason))
        is_broken = self._repair.out_of_memory(request.bucket, shape, refusal)
        error = FrameFailedError(f"replica {self._replica}: {refusal}")
        return BatchReply(
            self._replica, (error,) * len(refs), time.monotonic() - began_s, 0, 0, 0, 0,
            out_of_memory=True, is_broken=is_broken,
        )  # fmt: skip

    async def _answered(self, request: BatchRequest, refs: list[ray.ObjectRef[Any]], began_s: float) -> BatchReply:
        """The same for a batch that the engine may have; raises `MemoryError` for want of memory beside it."""
        images = await asyncio.gather(*map(self._fetch, refs, request.sizes_hw))
        fetched_s = time.monotonic()
        errors = [image if isinstance(image, FramelaneError) else None for image in images]
        images_hwc = [None if isinstance(image, FramelaneError) else image for image in images]
        pieces_hwc = [
            image if image is None or window is None else crop(image, window)
            for image, window in zip(images_hwc, request.windows, strict=True)
        ]
        self._num_batches += 1
        if all(errors):  # nothing to infer: the next batch need not wait for grey
            return BatchReply(self._replica, tuple(error for error in errors if error), fetched_s - began_s, 0, 0, 0, 0)
        placed = await self._place(pieces_hwc, request.canvas)
        placed_s = time.monotonic()
        run = await self._on_device(request, placed)
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
            out_of_memory=run.out_of_memory,
        )

    async def report(self) -> tuple[ReplicaReport, object]:
        """What this replica says of itself, and its actor, for those who know neither."""
        return await self.own_report(), own_actor()

    async def own_report(self, ask: CreditAsk | None = None) -> ReplicaReport:
        """What this replica says of itself; routers ask every second, and count who answers.

        Args:
            ask: the router that asks, and how many credits it would have; None: somebody who only wants to know.
        """
        try:
            self._check_device()
        except DeviceLostError as err:
            self._let_go(str(err))
            raise
        self._check_staying()
        # A driver takes milliseconds, and a bad moment of it must not hold up batches.
        facts = await asyncio.to_thread(self._device_facts)
        # Routers of another revision send nothing here, and so share nothing.
        is_ours = ask is not None and ask.revision == self._revision
        grant = self._credits.asked(ask, time.monotonic()) if ask is not None and is_ours else None
        return ReplicaReport(
            self._replica, self._node, self._num_batches, self._warm_s, facts, self._latencies,
            grant=grant, credits=self._credits.use(), broken=self._repair.broken,
            up_s=time.monotonic() - self._started_s,
            notes=("its device does not answer: old facts",) if self._is_silent else (),
            revision=self._revision,
            busy_s=0.0 if self._run_began is None else time.monotonic() - self._run_began[0],
        )  # fmt: skip

    async def stay(self, for_s: float) -> None:
        """Be busy for so long: Serve waits for it before it ends a replica that a router still uses."""
        await asyncio.sleep(for_s)

    def check_health(self) -> None:
        """Serve asks every few seconds, and replaces a replica whose device is lost; it has no credits till then.

        Nor does it keep one that has no memory for its smallest canvas, however often it tried.
        """
        self._check_device()
        given_up = self._repair.given_up()
        if given_up is not None:
            raise EngineMemoryError(f"replica {self._replica}: {given_up}; give its device more memory, or free some")

    async def probe(self) -> tuple[str, WarmShape, float]:
        """Run the smallest batch of grey when the engine is free: its bucket, its shape, and the seconds it took."""
        bucket, shape, _ = min(self._latencies, key=lambda each: each[2])
        run = partial(_run_grey_s, self._engines[bucket], shape.canvas, shape.batch)
        return bucket, shape, await asyncio.get_running_loop().run_in_executor(self._engine_thread, run)

    async def retire(self, reason: str) -> None:
        """Fail every health check from now on, so that Serve starts another replica in this one's place."""
        self._lost = f"replica {self._replica}: is to be replaced: {reason}"

    def __del__(self) -> None:
        """Serve calls this once all that ran has ended, and then ends the process: what comes now is refused."""
        self._is_leaving = True

    def _check_staying(self) -> None:
        if self._is_leaving:
            raise ReplicaLeavingError(f"replica {self._replica}: is about to leave; another one takes the batch")

    def _check_device(self) -> None:
        if self._lost is None and self._run_began is not None:
            began_s, usual_s = self._run_began
            busy_s = time.monotonic() - began_s
            if busy_s > max(STUCK_FLOOR_S, STUCK_RATIO * usual_s):
                raise DeviceLostError(
                    f"engine of replica {self._replica}: has been running one batch for {busy_s:.0f} s, which takes "
                    f"{usual_s:.3f} s by rights; the replica is to be replaced"
                )
        if self._lost is not None:
            raise DeviceLostError(self._lost)

    def _device_facts(self) -> DeviceFacts:
        """What the device says of itself; what it said last where it cannot be asked, since it may compute on."""
        try:
            self._facts = self._device.facts()
            self._facts_s = time.monotonic()
            self._is_silent = False
        except DeviceLostError as err:
            self._lost = str(err)
            raise
        except DeviceError as err:
            if not self._is_silent:
                logger.warning("replica %s: reports old facts of its device: %s", self._replica, err)
            self._is_silent = True
            if time.monotonic() - self._facts_s > MAX_MEMORY_AGE_S:
                return replace(self._facts, used_bytes=None, free_bytes=None)
        return self._facts

    async def _on_engine_thread(self, act: Callable[[], object]) -> object:
        """Do something with an engine between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._engine_thread, act)

    def _is_lost(self, err: DeviceLostError) -> None:
        self._lost = str(err)

    async def _place(self, pieces_hwc: Sequence[Image | None], canvas: CanvasShape) -> PlacedBatch:
        if canvas.num_px * len(pieces_hwc) <= INLINE_PLACING_PX:
            return place_batch(pieces_hwc, canvas)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._placing_thread, place_batch, pieces_hwc, canvas)

    async def _on_device(self, request: BatchRequest, placed: PlacedBatch) -> _Run:
        """Run a batch when its turn comes."""
        job = _Job(request.bucket, placed, asyncio.get_running_loop().create_future())
        self._turns.add(job, time.monotonic(), urgent=request.urgent)
        self._run_next()
        return await job.ran

    def _run_next(self) -> None:
        """Give the engine's thread the batch whose turn it is, if the thread is free."""
        while len(self._turns) and self._running is None:
            job = self._turns.next(time.monotonic())
            if job.ran.cancelled():  # its router has gone
                continue
            self._running = job
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._engine_thread, self._run, job.bucket, job.placed)
            running.add_done_callback(partial(self._ended, job))
        if self._copies_ahead and self._running is not None and not self._repair.broken:
            self._stage_next()

    def _stage_next(self) -> None:
        """Let the batch that goes next be copied to the device while another one runs there."""
        job = self._turns.peek(time.monotonic())
        if job is not None and job is not self._staged:
            stage = self._engines[job.bucket].stage
            asyncio.get_running_loop().run_in_executor(self._placing_thread, stage, job.placed.batch_nhwc)
        self._staged = job

    def _let_go(self, reason: str) -> None:
        """Answer all that waits for a device that is lost or stuck: Serve ends this process when nothing waits."""
        jobs = [] if self._running is None else [self._running]
        while len(self._turns):
            jobs.append(self._turns.next(time.monotonic()))
        for job in jobs:
            if not job.ran.done():
                job.ran.set_result(_Run(None, FrameFailedError(reason), 0.0))

    def _ended(self, job: _Job, running: asyncio.Future[_Run]) -> None:
        self._running = None
        self._run_next()
        if not job.ran.done():
            job.ran.set_result(running.result())

    async def _fetch(self, ref: ray.ObjectRef[Any], size_hw: tuple[int, int]) -> Image | FramelaneError:
        """The pixels behind a ref, or why this frame cannot be served."""
        try:
            image = await asyncio.wait_for(_get(ref), MAX_FETCH_S)
            image_hwc = check_frame(image, max_frame_px=self._max_frame_px)
        except (RayError, asyncio.TimeoutError) as err:
            if isinstance(err, RaySystemError) and isinstance(err.client_exc, MemoryError):
                raise err.client_exc from err
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
        batch, height, width, _ = placed.batch_nhwc.shape
        shape = WarmShape(CanvasShape(height, width), batch)
        self._run_began = began_s, self._usual_s.get((bucket, shape), 0.0)
        try:
            num_frames, height, width, _ = placed.batch_nhwc.shape
            refusal = self._repair.refusal(bucket, WarmShape(CanvasShape(height, width), num_frames))
            if refusal is not None:  # since it was placed
                return _Run(None, FrameFailedError(refusal), 0.0, out_of_memory=True)
            output = detect_placed(self._engines[bucket], placed)
        except Exception as err:
            said = fields(engine_replica=self._replica, bucket=bucket)
            logger.exception("replica %s: batch of bucket %s failed", self._replica, bucket, extra=said)
            if isinstance(err, DeviceLostError):
                self._lost = str(err)
            reason = str(err) if isinstance(err, EngineError) else f"{type(err).__name__}: {err}"
            error = FrameFailedError(f"engine of bucket {bucket}: {reason}")
            return _Run(None, error, time.monotonic() - began_s, isinstance(err, OutOfMemory))
        finally:
            self._run_began = None
        return _Run(output, None, time.monotonic() - began_s)

    def _answer(self, bucket: str, run: _Run, slot: int) -> tuple[Detections, tuple[str, ...]] | FramelaneError:
        if run.output is None:
            return run.error or FrameFailedError("engine: no output")
        found = run.output.detections[slot]
        model = self._engines[bucket].model
        return found, tuple(model.class_name(int(class_id)) for class_id in found.class_ids)


def _started(
    plan: Plan, pool: str, make_engines: MakeEngines
) -> tuple[PoolEngines, DeviceFacts, tuple[tuple[str, WarmShape, float], ...]]:
    """The engines of a pool, warm, with what their device says and the seconds of their shapes."""
    # All are made before one is warm: engines that share a device say first what they will need of it.
    made = make_engines(plan, pool)
    try:
        return made, made.device.facts(), _warmed(made.by_bucket, plan.buckets_of(pool))
    except BaseException:
        made.close()
        raise


def _warmed(engines: Mapping[str, Engine], buckets: Sequence[Bucket]) -> tuple[tuple[str, WarmShape, float], ...]:
    """Warm every engine, then time each of its shapes: by bucket and shape, the seconds of a batch.

    The shortest of a few counts: while a service starts, other processes have much to do, and the first plans are made
    by these figures.
    """
    for bucket in buckets:
        engines[bucket.name].warm(bucket.warm_shapes())
    return tuple(
        (
            bucket.name,
            shape,
            min(_run_grey_s(engines[bucket.name], shape.canvas, shape.batch) for _ in range(NUM_TIMINGS)),
        )
        for bucket in buckets
        for shape in bucket.warm_shapes()
    )


async def _get(ref: ray.ObjectRef[Any]) -> object:
    return await ref


def _run_grey_s(engine: Engine, canvas: CanvasShape, batch: int) -> float:
    """Seconds of one batch on a warm engine, with nothing on it to find."""
    began_s = time.monotonic()
    engine.infer(np.full((batch, canvas.height, canvas.width, 3), FILL, np.uint8))
    return time.monotonic() - began_s
