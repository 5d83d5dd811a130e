"""The batcher to compare with: one queue, and a batch that closes at the first frame of another shape, as Triton's.

Triton's dynamic batcher takes requests in order and cannot hold one back for a later batch, so the batch ends where
the shape changes (`allow_ragged_batch` off). It drives the simulator through the same events as `Scheduler`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable

from serve_app.batching import Batch, Piece
from serve_app.decisions import NOTHING, Arrival, Decisions, Expired
from serve_app.frames import Frame
from serve_app.latency import LatencyModel
from serve_app.plan import DEFAULT_RULE, Plan
from serve_app.route import Route
from serve_app.routes import RouteTable
from serve_app.verdicts import Verdict, VerdictKind

ADMITTED = Verdict(VerdictKind.ADMIT, "every frame is let in")


class ShapeClosing:
    """One FIFO for the plan's first pool; at most `max_held` batches a replica, as many as the real scheduler stages.

    A batch takes the head and what directly follows it on the same canvas, up to the bucket's largest batch size, also
    sizes between the warmed ones. Frames whose deadline has passed leave when they come to the head (Triton's queue
    time-out), which only helps it.
    """

    def __init__(self, plan: Plan, latency: LatencyModel, *, max_held: int = 2) -> None:
        """Take the plan (its first pool serves all), the model that routes need, and the batches a replica holds."""
        self._pool = plan.pools[0].name
        self._routes = RouteTable(plan, latency)
        self._latency = latency
        self._max_held = max_held
        self._largest = {bucket.name: bucket.batches[-1] for bucket in plan.buckets}
        self._queue: deque[tuple[Frame, Route]] = deque()
        self._held: dict[str, int] = {}
        self._batches: dict[int, tuple[str, tuple[Frame, ...]]] = {}
        self._ids = itertools.count(1)

    def arrived(self, frame: Frame) -> Arrival:
        """Every frame joins the end."""
        self._queue.append((frame, self._routes.routes(DEFAULT_RULE, frame.size_hw, frame.priority)[0]))
        return Arrival(ADMITTED)

    def decide(self, now_s: float) -> Decisions:
        """While a replica has room: close the next batch, for the one that holds the fewest."""
        batches: list[Batch] = []
        expired: list[Expired] = []
        while self._queue and self._held:
            replica = min(self._held, key=self._held.__getitem__)
            if self._held[replica] >= self._max_held:
                break
            frames = self._closed(now_s, expired)
            if frames:
                batches.append(self._sent(replica, frames))
        return Decisions(tuple(batches), tuple(expired)) if batches or expired else NOTHING

    def next_wake_s(self) -> float | None:
        """Frames expire at the head of the queue only."""
        return None

    def batch_ended(
        self,
        batch_id: int,
        now_s: float,
        *,
        busy_s: float | None = None,
        around_s: float | None = None,
        failed: Iterable[str] = (),
    ) -> tuple[Frame, ...]:
        """A replica has room again."""
        del now_s, busy_s, around_s, failed
        return self._back(batch_id)

    def batch_lost(self, batch_id: int, now_s: float) -> tuple[Frame, ...]:
        """All its frames are given up."""
        del now_s
        return self._back(batch_id)

    def replicas_ready(self, pool: str, replicas: Collection[str]) -> None:
        """Those that are new hold nothing."""
        if pool == self._pool:
            self._held = {name: self._held.get(name, 0) for name in replicas}

    def _closed(self, now_s: float, expired: list[Expired]) -> list[tuple[Frame, Route]]:
        frames: list[tuple[Frame, Route]] = []
        while self._queue:
            frame, route = self._queue[0]
            if frame.deadline_s <= now_s:
                expired.append(Expired(frame, route))
                self._queue.popleft()
                continue
            if frames and (route.canvas != frames[0][1].canvas or len(frames) >= self._largest[route.bucket]):
                break
            frames.append(self._queue.popleft())
        return frames

    def _sent(self, replica: str, frames: list[tuple[Frame, Route]]) -> Batch:
        route = frames[0][1]
        run_s = self._latency.predict_s(route.model, route.canvas, len(frames))
        pieces = tuple(Piece(frame, own, 0) for frame, own in frames)
        batch = Batch(
            next(self._ids), self._pool, replica, route.bucket, route.model, route.canvas, False, run_s, pieces
        )
        self._held[replica] += 1
        self._batches[batch.batch_id] = replica, tuple(frame for frame, _ in frames)
        return batch

    def _back(self, batch_id: int) -> tuple[Frame, ...]:
        replica, frames = self._batches.pop(batch_id)
        if replica in self._held:
            self._held[replica] -= 1
        return frames
