"""What a router logs: what went wrong and what has changed. Never a line for a good frame: the frame log has those."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping

from serve_app.batching import Batch
from serve_app.errors import FrameLostError, InvalidFrameError
from serve_app.log_fields import EXTRA_FIELDS, Extra, fields
from serve_app.metrics import refusal_cause
from serve_app.pool_load import PoolLoad
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome

logger = logging.getLogger(__name__)

# Of frames that are refused one line a second says how many: a fleet that is refused sends hundreds.
REFUSALS_INTERVAL_S = 1.0

FAILED, REJECTED = Outcome.FAILED, Outcome.REJECTED


class RouterLog:
    """Writes the lines of one router. Reads no clock."""

    def __init__(self) -> None:
        """Begin with nothing said."""
        self._refused: Counter[str] = Counter()
        # Of the first frame that was refused: words, because a result would keep its error alive.
        self._refusal: tuple[str, Extra] | None = None
        self._told_s = -math.inf
        self._loads: dict[str, PoolLoad] = {}

    def frame_ended(self, result: FrameResult) -> None:
        """A frame has ended; a failed one is told at once, a refused one with others of its second."""
        if result.outcome is FAILED:
            # Pixels that are gone, or not what was announced, are their sender's fault.
            is_theirs = isinstance(result.error, (FrameLostError, InvalidFrameError))
            logger.log(
                logging.WARNING if is_theirs else logging.ERROR,
                "frame %s failed: %s", result.frame_id, result.error,
                extra=fields(
                    frame_id=result.frame_id, camera=result.camera, priority=result.priority, pool=result.pool,
                    outcome=result.outcome.value, bucket=result.bucket, model=result.model,
                    engine_replica=result.replica,
                ),
            )  # fmt: skip
        elif result.outcome is REJECTED:
            cause = refusal_cause(result).value
            self._refused[cause] += 1
            if self._refusal is None:
                said = fields(frame_id=str(result.frame_id), camera=str(result.camera), cause=cause)
                self._refusal = str(result.error), said

    def replica_died(self, batch: Batch, err: BaseException) -> None:
        """A call found a replica dead."""
        logger.warning(
            "pool %s: replica %s died with batch %d: %r", batch.pool, batch.replica, batch.batch_id, err,
            extra=fields(pool=batch.pool, engine_replica=batch.replica, batch_id=batch.batch_id),
        )  # fmt: skip

    def tick(self, now_s: float, loads: Mapping[str, PoolLoad]) -> None:
        """Tell what has changed, and what was refused; to be called about once a second."""
        for pool, load in loads.items():
            self._compare(pool, self._loads.get(pool), load)
        self._loads = dict(loads)
        if self._refusal is not None and now_s - self._told_s >= REFUSALS_INTERVAL_S:
            self._told_s = now_s
            (reason, said), number = self._refusal, self._refused.total()
            causes = ", ".join(f"{count} {cause}" for cause, count in self._refused.most_common())
            said[EXTRA_FIELDS]["num_frames"] = number
            logger.warning("%d frames refused (%s); the first one: %s", number, causes, reason, extra=said)
            self._refused.clear()
            self._refusal = None

    @staticmethod
    def _compare(pool: str, before: PoolLoad | None, now: PoolLoad) -> None:
        if before is None:
            return
        if now.num_replicas != before.num_replicas:
            logger.info(
                "pool %s: %d replicas ready, were %d", pool, now.num_replicas, before.num_replicas,
                extra=fields(pool=pool, num_replicas=now.num_replicas),
            )  # fmt: skip
        if now.memory is not before.memory:
            logger.warning(
                "pool %s: memory %s, was %s", pool, now.memory.name.lower(), before.memory.name.lower(),
                extra=fields(pool=pool, level=now.memory.name.lower()),
            )  # fmt: skip
        if now.rung != before.rung:
            logger.info(
                "pool %s: noncritical frames from rung %d on, was %d", pool, now.rung, before.rung,
                extra=fields(pool=pool, rung=now.rung),
            )  # fmt: skip
