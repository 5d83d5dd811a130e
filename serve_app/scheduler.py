"""The pure heart: events in, decisions out. It reads no clock, does no I/O and knows nothing of Ray.

Whoever drives it (the router, a test, the simulator) says what happened and when (`now_s`, monotonic seconds), then
asks `decide` what to do. Every frame that `arrived` admits leaves exactly once: by an `Expired` decision, superseded by
a newer frame, through `cancelled`, by the end of its last piece, or given up when a replica was lost.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from serve_app.admission import ADMITTED, Admission
from serve_app.batching import Batch, Piece, batch_size, gain_of_joining, neighbours
from serve_app.frames import Frame, Priority
from serve_app.lane_key import CRITICAL, DEFERRED, NORMAL
from serve_app.lanes import Lane, Waiting
from serve_app.latency import LatencyModel
from serve_app.memory_level import MemoryLevel
from serve_app.overdue import (
    HEDGE_FLOOR_S,
    LATE_GRACE_S,
    OVERDUE_FLOOR_S,
    STALL_S,
    critical_patience_s,
    patience_s,
)
from serve_app.plan import Keep, Plan
from serve_app.pool_queue import PRESSURE_INTERVAL_S, PoolQueue
from serve_app.pressure import Pressure
from serve_app.replica_credits import MIN_CREDITS_PER_REPLICA, Place, SchedulerStateError, new_tuple
from serve_app.routes import Route, RouteTable
from serve_app.verdicts import RejectCause, Verdict, VerdictKind

# A frame whose replica died is tried twice more: a node takes several replicas along. Three times in a row is the
# frame's fault as likely as the replicas'.
MAX_ATTEMPTS = 3
# Of the budgets, what noncritical frames may take: critical ones are refused last.
SHARE_OF_NONCRITICAL = 0.9
# Looked up for every frame, see `lane_key.py`.
CRITICAL_PRIORITY, KEEP_LATEST, REJECT = Priority.CRITICAL, Keep.LATEST, VerdictKind.REJECT
# How often routes are worked out anew from the latencies.
ROUTES_REFRESH_S = 1.0


class Arrival(NamedTuple):
    """What became of a frame that arrived: its verdict, and the older frame whose place it took."""

    verdict: Verdict
    superseded: Frame | None = None


class Expired(NamedTuple):
    """A frame that cannot make its deadline any more, and how it would have been served."""

    frame: Frame
    route: Route


class Decisions(NamedTuple):
    """What to do now: batches to send (their credits are taken), frames to answer as expired, and as failed.

    `given_up`: their replicas have fallen silent, and no time or attempt is left.
    """

    batches: tuple[Batch, ...]
    expired: tuple[Expired, ...]
    given_up: tuple[Frame, ...] = ()


class LateBatch(NamedTuple):
    """A batch that its replica may answer yet, though it is overdue and holds no credit any more.

    Attributes:
        batch, entries: what it is, and the frame of each piece.
        hoping: those of its frames (ids of their entries) that no other attempt is left for.
    """

    batch: Batch
    entries: tuple[Waiting, ...]
    hoping: frozenset[int]


NOTHING = Decisions((), ())
# What most frames get.
ADMITTED_ARRIVAL = Arrival(ADMITTED)
NO_IDS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """What one pool has to do.

    Attributes:
        num_replicas: replicas that are ready.
        num_waiting: pieces (frames, or tiles of them) in its lanes.
        num_running: batches at its replicas.
        backlog_s: predicted device seconds that wait.
        rung: the first rung that noncritical frames may take.
        around_s: what a batch takes beside its device, of late.
        per_replica: how many noncritical batches it would have at each replica.
        deferred_s: what of the backlog is deferred frames'.
        offered_s: device seconds of all frames that came so far, each by its first route, admitted or not.
        sent_s: device seconds of all pieces that were sent to its replicas so far, by the routes that they took.
        waiting: `num_waiting` by class: critical, normal, deferred.
        memory: how full the memory of its devices is.
        num_credits: noncritical batches that may be sent to it now.
    """

    num_replicas: int
    num_waiting: int
    num_running: int
    backlog_s: float
    rung: int
    around_s: float
    per_replica: int = MIN_CREDITS_PER_REPLICA
    deferred_s: float = 0.0
    offered_s: float = 0.0
    sent_s: float = 0.0
    waiting: tuple[int, int, int] = (0, 0, 0)
    memory: MemoryLevel = MemoryLevel.NORMAL
    num_credits: int = 0


class Scheduler:
    """Strict priority over all lanes of a pool, by deadline within, with chunks, deferral and a ladder.

    Algorithm: a frame that arrives gets a route and a lane (`Admission`). While a pool has a credit, the next lane
    (`PoolQueue.next_lane`) gives a batch: as many pieces as the warmed sizes, the chunk and the first one's deadline
    allow. A noncritical batch that would only be staged behind a running one waits for company until it must be sent.
    Order: critical by deadline; then normal by latest start, before deferred ones until those must begin.
    What is longer than a chunk (a frame that no tiles suit) leaves one replica to the others, and is staged only when
    its class has starved.
    Bound: a critical frame waits for one running chunk and for critical work ahead of it. A frame of another class is
    sent, or has ended, by its deadline at the latest; and while any of them waits, a chunk of theirs is sent, counting
    as critical, at least every `max_starve_s` plus one chunk.
    Liveness: with one ready replica every waiting frame is sent or expires; with none that answers, what was sent ends
    soon after its deadline (`overdue.py`).
    A batch that is overdue makes its replica a suspect, which gets no other until it answers; the pieces wait again,
    and whichever copy is answered first counts.
    """

    def __init__(self, plan: Plan, latency: LatencyModel | None = None) -> None:
        """Start with empty lanes and no replica; `latency` is kept current by what batches take."""
        self._plan = plan
        self._latency = latency or LatencyModel()
        self._routes = RouteTable(plan, self._latency)
        num_rungs, slo_s = len(plan.ladder), plan.slo_s[Priority.NORMAL]
        self._pools = {
            pool.name: PoolQueue(pool.name, Pressure(num_rungs=num_rungs, slo_s=slo_s), plan.max_chunk_s)
            for pool in plan.pools
        }
        self._admission = Admission(plan, self._pools)
        self._neighbours = neighbours(plan)
        self._entries: dict[str, Waiting] = {}
        self._latest: dict[tuple[str, Priority], Waiting] = {}
        self._batches: dict[int, tuple[Batch, tuple[Waiting, ...]]] = {}
        self._late: dict[int, LateBatch] = {}
        # When to look whether a batch is overdue, and which; those that have ended are dropped when they come up.
        self._checks: list[tuple[float, int]] = []
        self._expiry: list[tuple[float, int, int, Waiting]] = []
        self._held_bytes = 0
        self._max_starve_s = plan.scheduling.max_starve_s
        self._max_others = math.floor(SHARE_OF_NONCRITICAL * plan.limits.max_waiting_frames)
        self._max_others_bytes = SHARE_OF_NONCRITICAL * plan.limits.max_waiting_bytes
        self._order = itertools.count()
        self._batch_ids = itertools.count(1)
        self._routes_from_s = -math.inf
        self._felt_s = -math.inf
        self._moved_between_pools = False

    @property
    def num_frames(self) -> int:
        """Frames that are here, waiting or running."""
        return len(self._entries)

    @property
    def held_bytes(self) -> int:
        """Bytes of their pixels."""
        return self._held_bytes

    @property
    def latency(self) -> LatencyModel:
        """What is known of the seconds that batches take."""
        return self._latency

    def loads(self) -> dict[str, PoolLoad]:
        """What each pool has to do."""
        return {
            name: PoolLoad(
                pool.credits.num_ready, pool.num_pieces, pool.credits.num_batches, pool.backlog.total_s,
                pool.pressure.rung, pool.around_s, pool.credits.per_replica, pool.backlog.waiting_deferred_s,
                pool.offered_s, pool.sent_s, pool.waiting_by_class, pool.pressure.memory, pool.credits.num_free,
            )
            for name, pool in self._pools.items()
        }  # fmt: skip

    def next_wake_s(self) -> float | None:
        """When `decide` is due at the latest: a frame expires, a batch is overdue or has waited for company."""
        expiry = self._expiry
        while expiry and expiry[0][3].epoch != expiry[0][2]:
            heappop(expiry)
        wake_s = expiry[0][0] if expiry else math.inf
        checks = self._checks
        while checks and checks[0][1] not in self._batches:
            heappop(checks)
        if checks and checks[0][0] < wake_s:
            wake_s = checks[0][0]
        for pool in self._pools.values():
            wake_s = min(wake_s, pool.hold_until_s)
        return None if wake_s == math.inf else wake_s

    def arrived(self, frame: Frame) -> Arrival:
        """Judge a frame that arrives at its `arrived_s`, and put it into its lane unless it is rejected.

        Raises:
            SchedulerStateError: a frame of this id is here.
        """
        if frame.frame_id in self._entries:
            raise SchedulerStateError(f"frame {frame.frame_id}: is here already; give every frame an id of its own")
        now_s = frame.arrived_s
        if now_s - self._routes_from_s >= ROUTES_REFRESH_S:
            self._routes.refresh(now_s)
            self._routes_from_s = now_s
        rule = self._routes.rule_of(frame.camera)
        routes = self._routes.routes(rule, frame.size_hw, frame.priority)
        self._count_offered(routes)
        older = self._latest.get((frame.camera, frame.priority)) if rule.keep is KEEP_LATEST else None
        full = None if self._has_room(frame) else self._over_budget(frame, older)
        if full is not None:
            return Arrival(full)
        if now_s - self._felt_s >= PRESSURE_INTERVAL_S:
            self._feel_pressure(now_s)
        verdict, index = self._admission.judge(frame, routes)
        if verdict.kind is REJECT:
            return Arrival(verdict)
        if older is not None:
            self._take_out(older)
        waiting = Waiting(frame, routes, index)
        self._entries[frame.frame_id] = waiting
        self._held_bytes += frame.num_bytes
        if rule.keep is KEEP_LATEST:
            self._latest[frame.camera, frame.priority] = waiting
        if frame.priority is CRITICAL_PRIORITY:
            route = routes[index]
            self._pools[route.pool].critical_came(route.piece_s * route.num_pieces, now_s)
        self._enqueue(waiting, range(waiting.route.num_pieces), now_s, is_new=True)
        if older is not None:
            return Arrival(verdict, older.frame)
        return ADMITTED_ARRIVAL if verdict is ADMITTED else Arrival(verdict)

    def cancelled(self, frame_id: str) -> bool:
        """Take a frame out of which pieces wait; False if none does (any more): then its batch runs on."""
        waiting = self._entries.get(frame_id)
        if waiting is None or not waiting.num_waiting:
            return False
        self._take_out(waiting)
        return True

    def take_unbegun(self) -> tuple[Frame, ...]:
        """Take out the frames of which no piece has been sent, the most urgent first, for another router to serve."""
        waiting = [each for each in self._entries.values() if each.num_waiting == each.route.num_pieces]
        for each in waiting:
            self._take_out(each)
        return tuple(
            sorted((each.frame for each in waiting), key=lambda frame: (frame.priority.rank, frame.deadline_s))
        )

    def replicas_ready(self, pool: str, replicas: Collection[str] | Mapping[str, int]) -> None:
        """Say which replicas of a pool take batches now; a mapping: how many noncritical ones each may hold."""
        self._pool(pool).fitness.counted(replicas)
        self._pool(pool).is_empty = not replicas
        self._pool(pool).choose_replicas()

    def replica_is_alive(self, pool: str, replica: str) -> None:
        """A replica says that its engine is not stuck: if it was a suspect, it gets batches again."""
        if self._pool(pool).fitness.trust(replica):
            self._pool(pool).choose_replicas()

    def slow_replicas(self, pool: str) -> tuple[str, ...]:
        """Which replicas of a pool are to be probed: they are far slower than the model and their peers."""
        return tuple(self._pool(pool).fitness.pace.slow)

    def replica_probed(self, pool: str, replica: str, predicted_s: float, took_s: float) -> None:
        """A probe of a slow replica has run: so it may come back."""
        self._pool(pool).fitness.pace.probed(replica, took_s / predicted_s)
        self._pool(pool).choose_replicas()

    def model_of(self, bucket: str) -> str | None:
        """The model of a bucket; None: the plan has no such bucket."""
        return next((each.model for each in self._plan.buckets if each.name == bucket), None)

    def unfit_replicas(self, pool: str, now_s: float) -> dict[str, str]:
        """What is held against replicas of a pool, by name, in words."""
        return self._pool(pool).fitness.unfit(now_s)

    def has(self, frame_id: str) -> bool:
        """Whether a frame of this id is here."""
        return frame_id in self._entries

    def is_late(self, batch_id: int) -> bool:
        """Whether a batch that is not answered is overdue: its frames may have been answered by others."""
        return batch_id in self._late

    def replica_shared(
        self, pool: str, replica: str, share: float, free_for_urgent_s: float, free_for_other_s: float
    ) -> None:
        """Say how much of a replica's time is left by other routers, and when what they have there will have ended.

        Args:
            pool: whose.
            replica: which.
            share: of its time, in 0..1.
            free_for_urgent_s: when a critical batch could begin there.
            free_for_other_s: when another one could.
        """
        self._pool(pool).credits.set_shared(replica, share, free_for_urgent_s, free_for_other_s)

    def memory_is(self, pool: str, level: MemoryLevel) -> None:
        """Say how full the memory of a pool's devices is."""
        self._pool(pool).pressure.memory = level

    def decide(self, now_s: float) -> Decisions:
        """Expire what cannot make its deadline any more, and send what the free credits allow."""
        if self._checks and self._checks[0][0] <= now_s:
            self._look_for_overdue(now_s)
        expired: list[Expired] = []
        given_up: list[Frame] = []
        if self._expiry and self._expiry[0][0] <= now_s:
            self._expire(now_s, expired, given_up)
        if now_s - self._felt_s >= PRESSURE_INTERVAL_S:
            self._feel_pressure(now_s)
        batches: list[Batch] = []
        self._moved_between_pools = True
        while self._moved_between_pools:
            self._moved_between_pools = False
            for pool in self._pools.values():
                if pool.held_lane is not None:
                    if now_s < pool.hold_until_s:
                        continue
                    pool.release()
                self._form_batches(pool, now_s, batches, expired)
        if not (batches or expired or given_up):
            return NOTHING
        return Decisions(tuple(batches), tuple(expired), tuple(given_up))

    def batch_ended(
        self,
        batch_id: int,
        now_s: float,
        *,
        busy_s: float | None = None,
        around_s: float | None = None,
        failed: Iterable[str] = (),
    ) -> tuple[Frame, ...]:
        """A batch was answered; its credit is free again.

        Args:
            batch_id: which.
            now_s: when.
            busy_s: how long it kept the device, to learn from; None: it never came there.
            around_s: how long it took beside that, its wait behind a running batch apart.
            failed: ids of its frames whose piece failed: they leave at once, with what else they have here.

        Returns:
            The frames of which this was the last piece.
        """
        late = self._late.pop(batch_id, None)
        if late is None and batch_id in self._batches:
            self._pools[self._batches[batch_id][0].pool].credits.heard(batch_id, now_s)
        batch, entries = self._take_back(batch_id, now_s) if late is None else late[:2]
        self._took(batch, busy_s, around_s if late is None else None)
        lost = set(failed) if failed else NO_IDS
        if late is not None:
            return self._answered_late(late, lost, now_s)
        done = []
        for index, waiting in enumerate(entries):
            if waiting.lost_on and not self._settles(waiting, batch.pieces[index]):
                continue
            waiting.num_running -= 1
            frame_id = waiting.frame.frame_id
            if self._entries.get(frame_id) is not waiting:
                continue
            if frame_id in lost:
                self._take_out(waiting)
            elif not waiting.num_running and not waiting.num_waiting:
                self._forget(waiting)
                done.append(waiting.frame)
        return tuple(done)

    def batch_lost(self, batch_id: int, now_s: float) -> tuple[Frame, ...]:
        """The replica died with a batch: its pieces wait again, where deadline and attempts allow.

        Returns:
            The frames that were given up, for the caller to answer.
        """
        late = self._late.pop(batch_id, None)
        if late is not None:
            return self._lost_late(late)
        batch, entries = self._take_back(batch_id, now_s)
        return self._give_up(self._back_to_lanes(batch, entries, now_s, batch.replica))

    def batch_refused(self, batch_id: int, now_s: float) -> tuple[Frame, ...]:
        """A replica did not read a batch, for want of a credit or about to leave: its pieces wait again.

        No attempt counts.

        Returns:
            The frames that were given up, for the caller to answer: those that hoped for an overdue batch.
        """
        late = self._late.pop(batch_id, None)
        if late is not None:
            return self._lost_late(late)
        batch, entries = self._take_back(batch_id, now_s)
        pool = self._pools[batch.pool]
        for waiting, piece in zip(entries, batch.pieces, strict=True):
            if piece.number in waiting.settled:
                continue
            waiting.num_running -= 1
            if self._entries.get(waiting.frame.frame_id) is waiting:
                # What was refused has not been served: it starves since it came.
                pool.others_served_s = min(pool.others_served_s, waiting.frame.arrived_s)
                self._enqueue(waiting, (piece.number,), now_s, is_new=False)
        return ()

    def batch_out_of_memory(self, batch_id: int, now_s: float, *, elsewhere: bool = False) -> tuple[Frame, ...]:
        """The device had no memory for a batch: its pieces wait again, for batches of half its size at most.

        So for `MEMORY_PAUSE_S`, for critical frames `CRITICAL_MEMORY_PAUSE_S`. A frame that was alone takes its next
        cheaper route.

        Args:
            batch_id: which.
            now_s: when.
            elsewhere: its replica takes no more batches, while another of its pool has memory: its frames go there as
                they are.

        Returns:
            The frames that were given up, for the caller to answer: too late, or without a cheaper route.
        """
        late = self._late.pop(batch_id, None)
        batch, entries = self._take_back(batch_id, now_s) if late is None else late[:2]
        if not elsewhere:
            self._routes.limit_batches(batch.bucket, batch.canvas, len(batch.pieces) // 2, now_s)
        if late is not None:
            return self._lost_late(late)
        given_up = []
        for waiting, piece in zip(entries, batch.pieces, strict=True):
            if piece.number in waiting.settled:
                continue
            waiting.num_running -= 1
            if self._entries.get(waiting.frame.frame_id) is not waiting:
                continue
            pieces: Sequence[int] = (piece.number,)
            must_shrink = len(batch.pieces) == 1 and not elsewhere
            if must_shrink and waiting.index < len(waiting.routes) - 1 and waiting.route.num_pieces == 1:
                waiting.take_route(waiting.index + 1)
                pieces, must_shrink = range(waiting.route.num_pieces), False
            if must_shrink or waiting.last_start_s <= now_s:
                self._take_out(waiting)
                given_up.append(waiting.frame)
            else:
                self._enqueue(waiting, pieces, now_s, is_new=False)
        return tuple(given_up)

    def _pool(self, name: str) -> PoolQueue:
        pool = self._pools.get(name)
        if pool is None:
            raise SchedulerStateError(f"pool: got {name!r}, allowed are those of the plan: {', '.join(self._pools)}")
        return pool

    def _feel_pressure(self, now_s: float) -> None:
        self._felt_s = now_s
        for pool in self._pools.values():
            pool.feel_pressure(now_s)

    def _count_offered(self, routes: tuple[Route, ...]) -> None:
        """A frame has come, whatever becomes of it: its pool's counter grows by what it would have liked."""
        for route in routes[:1]:
            self._pools[route.pool].offered_s += route.piece_s * route.num_pieces

    def _has_room(self, frame: Frame) -> bool:
        """Whether there is room for a frame of any priority: the answer for nearly all of them, and quickly."""
        return len(self._entries) < self._max_others and self._held_bytes + frame.num_bytes <= self._max_others_bytes

    def _over_budget(self, frame: Frame, older: Waiting | None) -> Verdict | None:
        """The rejection of a frame for which there is no room; None if there is."""
        limits = self._plan.limits
        num_frames, num_bytes = len(self._entries) + 1, self._held_bytes + frame.num_bytes
        if older is not None:
            num_frames, num_bytes = num_frames - 1, num_bytes - older.frame.num_bytes
        # An empty house takes any frame within the limits: a share of a small one might take none.
        share = 1.0 if frame.priority is CRITICAL_PRIORITY or num_frames == 1 else SHARE_OF_NONCRITICAL
        of = "" if share == 1 else f", {share:.0%} of them by noncritical ones"
        if num_frames > share * limits.max_waiting_frames:
            cause = RejectCause.FRAMES
            reason = f"{num_frames - 1} frames are here, allowed are {limits.max_waiting_frames}{of}"
        elif num_bytes > share * limits.max_waiting_bytes:
            cause = RejectCause.BYTES
            here = f"{num_bytes - frame.num_bytes:,} bytes are here and the frame has {frame.num_bytes:,}"
            reason = f"{here}, allowed are {limits.max_waiting_bytes:,}{of}"
        else:
            return None
        return Verdict(VerdictKind.REJECT, reason, retry_after_s=self._plan.slo_s[frame.priority], cause=cause)

    def _enqueue(self, waiting: Waiting, pieces: Sequence[int], now_s: float, *, is_new: bool) -> None:
        """Put pieces into the lane of the frame's route."""
        frame, route = waiting.frame, waiting.route
        pool = self._pools[route.pool]
        if waiting.num_waiting:
            # Pieces of a lost batch join those that still wait: all of them take their places anew.
            pieces = sorted({*pool.waiting_pieces(waiting), *pieces})
            pool.take_out(waiting)
        waiting.due_s, waiting.begin_by_s, waiting.last_start_s = self._admission.times(
            frame, route, waiting.routes[-1]
        )
        pool.add(waiting, pieces, now_s, is_new=is_new)
        look_s = waiting.last_start_s
        if waiting.routes[-1].pool != route.pool and waiting.begin_by_s < look_s:
            look_s = waiting.begin_by_s  # another pool can take it in time if this one has no replica by then
        heappush(self._expiry, (look_s, next(self._order), waiting.epoch, waiting))
        if len(self._expiry) > 2 * len(self._entries) + 64:
            self._expiry = [entry for entry in self._expiry if entry[3].epoch == entry[2]]
            heapify(self._expiry)

    def _take_out(self, waiting: Waiting) -> None:
        """A frame leaves for good; what runs of it is answered to nobody."""
        self._pools[waiting.route.pool].take_out(waiting)
        self._forget(waiting)

    def _forget(self, waiting: Waiting) -> None:
        frame = waiting.frame
        waiting.epoch += 1
        del self._entries[frame.frame_id]
        self._held_bytes -= frame.num_bytes
        if self._latest:
            self._no_longer_latest(waiting)

    def _no_longer_latest(self, waiting: Waiting) -> None:
        key = waiting.frame.camera, waiting.frame.priority
        if self._latest.get(key) is waiting:
            del self._latest[key]

    def _expire(self, now_s: float, expired: list[Expired], given_up: list[Frame]) -> None:
        expiry = self._expiry
        while expiry:
            look_s, _, epoch, waiting = expiry[0]
            if waiting.epoch != epoch:
                heappop(expiry)
            elif look_s > now_s:
                break
            else:
                heappop(expiry)
                if not waiting.num_waiting:
                    if waiting.hopes_until_s > now_s:
                        heappush(expiry, (waiting.hopes_until_s, next(self._order), epoch, waiting))
                    elif waiting.hopes_until_s:
                        given_up += self._give_up([waiting])
                    continue
                if self._bridged(waiting, now_s):
                    continue
                if waiting.last_start_s > look_s:
                    heappush(expiry, (waiting.last_start_s, next(self._order), epoch, waiting))
                    continue
                if waiting.has_begun and now_s < waiting.frame.deadline_s:
                    # Some of its tiles have run: the others are due by the deadline only.
                    heappush(expiry, (waiting.frame.deadline_s, next(self._order), epoch, waiting))
                    continue
                self._take_out(waiting)
                expired.append(Expired(waiting.frame, waiting.route))

    def _bridged(self, waiting: Waiting, now_s: float) -> bool:
        """Move a frame whose pool has no replica, while one starts say, to the first rung of a pool that has one."""
        pool = self._pools[waiting.route.pool]
        if not pool.is_empty or waiting.has_begun or waiting.last_start_s <= now_s:
            return False
        for index in range(waiting.index + 1, len(waiting.routes)):
            if self._pools[waiting.routes[index].pool].credits.num_ready:
                pool.take_out(waiting)
                waiting.take_route(index)
                self._enqueue(waiting, range(waiting.route.num_pieces), now_s, is_new=False)
                return True
        return False

    def _form_batches(self, pool: PoolQueue, now_s: float, batches: list[Batch], expired: list[Expired]) -> None:
        num_waiting, before_s = pool.num_waiting, pool.before_s
        while num_waiting[0] or num_waiting[1] or num_waiting[2]:
            has_critical = num_waiting[0] > 0
            other_place = pool.credits.place_for_other(now_s, before_s)
            if other_place is None and not has_critical:
                return
            choice = pool.next_lane(now_s, self._max_starve_s)
            if choice is None:
                return
            lane, urgent = choice
            place = pool.credits.place_for_critical(now_s, before_s) if urgent else other_place
            head = lane.first()
            if place is None or head is None:
                return
            begin_s = place.start_s - before_s
            if head.index < len(head.routes) - 1 and self._rerouted(head, pool, begin_s, now_s):
                continue
            last_start_s = head.frame.deadline_s if head.has_begun else head.last_start_s
            if begin_s > last_start_s:
                if pool.credits.first_end_s(now_s) <= last_start_s or _is_in(head, batches):
                    # Another replica has no credit now, but will be free in time; or tiles of it have just been sent.
                    pool.hold(lane, min(begin_s, last_start_s))
                    return
                self._take_out(head)
                expired.append(Expired(head.frame, head.route))
                continue
            time_left_s = head.frame.deadline_s - place.start_s - (pool.around_s - before_s)
            most = self._routes.max_batch(head.route) if self._routes.limits else None
            size = batch_size(head.route, lane, self._latency, time_left_s, most)
            if not urgent and place.replica.held:
                is_full = size in {head.route.max_batch, most}
                hold_until_s = self._hold_until_s(lane, head, place, pool, is_full=is_full)
                if hold_until_s > now_s:
                    pool.hold(lane, hold_until_s)
                    return
            batches.append(self._sent(pool, lane, place, size, now_s, time_left_s=time_left_s, urgent=urgent))

    def _hold_until_s(self, lane: Lane, head: Waiting, place: Place, pool: PoolQueue, *, is_full: bool) -> float:
        """Until when a batch that would only be staged may stay here: for company, or for what is more urgent."""
        must_leave_s = place.start_s - pool.around_s
        if lane.key.lane_class is DEFERRED:
            # A long one that must begin: nobody else is staged, so that it soon has a replica to itself.
            return place.start_s if pool.is_long(head) else must_leave_s
        expected_s = lane.next_arrival_s()
        return -math.inf if is_full or expected_s is None else min(must_leave_s, expected_s)

    def _rerouted(self, waiting: Waiting, pool: PoolQueue, begin_s: float, now_s: float) -> bool:
        """Move a frame of which nothing has run yet to a lower rung, if pressure or its slack ask for it."""
        if waiting.has_begun:
            return False
        routes, index = waiting.routes, waiting.index
        last = len(routes) - 1
        rung = 0 if waiting.route.lane.lane_class is CRITICAL else pool.pressure.rung
        begin_by_s = waiting.begin_by_s
        while index < last and (routes[index].rung < rung or begin_s > begin_by_s):
            index += 1
            _, begin_by_s, _ = self._admission.times(waiting.frame, routes[index], routes[index])
        if index == waiting.index:
            return False
        pool.take_out(waiting)
        waiting.take_route(index)
        self._moved_between_pools |= waiting.route.pool != pool.name
        self._enqueue(waiting, range(waiting.route.num_pieces), now_s, is_new=False)
        return True

    def _sent(
        self, pool: PoolQueue, lane: Lane, place: Place, size: int, now_s: float, *, time_left_s: float, urgent: bool
    ) -> Batch:
        taken = [lane.pop() for _ in range(size)]
        route = taken[0][0].route
        for waiting, _ in taken:
            pool.popped(waiting)
        if size < route.max_batch and lane.key.lane_class is NORMAL:
            taken += self._joining(pool, lane, route, size, time_left_s)
        if self._latest:
            for waiting, _ in taken:
                self._no_longer_latest(waiting)
        if lane.key.lane_class is not CRITICAL:
            pool.others_served_s = now_s
        pool.sent_s += route.piece_s * len(taken)
        run_s = self._latency.predict_s(route.model, route.canvas, len(taken))
        batch = Batch(
            next(self._batch_ids), pool.name, place.replica.name, route.bucket, route.model, route.canvas, urgent,
            run_s, tuple([new_tuple(Piece, (waiting.frame, waiting.route, index)) for waiting, index in taken]),
        )  # fmt: skip
        pool.credits.sent(batch.batch_id, place, run_s, urgent=urgent)
        if lane.key.lane_class is DEFERRED and pool.is_long(taken[0][0]):
            pool.long_batches.add(batch.batch_id)
        self._batches[batch.batch_id] = batch, tuple([waiting for waiting, _ in taken])
        # The earliest moment at which it may be overdue; when exactly is asked then, which is hardly ever.
        floor_s = HEDGE_FLOOR_S if lane.key.lane_class is CRITICAL else OVERDUE_FLOOR_S
        heappush(self._checks, (place.start_s + run_s + floor_s, batch.batch_id))
        return batch

    def _joining(
        self, pool: PoolQueue, lane: Lane, route: Route, size: int, time_left_s: float
    ) -> list[tuple[Waiting, int]]:
        """Pieces of nearly the same size that fill up a batch where that saves device time by the latency model."""
        joining: list[tuple[Waiting, int]] = []
        most = self._routes.max_batch(route) or route.max_batch
        for bucket, canvas in self._neighbours[route.bucket, route.canvas]:
            other = pool.lane(lane.key._replace(bucket=bucket, canvas=canvas))
            head = other.first() if other is not None and other.num_waiting else None
            if other is None or head is None:
                continue
            for larger in reversed(route.ladder):
                num = larger - size - len(joining)
                is_in_time = self._latency.predict_s(route.model, route.canvas, larger) <= time_left_s
                if 0 < num <= other.num_waiting and is_in_time and larger <= most:
                    if gain_of_joining(route, size + len(joining), num, head.route, self._latency) > 0:
                        popped = [other.pop() for _ in range(num)]
                        for waiting, _ in popped:
                            pool.popped(waiting)
                        joining += popped
                    break
        return joining

    # Batches that are overdue

    def _overdue_s(self, batch: Batch, pool: PoolQueue) -> tuple[float, float]:
        """When a batch that runs is overdue, and when it would be if nothing in it were critical."""
        end_s, run_s, around_s = pool.credits.end_s(batch.batch_id), batch.run_s, pool.around_s
        spread_s = self._latency.spread_s(batch.model, batch.canvas, len(batch.pieces))
        patient_s = patience_s(run_s, spread_s, around_s)
        any_s = end_s + patient_s
        if batch.pieces[0].frame.priority is not CRITICAL_PRIORITY:
            return any_s, any_s
        last_start_s = min(waiting.last_start_s for waiting in self._batches[batch.batch_id][1])
        return end_s + critical_patience_s(end_s, last_start_s, run_s, patient_s, around_s), any_s

    def _look_for_overdue(self, now_s: float) -> None:
        """Doubt the replicas of batches that are overdue; look again at the others when they may be."""
        checks = self._checks
        while checks and checks[0][0] <= now_s:
            check_s, batch_id = heappop(checks)
            if batch_id not in self._batches:
                continue
            batch = self._batches[batch_id][0]
            pool = self._pools[batch.pool]
            overdue_s, any_s = self._overdue_s(batch, pool)
            if now_s - check_s > STALL_S:
                overdue_s = max(overdue_s, now_s + STALL_S)
            if overdue_s > now_s:
                heappush(checks, (overdue_s, batch_id))
            else:
                self._doubt(batch, pool, now_s, all_of_it=any_s <= now_s)

    def _doubt(self, overdue: Batch, pool: PoolQueue, now_s: float, *, all_of_it: bool) -> None:
        """A replica gets no other batch until it answers; all it holds, or its critical part, is tried elsewhere."""
        mark = pool.fitness.doubt(overdue.replica, now_s)
        batch_ids = pool.credits.held_with(overdue.batch_id)
        pool.choose_replicas()
        for batch_id in batch_ids:
            batch = self._batches[batch_id][0]
            if all_of_it or batch.pieces[0].frame.priority is CRITICAL_PRIORITY:
                _, entries = self._take_back(batch_id, now_s)
                hoping = self._back_to_lanes(batch, entries, now_s, mark)
                self._late[batch_id] = LateBatch(batch, entries, frozenset(map(id, hoping)))
                for waiting in hoping:
                    waiting.hopes_until_s = max(now_s, waiting.frame.deadline_s) + LATE_GRACE_S
                    heappush(self._expiry, (waiting.hopes_until_s, next(self._order), waiting.epoch, waiting))

    def _back_to_lanes(
        self, batch: Batch, entries: tuple[Waiting, ...], now_s: float, mark: str | None
    ) -> list[Waiting]:
        """The pieces of a batch wait again, where deadlines and attempts allow; returns the frames where they do not.

        `mark`: what they were lost with; None: with nothing that counts as an attempt.
        """
        again: dict[int, tuple[Waiting, list[int]]] = {}
        for waiting, piece in zip(entries, batch.pieces, strict=True):
            if self._entries.get(waiting.frame.frame_id) is waiting and piece.number not in waiting.settled:
                again.setdefault(id(waiting), (waiting, []))[1].append(piece.number)
        hopeless = []
        for waiting, pieces in again.values():
            if mark is not None and mark not in waiting.lost_on:
                waiting.lost_on += (mark,)
            if len(waiting.lost_on) >= MAX_ATTEMPTS or waiting.last_start_s <= now_s:
                hopeless.append(waiting)
            else:
                waiting.num_running -= len(pieces)
                self._enqueue(waiting, pieces, now_s, is_new=False)
        return hopeless

    def _give_up(self, hopeless: Iterable[Waiting]) -> tuple[Frame, ...]:
        """Frames leave that no attempt is left for."""
        given_up = []
        for waiting in hopeless:
            self._take_out(waiting)
            given_up.append(waiting.frame)
        return tuple(given_up)

    def _lost_late(self, late: LateBatch) -> tuple[Frame, ...]:
        """An overdue batch will not be answered: with it go the frames that hoped for it."""
        hoping = {
            id(waiting): waiting
            for waiting, piece in zip(late.entries, late.batch.pieces, strict=True)
            if id(waiting) in late.hoping
            and self._entries.get(waiting.frame.frame_id) is waiting
            and piece.number not in waiting.settled
        }
        return self._give_up(hoping.values())

    def _answered_late(self, late: LateBatch, lost: Collection[str], now_s: float) -> tuple[Frame, ...]:
        """An overdue batch was answered after all: its pieces that nobody else has answered are done.

        One that failed there ends its frame only if that hoped for nothing else: another attempt may yet succeed.
        """
        pool = self._pools[late.batch.pool]
        done = []
        for waiting, piece in zip(late.entries, late.batch.pieces, strict=True):
            frame_id = waiting.frame.frame_id
            if self._entries.get(frame_id) is not waiting or piece.route is not waiting.route:
                continue
            if frame_id in lost:
                if id(waiting) in late.hoping and piece.number not in waiting.settled:
                    self._take_out(waiting)
                continue
            if not self._settles(waiting, piece):
                continue
            waits = pool.waiting_pieces(waiting)
            if piece.number in waits:
                pool.take_out(waiting)
                rest = [number for number in waits if number != piece.number]
                if rest:
                    self._enqueue(waiting, rest, now_s, is_new=False)
                elif waiting.hopes_until_s:
                    heappush(self._expiry, (waiting.hopes_until_s, next(self._order), waiting.epoch, waiting))
            else:
                waiting.num_running -= 1
            if not waiting.num_running and not waiting.num_waiting:
                self._forget(waiting)
                done.append(waiting.frame)
        return tuple(done)

    @staticmethod
    def _settles(waiting: Waiting, piece: Piece) -> bool:
        """Note that a piece of a frame was answered that had been lost with something; False: it had been before."""
        if piece.number in waiting.settled:
            return False
        waiting.settled |= {piece.number}
        return True

    def _took(self, batch: Batch, busy_s: float | None, around_s: float | None) -> None:
        """Learn from the seconds of a batch, unless its replica is far slower than its peers: that would spoil all."""
        pool = self._pools[batch.pool]
        is_relief = pool.fitness.trust(batch.replica)
        if busy_s is not None:
            if self._routes.limits:
                self._routes.worked(batch.bucket, batch.canvas)
            num_pieces, pace = len(batch.pieces), pool.fitness.pace
            num_slow, learns = len(pace.slow), True
            predicted_s = self._latency.measured_s(batch.model, batch.canvas, num_pieces)
            if predicted_s is not None:
                learns = pace.took(batch.replica, busy_s / predicted_s)
            if learns:
                self._latency.observe(batch.model, batch.canvas, num_pieces, busy_s)
                if around_s is not None:
                    pool.took(busy_s, around_s)
            is_relief |= len(pace.slow) != num_slow
        if is_relief:
            pool.choose_replicas()

    def _take_back(self, batch_id: int, now_s: float) -> tuple[Batch, tuple[Waiting, ...]]:
        if batch_id not in self._batches:
            raise SchedulerStateError(f"batch {batch_id}: is not running; a batch ends once")
        batch, entries = self._batches.pop(batch_id)
        pool = self._pools[batch.pool]
        pool.credits.ended(batch_id, now_s, pool.around_s - pool.before_s)
        if pool.long_batches:
            pool.long_batches.discard(batch_id)
        pool.release()
        return batch, entries


def _is_in(waiting: Waiting, batches: list[Batch]) -> bool:
    """Whether a piece of a frame goes with these batches: then it cannot have expired before."""
    return waiting.num_running > 0 and any(piece.frame is waiting.frame for b in batches for piece in b.pieces)
