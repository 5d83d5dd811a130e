"""A router's batches on their way: one call each, and what its answer, or its loss, means for the frames."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError

from serve_app.batching import Batch
from serve_app.errors import FrameFailedError, FramelaneError, ReplicaLeavingError
from serve_app.frame_book import FrameBook
from serve_app.frame_ends import AnsweredPiece, answered
from serve_app.frames import Frame
from serve_app.log_fields import fields
from serve_app.metrics import RouterMetrics
from serve_app.plan import Plan
from serve_app.replica_news import ReplicaNews
from serve_app.replica_watch import ReplicaWatch
from serve_app.results import BatchReply, BatchRequest, ReplicaReport
from serve_app.router_credits import RouterCredits
from serve_app.router_log import RouterLog
from serve_app.scheduler import Scheduler
from serve_app.verdicts import Outcome

logger = logging.getLogger(__name__)


class BatchCalls:
    """Sends batches to the replicas that the scheduler chose; every one comes back to it as ended, lost or refused."""

    def __init__(
        self,
        router: str,
        plan: Plan,
        scheduler: Scheduler,
        replicas: ReplicaWatch[ReplicaReport],
        book: FrameBook,
        *,
        grants: RouterCredits,
        news: ReplicaNews,
        log: RouterLog,
        metrics: RouterMetrics,
    ) -> None:
        """Take the router's name and its parts."""
        self._router = router
        self._plan = plan
        self._scheduler = scheduler
        self._replicas = replicas
        self._book = book
        self._grants = grants
        self._news = news
        self._log = log
        self._metrics = metrics

    async def send(self, batch: Batch, refs: list[ray.ObjectRef[Any]], sent_s: float) -> None:
        """One call for the whole batch; then its frames are answered, and its credit is free again."""
        request = BatchRequest(
            batch.bucket, batch.canvas, batch.urgent,
            tuple(piece.frame.size_hw for piece in batch.pieces), tuple(piece.window for piece in batch.pieces),
            self._router, batch.run_s,
        )  # fmt: skip
        try:
            line = self._replicas.line(batch.pool, batch.replica)
            if line is None:  # it was counted out between the decision and here
                raise RayActorError
            reply: BatchReply = await line.call("infer", request, refs=refs)
            if len(reply.frames) != len(refs) and not reply.no_credit:
                raise FrameFailedError(f"replica {reply.replica}: answered {len(reply.frames)} frames of {len(refs)}")
        except RayActorError as err:
            self._log.replica_died(batch, err)
            self._metrics.batch_lost(batch, has_died=True)
            self._replicas.died(batch.pool, batch.replica)
            now_s = time.monotonic()
            self.give_up(self._scheduler.batch_lost(batch.batch_id, now_s), "died", now_s)
        except ReplicaLeavingError:
            self._replicas.died(batch.pool, batch.replica)
            now_s = time.monotonic()
            self.give_up(self._scheduler.batch_refused(batch.batch_id, now_s), "was being stopped", now_s)
        except Exception as err:  # whatever else Ray or the replica raises must not leave callers waiting
            self._failed(batch, err)
        else:
            self._replied(batch, reply, sent_s)

    def give_up(self, frames: Sequence[Frame], how: str, now_s: float) -> None:
        """End frames that were lost with a replica."""
        for frame in frames:
            error = FrameFailedError(f"frame: its replica {how}, and no time or attempt was left for another one")
            self._book.end_unserved(frame, Outcome.FAILED, error, now_s)

    def _failed(self, batch: Batch, err: Exception) -> None:
        """The call failed, and nobody knows why: its frames end, except those that another replica has as well."""
        said = fields(pool=batch.pool, engine_replica=batch.replica, batch_id=batch.batch_id)
        logger.error("pool %s: batch %d failed", batch.pool, batch.batch_id, exc_info=err, extra=said)
        self._metrics.batch_lost(batch, has_died=False)
        now_s = time.monotonic()
        failed = {piece.frame.frame_id: piece.frame for piece in batch.pieces if self._book.is_here(piece.frame)}
        self._scheduler.batch_ended(batch.batch_id, now_s, failed=failed)
        for frame in failed.values():
            if not self._scheduler.has(frame.frame_id):
                error = FrameFailedError(f"frame: the call to its replica failed ({type(err).__name__}: {err})")
                self._book.end_unserved(frame, Outcome.FAILED, error, now_s)

    def _replied(self, batch: Batch, reply: BatchReply, sent_s: float) -> None:
        """A replica has answered a batch, or refused it."""
        self._grants.granted(batch.pool, batch.replica, reply.grant, time.monotonic())
        if reply.no_credit:
            self._grants.refused(batch.pool, batch.replica)
            now_s = time.monotonic()
            self.give_up(self._scheduler.batch_refused(batch.batch_id, now_s), "had no credit for it", now_s)
        elif reply.out_of_memory:
            self._out_of_memory(batch, reply)
        else:
            self._answer(batch, reply, sent_s)

    def _out_of_memory(self, batch: Batch, reply: BatchReply) -> None:
        """Let the frames of a batch that was too large for its device try again in smaller ones, or smaller."""
        logger.warning(
            "pool %s: replica %s has no memory for %d frames on canvas %s of bucket %s; smaller batches for a while",
            batch.pool, reply.replica, len(batch.pieces), batch.canvas, batch.bucket,
            extra=fields(pool=batch.pool, engine_replica=reply.replica, bucket=batch.bucket, batch_id=batch.batch_id),
        )  # fmt: skip
        self._metrics.out_of_memory(batch)
        now_s = time.monotonic()
        reason = next((str(each) for each in reply.frames if isinstance(each, FrameFailedError)), "no reason given")
        elsewhere = self._news.out_of_memory(batch.pool, batch.replica, is_broken=reply.is_broken)
        for frame in self._scheduler.batch_out_of_memory(batch.batch_id, now_s, elsewhere=elsewhere):
            error = FrameFailedError(
                f"frame: the device of pool {batch.pool} has no memory for canvas {batch.canvas} ({reason}), and no "
                "time or cheaper rung was left; give the plan a ladder, or a smaller canvas"
            )
            self._book.end_unserved(frame, Outcome.FAILED, error, now_s)

    def _answer(self, batch: Batch, reply: BatchReply, sent_s: float) -> None:
        """Keep the answered pieces, and end the frames that are whole or failed."""
        self._metrics.batch_answered(batch, reply)
        now_s = time.monotonic()
        errors: dict[str, FramelaneError] = {}
        for piece, found in zip(batch.pieces, reply.frames, strict=True):
            if not self._book.is_here(piece.frame):
                continue  # cancelled or failed while this piece ran
            pieces = self._book.entry(piece.frame.frame_id).pieces
            before = pieces.get(piece.number)
            if before is not None and before.route is piece.route and before.found is not None:
                continue  # another replica, to which it went when this one was overdue, was first
            if isinstance(found, FramelaneError):
                errors[piece.frame.frame_id] = found
            pieces[piece.number] = AnsweredPiece(
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
            entry = self._book.entry(frame_id)
            limits = self._plan.detection
            result = answered(entry.frame, entry.verdict, entry.pieces, limits, errors.get(frame_id))
            self._book.end(entry, result)
