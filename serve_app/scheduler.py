"""The pure heart: events in, decisions out. It reads no clock, does no I/O and knows nothing of Ray.

Whoever drives it (the router, a test, the simulator) says what happened and when (`now_s`, monotonic seconds), then
asks `decide` what to do. Every frame that `arrived` admits leaves exactly once: in an `Expired` decision, through
`cancelled`, or by the end of its batch.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass

from serve_app.batching import Batch, LaneKey, most_urgent_lane, warmed_batch_size
from serve_app.errors import FramelaneError
from serve_app.frames import Frame
from serve_app.lanes import Lane
from serve_app.plan import Plan
from serve_app.verdicts import Verdict, VerdictKind

# One batch runs, one is fetched and placed meanwhile; a third would only take late decisions early.
CREDITS_PER_REPLICA = 2
# A frame whose replica died is tried once more: twice in a row is the frame's fault as likely as the replica's.
MAX_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Decisions:
    """What to do now: batches to send (their credits are taken), frames to answer as expired."""

    batches: tuple[Batch, ...]
    expired: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """What one pool has to do.

    Attributes:
        num_replicas: replicas that are ready.
        num_waiting: frames in its lanes.
        num_running: batches at its replicas.
    """

    num_replicas: int
    num_waiting: int
    num_running: int


class SchedulerStateError(FramelaneError):
    """An event that cannot have happened, such as the end of a batch that was never sent; nothing was changed."""


class Scheduler:
    """Strict priority, then earliest deadline, over all lanes of a pool; one canvas a batch.

    Algorithm: while a pool has a credit, the most urgent lane (critical first, then the earliest deadline) gives the
    largest warmed batch that it fills. Nothing waits for company: batches grow by themselves while replicas are busy.
    Order: within a lane by deadline, then arrival. Bound: a critical frame waits for the batches that hold the pool's
    credits and for critical frames with earlier deadlines. Fairness: normal frames have none against critical ones;
    what waits too long expires. Liveness: with one ready replica every waiting frame is sent or expires.
    """

    def __init__(self, plan: Plan) -> None:
        """Start with empty lanes and no replica."""
        self._plan = plan
        self._pool_of_bucket = {bucket.name: bucket.pool for bucket in plan.buckets}
        self._ladder_of_bucket = {bucket.name: bucket.batches for bucket in plan.buckets}
        self._lanes: dict[str, dict[LaneKey, Lane]] = {pool.name: {} for pool in plan.pools}
        self._num_replicas = {pool.name: 0 for pool in plan.pools}
        self._running: dict[int, Batch] = {}
        self._num_running: defaultdict[str, int] = defaultdict(int)
        self._lane_of_frame: dict[str, tuple[str, LaneKey]] = {}
        self._attempts: defaultdict[str, int] = defaultdict(int)
        self._waiting_bytes = 0
        self._batch_ids = itertools.count(1)

    @property
    def num_waiting(self) -> int:
        """Frames in all lanes."""
        return len(self._lane_of_frame)

    def loads(self) -> dict[str, PoolLoad]:
        """What each pool has to do."""
        return {
            pool: PoolLoad(self._num_replicas[pool], sum(map(len, lanes.values())), self._num_running[pool])
            for pool, lanes in self._lanes.items()
        }

    def next_deadline_s(self) -> float | None:
        """When the first waiting frame expires; None if none waits. Call `decide` then at the latest."""
        firsts = (lane.first() for lanes in self._lanes.values() for lane in lanes.values())
        return min((first.deadline_s for first in firsts if first is not None), default=None)

    def arrived(self, frame: Frame) -> Verdict:
        """Admit a frame to its lane, or reject it when the count or byte budget is full.

        Raises:
            SchedulerStateError: a frame of this id waits or runs.
        """
        if frame.frame_id in self._lane_of_frame or frame.frame_id in self._attempts:
            raise SchedulerStateError(f"frame {frame.frame_id}: is here already; give every frame an id of its own")
        limits = self._plan.limits
        if self.num_waiting >= limits.max_waiting_frames:
            reason = f"{self.num_waiting} frames wait, allowed are {limits.max_waiting_frames}"
        elif self._waiting_bytes + frame.num_bytes > limits.max_waiting_bytes:
            waiting = f"{self._waiting_bytes:,} bytes wait and the frame has {frame.num_bytes:,}"
            reason = f"{waiting}, allowed are {limits.max_waiting_bytes:,}"
        else:
            self._enqueue(frame)
            return Verdict(VerdictKind.ADMIT, "room in its lane")
        return Verdict(VerdictKind.REJECT, reason, retry_after_s=self._plan.slo_s[frame.priority])

    def cancelled(self, frame_id: str) -> bool:
        """Take a waiting frame out; False if it does not wait (any more): then its batch runs on."""
        place = self._lane_of_frame.get(frame_id)
        if place is None:
            return False
        pool, key = place
        frame = self._lanes[pool][key].remove(frame_id)
        if frame is not None:
            self._left_lane(frame)
            self._attempts.pop(frame_id, None)
        return frame is not None

    def replicas_ready(self, pool: str, num_replicas: int) -> None:
        """Say how many replicas of a pool take batches now."""
        if pool not in self._num_replicas or num_replicas < 0:
            raise SchedulerStateError(
                f"pool {pool!r}: got {num_replicas} replicas; allowed are 0 or more of a plan's pool"
            )
        self._num_replicas[pool] = num_replicas

    def decide(self, now_s: float) -> Decisions:
        """Expire what is late and send what the free credits allow."""
        expired = [
            frame for lanes in self._lanes.values() for lane in lanes.values() for frame in lane.pop_expired(now_s)
        ]
        for frame in expired:
            self._left_lane(frame)
            self._attempts.pop(frame.frame_id, None)
        batches = [batch for pool in self._lanes for batch in self._batches_of(pool)]
        return Decisions(tuple(batches), tuple(expired))

    def batch_ended(self, batch_id: int) -> None:
        """A batch was answered (its frames may have failed one by one); its credit is free again."""
        for frame in self._take_back(batch_id).frames:
            self._attempts.pop(frame.frame_id, None)

    def batch_lost(self, batch_id: int, now_s: float) -> tuple[Frame, ...]:
        """The replica died with a batch: its frames wait again, where deadline and attempts allow.

        Returns:
            The frames that were given up, for the caller to answer.
        """
        batch = self._take_back(batch_id)
        given_up = []
        for frame in batch.frames:
            if self._attempts[frame.frame_id] >= MAX_ATTEMPTS or frame.deadline_s <= now_s:
                self._attempts.pop(frame.frame_id, None)
                given_up.append(frame)
            else:
                self._enqueue(frame)
        return tuple(given_up)

    def _batches_of(self, pool: str) -> list[Batch]:
        batches = []
        lanes = self._lanes[pool]
        num_credits = CREDITS_PER_REPLICA * self._num_replicas[pool]
        while self._num_running[pool] < num_credits and (key := most_urgent_lane(lanes)) is not None:
            lane = lanes[key]
            size = warmed_batch_size(self._ladder_of_bucket[key.bucket], len(lane))
            frames = tuple(lane.pop() for _ in range(size))
            for frame in frames:
                self._left_lane(frame)
                self._attempts[frame.frame_id] += 1
            batch = Batch(next(self._batch_ids), pool, key.bucket, key.canvas, frames)
            self._running[batch.batch_id] = batch
            self._num_running[pool] += 1
            batches.append(batch)
        return batches

    def _enqueue(self, frame: Frame) -> None:
        pool = self._pool_of_bucket[frame.bucket]
        key = LaneKey(frame.bucket, frame.canvas, frame.priority)
        self._lanes[pool].setdefault(key, Lane()).add(frame)
        self._lane_of_frame[frame.frame_id] = (pool, key)
        self._waiting_bytes += frame.num_bytes

    def _left_lane(self, frame: Frame) -> None:
        del self._lane_of_frame[frame.frame_id]
        self._waiting_bytes -= frame.num_bytes

    def _take_back(self, batch_id: int) -> Batch:
        if batch_id not in self._running:
            raise SchedulerStateError(f"batch {batch_id}: is not running; a batch ends once")
        batch = self._running.pop(batch_id)
        self._num_running[batch.pool] -= 1
        return batch
