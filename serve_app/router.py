"""The router: drives the scheduler with what really happens, sends its batches, answers and records every frame.

It holds no policy: order, admission and batches are `scheduler.py`'s. Pixels never pass here, only object refs.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from engines.detections import Detections
from engines.errors import FrameArrayError
from engines.frame_array import check_frame
from engines.letterbox import placement
from serve_app.batching import Batch
from serve_app.errors import (
    FrameCancelledError,
    FrameExpiredError,
    FrameFailedError,
    FramelaneError,
    FrameRejectedError,
    InvalidFrameError,
)
from serve_app.frame_log import FrameLog
from serve_app.frames import Frame, FrameMeta, check_meta
from serve_app.plan import Plan
from serve_app.replica_watch import ReplicaWatch
from serve_app.results import (
    BatchReply,
    BatchRequest,
    FrameResult,
    PoolStatus,
    ServiceStatus,
    StageTimes,
)
from serve_app.scheduler import Scheduler
from serve_app.verdicts import Outcome, Verdict, VerdictKind

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _InFlight:
    """A frame on its way: what was decided, where its pixels are, and who waits for it."""

    frame: Frame
    verdict: Verdict
    ref: ray.ObjectRef[Any]
    answer: asyncio.Future[FrameResult]


class Router:
    """Takes frames from callers, gives them to engine replicas by the scheduler's decisions, answers each one once."""

    def __init__(self, plan: Plan, pools: Mapping[str, DeploymentHandle[Any]], frame_log: FrameLog | None) -> None:
        """Take the plan, a handle for each of its pools, and where to record frames; nothing starts yet."""
        self._plan = plan
        self._buckets = {bucket.name: bucket for bucket in plan.buckets}
        self._pools = dict(pools)
        self._frame_log = frame_log
        self._scheduler = Scheduler(plan)
        self._in_flight: dict[str, _InFlight] = {}
        self._replicas = ReplicaWatch(pools, self._counted)
        self._outcomes: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake: asyncio.TimerHandle | None = None
        self._started_s = time.monotonic()

    async def submit(self, meta: FrameMeta, refs: Sequence[ray.ObjectRef[Any]]) -> FrameResult:
        """Serve one frame.

        Args:
            meta: what the client says of it.
            refs: one ref to its pixels, nested in a list so that Ray does not fetch it here.

        Returns:
            How it ended, whatever that is; look at `outcome` and `error`, or call `unless_failed()`.
        """
        return (await self.submit_many([meta], refs))[0]

    async def submit_many(self, metas: Sequence[FrameMeta], refs: Sequence[ray.ObjectRef[Any]]) -> list[FrameResult]:
        """Serve several frames of one call; one result each, in their order. See `submit`."""
        if len(metas) != len(refs):
            raise InvalidFrameError(
                f"frames: got {len(metas)} metadata and {len(refs)} refs, allowed is one ref a frame"
            )
        self._replicas.start()
        now_s = time.monotonic()
        answers = [self._arrived(meta, ref, now_s) for meta, ref in zip(metas, refs, strict=True)]
        self._pump()
        try:
            return list(await asyncio.gather(*answers))
        except asyncio.CancelledError:
            # Cancelled with this call were the answers still due, and no frame of another call that has the same id.
            for meta, answer in zip(metas, answers, strict=True):
                if answer.cancelled():
                    self._cancelled(meta.frame_id)
            raise

    async def __call__(
        self,
        image_hwc: npt.NDArray[np.uint8],
        camera: str = "camera",
        priority: str = "normal",
        slo_s: float | None = None,
    ) -> FrameResult:
        """Serve one numpy frame for callers that use a plain `DeploymentHandle` and no client library.

        Args:
            image_hwc: uint8 `(height, width, 3)` BGR.
            camera: who took it.
            priority: `critical` or `normal`.
            slo_s: seconds from now until it must be finished; None: the plan's default.

        Raises:
            FramelaneError: the frame did not finish; the subclass says why.
        """
        try:
            image_hwc = check_frame(image_hwc, max_frame_px=self._plan.limits.max_frame_px)
        except FrameArrayError as err:
            unseen = FrameMeta(uuid.uuid4().hex, camera, (0, 0), priority, slo_s)
            error = InvalidFrameError(str(err))
            self._record(_refused(unseen, None, error))
            raise error from err
        meta = FrameMeta(uuid.uuid4().hex, camera, image_hwc.shape[:2], priority, slo_s)
        ref = await asyncio.to_thread(ray.put, image_hwc)
        return (await self.submit(meta, [ref])).unless_failed()

    async def status(self) -> ServiceStatus:
        """The service at a glance; the first call waits until the replicas have been counted."""
        self._replicas.start()
        await self._replicas.counted()
        loads = self._scheduler.loads()
        pools = tuple(
            PoolStatus(name, load.num_waiting, load.num_running, self._replicas.reports(name))
            for name, load in loads.items()
        )
        return ServiceStatus(
            time.monotonic() - self._started_s,
            pools,
            dict(self._outcomes),
            num_in_flight=len(self._in_flight),
            num_records_lost=self._frame_log.num_lost if self._frame_log else 0,
        )

    async def plan(self) -> Plan:
        """The plan that is served."""
        return self._plan

    def _arrived(self, meta: FrameMeta, ref: ray.ObjectRef[Any], now_s: float) -> asyncio.Future[FrameResult]:
        """Check and schedule one frame; its result, now or later."""
        answer: asyncio.Future[FrameResult] = asyncio.get_running_loop().create_future()
        try:
            frame = self._checked(meta, now_s)
        except InvalidFrameError as err:
            # A fresh error: the tracebacks of `err` and its cause hold this call's frame, and so would pin the pixels.
            answer.set_result(self._record(_refused(meta, None, InvalidFrameError(err.message))))
            return answer
        verdict = self._scheduler.arrived(frame)
        if verdict.kind is VerdictKind.REJECT:
            error = FrameRejectedError(f"frame rejected: {verdict.reason}; try again later", verdict.retry_after_s)
            answer.set_result(self._record(_refused(meta, verdict, error)))
            return answer
        self._in_flight[frame.frame_id] = _InFlight(frame, verdict, ref, answer)
        return answer

    def _checked(self, meta: FrameMeta, now_s: float) -> Frame:
        priority = check_meta(meta, max_frame_px=self._plan.limits.max_frame_px)
        if meta.frame_id in self._in_flight:
            raise InvalidFrameError(f"frame_id: got {meta.frame_id!r}, which is in flight; give every frame its own id")
        slo_s = self._plan.slo_s[priority] if meta.slo_s is None else meta.slo_s
        size_hw = (int(meta.size_hw[0]), int(meta.size_hw[1]))
        num_bytes = size_hw[0] * size_hw[1] * 3
        if num_bytes > self._plan.limits.max_waiting_bytes:
            raise InvalidFrameError(
                f"frame: got {num_bytes:,} bytes, {self._plan.limits.max_waiting_bytes:,} allowed for all that wait; "
                "raise limits.max_waiting_bytes in the plan"
            )
        choice = self._plan.canvas_for(meta.camera, size_hw)
        return Frame(
            meta.frame_id, meta.camera, size_hw, priority, now_s, now_s + slo_s,
            choice.bucket.name, choice.canvas, num_bytes,
        )  # fmt: skip

    def _pump(self) -> None:
        """Do what the scheduler decides now, and come back when the next frame expires."""
        now_s = time.monotonic()
        decisions = self._scheduler.decide(now_s)
        for frame in decisions.expired:
            waited_s = now_s - frame.arrived_s
            message = f"frame expired: its {frame.deadline_s - frame.arrived_s:.3f} s passed while it waited"
            self._finish(frame, Outcome.EXPIRED, FrameExpiredError(message), StageTimes(waited_s, total_s=waited_s))
        for batch in decisions.batches:
            task = asyncio.get_running_loop().create_task(self._send(batch, now_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        deadline_s = self._scheduler.next_deadline_s()
        if deadline_s is not None:
            self._wake = asyncio.get_running_loop().call_later(max(0.0, deadline_s - now_s), self._pump)

    async def _send(self, batch: Batch, sent_s: float) -> None:
        """One call for the whole batch; then answer its frames and use the freed credit."""
        refs = [self._in_flight[frame.frame_id].ref for frame in batch.frames]
        request = BatchRequest(batch.bucket, batch.canvas, tuple(frame.size_hw for frame in batch.frames))
        try:
            reply: BatchReply = await self._pools[batch.pool].infer.remote(request, refs)
            if len(reply.frames) != len(refs):
                raise FrameFailedError(f"replica {reply.replica}: answered {len(reply.frames)} frames of {len(refs)}")
        except RayActorError as err:
            # One replica fewer until they are counted again, or the retry would go to the dead one as well.
            num_left = max(0, self._scheduler.loads()[batch.pool].num_replicas - 1)
            self._scheduler.replicas_ready(batch.pool, num_left)
            given_up = self._scheduler.batch_lost(batch.batch_id, time.monotonic())
            logger.warning("pool %s: a replica died with batch %d: %s", batch.pool, batch.batch_id, err)
            for frame in given_up:
                error = FrameFailedError("frame: its replica died, and no time or attempt was left for another one")
                self._finish(frame, Outcome.FAILED, error, StageTimes(total_s=time.monotonic() - frame.arrived_s))
        except Exception as err:  # whatever else Ray or the replica raises must not leave callers waiting
            logger.exception("pool %s: batch %d failed", batch.pool, batch.batch_id)
            self._scheduler.batch_ended(batch.batch_id)
            for frame in batch.frames:
                error = FrameFailedError(f"frame: the call to its replica failed ({type(err).__name__}: {err})")
                self._finish(frame, Outcome.FAILED, error, StageTimes(total_s=time.monotonic() - frame.arrived_s))
        else:
            self._scheduler.batch_ended(batch.batch_id)
            self._answer(batch, reply, sent_s)
        self._pump()

    def _answer(self, batch: Batch, reply: BatchReply, sent_s: float) -> None:
        now_s = time.monotonic()
        inside_s = reply.preprocess_s + reply.staged_s + reply.infer_s + reply.postprocess_s
        for frame, answered in zip(batch.frames, reply.frames, strict=True):
            times = StageTimes(
                queue_s=sent_s - frame.arrived_s + reply.staged_s,
                transfer_s=now_s - sent_s - inside_s,
                preprocess_s=reply.preprocess_s,
                infer_s=reply.infer_s,
                postprocess_s=reply.postprocess_s,
                total_s=now_s - frame.arrived_s,
            )
            if isinstance(answered, FramelaneError):
                self._finish(frame, Outcome.FAILED, answered, times, batch=batch, reply=reply)
            else:
                self._finish(frame, Outcome.FINISHED, None, times, batch=batch, reply=reply, found=answered)

    def _finish(
        self,
        frame: Frame,
        outcome: Outcome,
        error: FramelaneError | None,
        times: StageTimes,
        *,
        batch: Batch | None = None,
        reply: BatchReply | None = None,
        found: tuple[Detections, tuple[str, ...]] | None = None,
    ) -> None:
        """Record how a frame ended, let go of its pixels, and answer its caller if it still waits."""
        entry = self._in_flight.pop(frame.frame_id)
        detections, class_names = found or (Detections.none(), ())
        bucket = self._buckets[frame.bucket]
        result = FrameResult(
            frame.frame_id, frame.camera, frame.size_hw, frame.priority.value, outcome, detections, class_names,
            entry.verdict, error, frame.bucket, bucket.pool, reply.replica if reply else None, bucket.model,
            frame.canvas, len(batch.frames) if batch else 0,
            placement(frame.size_hw, frame.canvas).padding_fraction, times,
        )  # fmt: skip
        self._record(result)
        if not entry.answer.done():
            entry.answer.set_result(result)

    def _counted(self, pool: str, num_replicas: int) -> None:
        """The replicas of a pool were counted; that also wakes frames whose replica had died."""
        self._scheduler.replicas_ready(pool, num_replicas)
        self._pump()

    def _cancelled(self, frame_id: str) -> None:
        """A caller gave up: a waiting frame leaves its lane; one that runs is answered to nobody, but recorded."""
        entry = self._in_flight.get(frame_id)
        if entry is not None and self._scheduler.cancelled(frame_id):
            waited_s = time.monotonic() - entry.frame.arrived_s
            error = FrameCancelledError("frame cancelled by its caller while it waited")
            self._finish(entry.frame, Outcome.CANCELLED, error, StageTimes(waited_s, total_s=waited_s))

    def _record(self, result: FrameResult) -> FrameResult:
        self._outcomes[result.outcome.value] += 1
        if self._frame_log is not None:
            self._frame_log.write(result)
        return result


def _refused(meta: FrameMeta, verdict: Verdict | None, error: FramelaneError) -> FrameResult:
    """The result of a frame that was not let in."""
    return FrameResult(
        meta.frame_id, meta.camera, meta.size_hw, meta.priority, Outcome.REJECTED, Detections.none(), (),
        verdict, error,
    )  # fmt: skip
