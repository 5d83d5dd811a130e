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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from engines.errors import FrameArrayError
from engines.frame_array import check_frame
from engines.machine import machine_name
from serve_app.batching import Batch
from serve_app.direct_calls import DirectlyCalled, own_actor
from serve_app.errors import (
    FrameCancelledError,
    FrameExpiredError,
    FrameFailedError,
    FramelaneError,
    FrameRejectedError,
    FrameSupersededError,
    InvalidFrameError,
    ReplicaLeavingError,
)
from serve_app.frame_ends import AnsweredPiece, answered, refused, unserved
from serve_app.frame_log import FrameLog
from serve_app.frames import Frame, FrameMeta, check_meta
from serve_app.latency import LatencyModel, LatencyTable, Origin
from serve_app.overdue import OVERDUE_FLOOR_S
from serve_app.plan import Plan
from serve_app.plan_machine import joined
from serve_app.replica_watch import ReplicaWatch
from serve_app.results import (
    BatchReply,
    BatchRequest,
    FrameResult,
    PoolStatus,
    ReplicaReport,
    ServiceStatus,
)
from serve_app.scheduler import Scheduler
from serve_app.slow_probes import SlowProbes
from serve_app.ticket_desk import TicketDesk
from serve_app.tickets import ResultsPage, Ticket, TicketBook
from serve_app.verdicts import Outcome, Verdict, VerdictKind

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _InFlight:
    """A frame on its way: what was decided, where its pixels are, which pieces are back, and who waits for it."""

    frame: Frame
    verdict: Verdict
    ref: ray.ObjectRef[Any]
    answer: asyncio.Future[FrameResult]
    pieces: dict[int, AnsweredPiece] = field(default_factory=dict)


class Router(DirectlyCalled):
    """Takes frames from callers, gives them to engine replicas by the scheduler's decisions, answers each one once."""

    def __init__(
        self,
        plan: Plan,
        pools: Mapping[str, DeploymentHandle[Any]],
        frame_log: FrameLog | None,
        latency: LatencyModel | None = None,
    ) -> None:
        """Take the plan, a handle for each of its pools, where to record frames, and what is known of latencies."""
        self._plan = plan
        self._models = {bucket.name: bucket.model for bucket in plan.buckets}
        self._frame_log = frame_log
        self._scheduler = Scheduler(plan, latency)
        self._in_flight: dict[str, _InFlight] = {}
        self._desk = TicketDesk(
            TicketBook(
                max_tickets=plan.limits.max_tickets,
                ttl_s=plan.limits.ticket_ttl_s,
                first_cursor=time.time_ns() // 1000,
            ),
            time.monotonic,
        )
        self._replicas = ReplicaWatch(pools, self._reported)
        self._probes = SlowProbes(self._scheduler, self._replicas)
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
        _check_one_ref_a_frame(metas, refs)
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

    async def submit_tickets(
        self, metas: Sequence[FrameMeta], callback: Any, refs: Sequence[ray.ObjectRef[Any]]
    ) -> list[Ticket | FramelaneError]:
        """Take frames whose callers do not wait: a ticket for each, or why it was refused.

        Args:
            metas: what the client says of them.
            callback: a deployment handle or an actor's method: `callback.remote(result)` is called at each frame's end;
                None: nothing is called.
            refs: as for `submit_many`; their owner must live until the frames have ended.
        """
        _check_one_ref_a_frame(metas, refs)
        self._replicas.start()
        now_s = time.monotonic()
        tickets = [self._ticket(meta, ref, callback, now_s) for meta, ref in zip(metas, refs, strict=True)]
        self._pump()
        return tickets

    async def ticket_result(self, ticket_id: str, wait_s: float) -> FrameResult | None:
        """How the frame of a ticket ended; None if it has not within `wait_s`."""
        return await self._desk.result(ticket_id, wait_s)

    async def ticket_results(self, camera: str, cursor: int, wait_s: float) -> ResultsPage:
        """The results of a camera's tickets after a cursor, in the order in which they ended."""
        return await self._desk.results(camera, cursor, wait_s)

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
            self._record(refused(unseen, None, error), time.monotonic(), None)
            raise error from err
        meta = FrameMeta(uuid.uuid4().hex, camera, image_hwc.shape[:2], priority, slo_s)
        ref = await asyncio.to_thread(ray.put, image_hwc)
        return (await self.submit(meta, [ref])).unless_failed()

    async def status(self) -> ServiceStatus:
        """The service at a glance; the first call waits until the replicas have been counted."""
        self._replicas.start()
        await self._replicas.counted()
        self._pump()
        loads, now_s = self._scheduler.loads(), time.monotonic()
        pools = tuple(
            PoolStatus(
                name, load.num_waiting, load.num_running, self._replicas.reports(name), load.backlog_s, load.rung,
                load.around_s, self._scheduler.unfit_replicas(name, now_s),
            )
            for name, load in loads.items()
        )  # fmt: skip
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

    async def latency_table(self) -> LatencyTable:
        """How long batches take here now, as learnt from all that was served; at first what the warm-up measured."""
        self._replicas.start()
        await self._replicas.counted()
        devices = [report.device.name for pool in self._plan.pools for report in self._replicas.reports(pool.name)]
        return LatencyTable(joined(devices) or machine_name(), Origin.MEASURED, self._scheduler.latency.entries())

    async def door(self) -> object:
        """This router's actor, for clients that call it directly; see `direct_calls.py`."""
        return own_actor()

    def _arrived(self, meta: FrameMeta, ref: ray.ObjectRef[Any], now_s: float) -> asyncio.Future[FrameResult]:
        """Check and schedule one frame; its result, now or later."""
        answer: asyncio.Future[FrameResult] = asyncio.get_running_loop().create_future()
        try:
            frame = self._checked(meta, now_s)
        except InvalidFrameError as err:
            # A fresh error: the tracebacks of `err` and its cause hold this call's frame, and so would pin the pixels.
            result = refused(meta, None, InvalidFrameError(err.message))
            answer.set_result(self._record(result, now_s, None))
            return answer
        arrival = self._scheduler.arrived(frame)
        if arrival.superseded is not None:
            newer = FrameSupersededError("frame superseded: a newer one of its camera came while it waited")
            self._end_unserved(arrival.superseded, Outcome.SUPERSEDED, newer, now_s)
        verdict = arrival.verdict
        if verdict.kind is VerdictKind.REJECT:
            error = _rejection(verdict)
            answer.set_result(self._record(refused(meta, verdict, error), now_s, frame.deadline_s - now_s))
            return answer
        self._in_flight[frame.frame_id] = _InFlight(frame, verdict, ref, answer)
        return answer

    def _ticket(self, meta: FrameMeta, ref: ray.ObjectRef[Any], callback: Any, now_s: float) -> Ticket | FramelaneError:
        """Schedule one frame that nobody waits for."""
        frame_id, camera = str(meta.frame_id), str(meta.camera)
        try:
            self._desk.open(frame_id, camera)
        except FramelaneError as err:
            error = type(err)(err.message, err.retry_after_s)
            self._record(refused(meta, None, error), now_s, None)
            return error
        answer = self._arrived(meta, ref, now_s)
        if answer.done() and (rejection := answer.result().error) is not None:
            self._desk.withdrawn(frame_id)
            return rejection
        if callback is not None:
            self._desk.call_back(callback, answer)
        return self._desk.given(frame_id, camera, self._in_flight[frame_id].verdict, answer)

    def _checked(self, meta: FrameMeta, now_s: float) -> Frame:
        priority = check_meta(meta, max_frame_px=self._plan.limits.max_frame_px)
        if meta.frame_id in self._in_flight:
            raise InvalidFrameError(f"frame_id: got {meta.frame_id!r}, which is in flight; give every frame its own id")
        slo_s = self._plan.slo_s[priority] if meta.slo_s is None else float(meta.slo_s)
        size_hw = (int(meta.size_hw[0]), int(meta.size_hw[1]))
        num_bytes = size_hw[0] * size_hw[1] * 3
        if num_bytes > self._plan.limits.max_waiting_bytes:
            raise InvalidFrameError(
                f"frame: got {num_bytes:,} bytes, {self._plan.limits.max_waiting_bytes:,} allowed for all that wait; "
                "raise limits.max_waiting_bytes in the plan"
            )
        return Frame(meta.frame_id, meta.camera, size_hw, priority, now_s, now_s + slo_s, num_bytes)

    def _pump(self) -> None:
        """Do what the scheduler decides now, and come back when it is due again."""
        now_s = time.monotonic()
        decisions = self._scheduler.decide(now_s)
        for expired in decisions.expired:
            frame = expired.frame
            message = (
                f"frame expired: after {now_s - frame.arrived_s:.3f} s of waiting it could not be finished within its "
                f"{frame.deadline_s - frame.arrived_s:.3f} s"
            )
            entry = self._in_flight.pop(frame.frame_id)
            error = FrameExpiredError(message)
            self._end(entry, unserved(frame, entry.verdict, Outcome.EXPIRED, error, now_s, expired.route))
        self._give_up(decisions.given_up, "has not answered", now_s)
        loop = asyncio.get_running_loop()
        for batch in decisions.batches:
            # Now, not when the task starts: a frame of which a tile fails until then has left.
            refs = [self._in_flight[piece.frame.frame_id].ref for piece in batch.pieces]
            task = loop.create_task(self._send(batch, refs, now_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        wake_s = self._scheduler.next_wake_s()
        if wake_s is not None:
            self._wake = loop.call_later(max(0.0, wake_s - now_s), self._pump)

    async def _send(self, batch: Batch, refs: list[ray.ObjectRef[Any]], sent_s: float) -> None:
        """One call for the whole batch; then answer its frames and use the freed credit."""
        request = BatchRequest(
            batch.bucket, batch.canvas, batch.urgent,
            tuple(piece.frame.size_hw for piece in batch.pieces), tuple(piece.window for piece in batch.pieces),
        )  # fmt: skip
        try:
            line = self._replicas.line(batch.pool, batch.replica)
            if line is None:  # it was counted out between the decision and here
                raise RayActorError
            reply: BatchReply = await line.call("infer", request, refs=refs)
            if len(reply.frames) != len(refs):
                raise FrameFailedError(f"replica {reply.replica}: answered {len(reply.frames)} frames of {len(refs)}")
        except RayActorError as err:
            logger.warning("pool %s: replica %s died with batch %d: %r", batch.pool, batch.replica, batch.batch_id, err)
            self._replicas.died(batch.pool, batch.replica)
            now_s = time.monotonic()
            self._give_up(self._scheduler.batch_lost(batch.batch_id, now_s), "died", now_s)
        except ReplicaLeavingError:
            self._replicas.died(batch.pool, batch.replica)
            now_s = time.monotonic()
            self._give_up(self._scheduler.batch_refused(batch.batch_id, now_s), "was being stopped", now_s)
        except Exception as err:  # whatever else Ray or the replica raises must not leave callers waiting
            logger.exception("pool %s: batch %d failed", batch.pool, batch.batch_id)
            now_s = time.monotonic()
            failed = {piece.frame.frame_id: piece.frame for piece in batch.pieces if self._is_here(piece.frame)}
            self._scheduler.batch_ended(batch.batch_id, now_s, failed=failed)
            for frame in failed.values():
                if self._scheduler.has(frame.frame_id):
                    continue  # another replica has it as well
                error = FrameFailedError(f"frame: the call to its replica failed ({type(err).__name__}: {err})")
                self._end_unserved(frame, Outcome.FAILED, error, now_s)
        else:
            if reply.out_of_memory:
                self._out_of_memory(batch, reply)
            else:
                self._answer(batch, reply, sent_s)
        self._pump()

    def _out_of_memory(self, batch: Batch, reply: BatchReply) -> None:
        """Let the frames of a batch that was too large for its device try again in smaller ones, or smaller."""
        logger.warning(
            "pool %s: replica %s has no memory for %d frames on canvas %s of bucket %s; smaller batches for a while",
            batch.pool, reply.replica, len(batch.pieces), batch.canvas, batch.bucket,
        )  # fmt: skip
        now_s = time.monotonic()
        for frame in self._scheduler.batch_out_of_memory(batch.batch_id, now_s):
            error = FrameFailedError(
                f"frame: the device of pool {batch.pool} has no memory for canvas {batch.canvas}, and no time or "
                "cheaper rung was left; give the plan a ladder, or a smaller canvas"
            )
            self._end_unserved(frame, Outcome.FAILED, error, now_s)

    def _answer(self, batch: Batch, reply: BatchReply, sent_s: float) -> None:
        """Keep the answered pieces, and end the frames that are whole or failed."""
        now_s = time.monotonic()
        errors: dict[str, FramelaneError] = {}
        for piece, found in zip(batch.pieces, reply.frames, strict=True):
            if not self._is_here(piece.frame):
                continue  # cancelled or failed while this piece ran
            frame_id = piece.frame.frame_id
            before = self._in_flight[frame_id].pieces.get(piece.number)
            if before is not None and before.route is piece.route and before.found is not None:
                continue  # another replica, to which it went when this one was overdue, was first
            if isinstance(found, FramelaneError):
                errors[frame_id] = found
            self._in_flight[frame_id].pieces[piece.number] = AnsweredPiece(
                piece.route, batch.canvas, len(batch.pieces), reply, sent_s, now_s,
                None if isinstance(found, FramelaneError) else found,
            )  # fmt: skip
        busy_s = reply.infer_s + reply.postprocess_s
        has_run = reply.infer_s > 0  # an engine that failed at once has shown nothing of its pace
        done = self._scheduler.batch_ended(
            batch.batch_id,
            now_s,
            busy_s=busy_s if has_run else None,
            around_s=now_s - sent_s - reply.staged_s - busy_s,
            failed=errors,
        )
        failed = [frame_id for frame_id in errors if not self._scheduler.has(frame_id)]
        for frame_id in [*failed, *(frame.frame_id for frame in done)]:
            entry = self._in_flight.pop(frame_id)
            limits = self._plan.detection
            self._end(entry, answered(entry.frame, entry.verdict, entry.pieces, limits, errors.get(frame_id)))

    def _give_up(self, frames: Sequence[Frame], how: str, now_s: float) -> None:
        """End frames that were lost with a replica."""
        for frame in frames:
            error = FrameFailedError(f"frame: its replica {how}, and no time or attempt was left for another one")
            self._end_unserved(frame, Outcome.FAILED, error, now_s)

    def _is_here(self, frame: Frame) -> bool:
        """Whether a frame has not ended yet."""
        entry = self._in_flight.get(frame.frame_id)
        return entry is not None and entry.frame is frame

    def _end_unserved(self, frame: Frame, outcome: Outcome, error: FramelaneError, now_s: float) -> None:
        entry = self._in_flight.pop(frame.frame_id)
        self._end(entry, unserved(frame, entry.verdict, outcome, error, now_s))

    def _end(self, entry: _InFlight, result: FrameResult) -> None:
        """Record how a frame ended, and answer its caller if it still waits."""
        frame = entry.frame
        self._record(result, frame.arrived_s, frame.deadline_s - frame.arrived_s)
        if not entry.answer.done():
            entry.answer.set_result(result)

    def _reported(self, pool: str, reports: tuple[ReplicaReport, ...]) -> None:
        """The replicas of a pool were counted; that also wakes frames whose replica had died."""
        latency = self._scheduler.latency
        for report in reports:
            for bucket, shape, run_s in report.latencies:
                model = self._models.get(bucket)  # None: a replica of another plan, which is about to go
                if model is not None and not latency.is_measured(model, shape.canvas, shape.batch):
                    latency.observe(model, shape.canvas, shape.batch, run_s)
        self._scheduler.replicas_ready(pool, [report.replica for report in reports])
        for report in self._replicas.fresh(pool):
            if report.busy_s < OVERDUE_FLOOR_S:
                self._scheduler.replica_is_alive(pool, report.replica)
        self._probes.look(pool)
        self._pump()

    def _cancelled(self, frame_id: str) -> None:
        """A caller gave up: a waiting frame leaves its lane; one that runs is answered to nobody, but recorded."""
        entry = self._in_flight.get(frame_id)
        if entry is not None and self._scheduler.cancelled(frame_id):
            error = FrameCancelledError("frame cancelled by its caller while it waited")
            self._end_unserved(entry.frame, Outcome.CANCELLED, error, time.monotonic())

    def _record(self, result: FrameResult, at_s: float, slo_s: float | None) -> FrameResult:
        self._outcomes[result.outcome.value] += 1
        if self._frame_log is not None:
            self._frame_log.write(result, at_s, slo_s)
        return result


def _check_one_ref_a_frame(metas: Sequence[FrameMeta], refs: Sequence[ray.ObjectRef[Any]]) -> None:
    if len(metas) != len(refs):
        raise InvalidFrameError(f"frames: got {len(metas)} metadata and {len(refs)} refs, allowed is one ref a frame")


def _rejection(verdict: Verdict) -> FrameRejectedError:
    cure = "shrink it" if verdict.retry_after_s is None else f"try again in {verdict.retry_after_s:.2f} s"
    return FrameRejectedError(f"frame rejected: {verdict.reason}; {cure}", verdict.retry_after_s)
