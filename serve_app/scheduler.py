"""The pure heart: events in, decisions out. It reads no clock, does no I/O and knows nothing of Ray.

Whoever drives it (the router, a test, the simulator) says what happened and when (`now_s`, monotonic seconds), then
asks `decide` what to do. Every frame that `arrived` admits leaves exactly once: by an `Expired` decision, superseded by
a newer frame, through `cancelled`, by the end of its last piece, or given up when a replica was lost.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from serve_app.admission import Admission
from serve_app.batch_forming import BatchForming
from serve_app.batching import Batch
from serve_app.decisions import NOTHING, Arrival, Decisions, Expired
from serve_app.frames import Frame, Priority
from serve_app.lanes import Waiting
from serve_app.latency import LatencyModel
from serve_app.memory_level import MemoryLevel
from serve_app.plan import Keep, Plan
from serve_app.pool_load import PoolLoad
from serve_app.pool_queue import PRESSURE_INTERVAL_S, PoolQueue
from serve_app.pressure import Pressure
from serve_app.replica_credits import SchedulerStateError, new_tuple
from serve_app.routes import RouteTable
from serve_app.running_batches import RunningBatches
from serve_app.verdicts import VerdictKind
from serve_app.waiting_room import WaitingRoom

# Looked up for every frame, see `lane_key.py`.
CRITICAL_PRIORITY, KEEP_LATEST, REJECT = Priority.CRITICAL, Keep.LATEST, VerdictKind.REJECT
# How often routes are worked out anew from the latencies.
ROUTES_REFRESH_S = 1.0
NO_IDS: frozenset[str] = frozenset()


class Scheduler:
    """Strict priority over all lanes of a pool, by deadline within, with chunks, deferral and a ladder.

    Algorithm: a frame that arrives gets a route and a lane (`Admission`). While a pool has a credit, batches are formed
    of what waits (`BatchForming`). What is late, waiting (`WaitingRoom`) or at a replica (`RunningBatches`), leaves.
    Order: critical by deadline; then normal by latest start, before deferred ones until those must begin.
    Bound: a critical frame waits for one running chunk and for critical work ahead of it. A frame of another class is
    sent, or has ended, by its deadline at the latest; and while any of them waits, a chunk of theirs is sent, counting
    as critical, at least every `max_starve_s` plus one chunk.
    Liveness: with one ready replica every waiting frame is sent or expires; with none that answers, what was sent ends
    soon after its deadline (`overdue.py`).
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
        self._room = WaitingRoom(plan, self._pools, self._admission)
        self._batches = RunningBatches(self._pools, self._room, self._latency)
        self._forming = BatchForming(
            plan, self._routes, self._latency, admission=self._admission, room=self._room, batches=self._batches
        )
        self._routes_from_s = -math.inf
        self._felt_s = -math.inf

    @property
    def num_frames(self) -> int:
        """Frames that are here, waiting or running."""
        return len(self._room.entries)

    @property
    def held_bytes(self) -> int:
        """Bytes of their pixels."""
        return self._room.held_bytes

    @property
    def latency(self) -> LatencyModel:
        """What is known of the seconds that batches take."""
        return self._latency

    def loads(self) -> dict[str, PoolLoad]:
        """What each pool has to do."""
        return {name: pool.load() for name, pool in self._pools.items()}

    def next_wake_s(self) -> float | None:
        """When `decide` is due at the latest: a frame expires, a batch is overdue or has waited for company."""
        wake_s, check_s = self._room.next_look_s(), self._batches.next_check_s()
        wake_s = min(wake_s, check_s)
        for pool in self._pools.values():
            wake_s = min(wake_s, pool.hold_until_s)
        return None if wake_s == math.inf else wake_s

    def arrived(self, frame: Frame) -> Arrival:
        """Judge a frame that arrives at its `arrived_s`, and put it into its lane unless it is rejected.

        Raises:
            SchedulerStateError: a frame of this id is here.
        """
        room = self._room
        if frame.frame_id in room.entries:
            raise SchedulerStateError(f"frame {frame.frame_id}: is here already; give every frame an id of its own")
        now_s = frame.arrived_s
        if now_s - self._routes_from_s >= ROUTES_REFRESH_S:
            self._routes.refresh(now_s)
            self._routes_from_s = now_s
        rule = self._routes.rule_of(frame.camera)
        routes = self._routes.routes(rule, frame.size_hw, frame.priority)
        if routes:
            self._pools[routes[0].pool].offered_s += routes[0].work_s
        is_latest = rule.keep is KEEP_LATEST
        older = room.latest.get((frame.camera, frame.priority)) if is_latest else None
        full = None if room.has_room(frame) else room.over_budget(frame, older)
        if full is not None:
            return Arrival(full)
        if now_s - self._felt_s >= PRESSURE_INTERVAL_S:
            self._feel_pressure(now_s)
        verdict, index = self._admission.judge(frame, routes)
        if verdict.kind is REJECT:
            return Arrival(verdict)
        if older is not None:
            room.take_out(older)
        waiting = Waiting(frame, routes, index)
        room.enter(waiting, is_latest=is_latest)
        if frame.priority is CRITICAL_PRIORITY:
            route = routes[index]
            self._pools[route.pool].critical_came(route.work_s, now_s)
        route = waiting.route
        look_s = room.enqueue(waiting, range(route.num_pieces), now_s, is_new=True)
        pool = self._pools[route.pool]
        decide_by_s = now_s
        if pool.held_lane is not None:
            decide_by_s = min(pool.hold_until_s, look_s)
        return new_tuple(Arrival, (verdict, None if older is None else older.frame, decide_by_s))

    def cancelled(self, frame_id: str) -> bool:
        """Take a frame out of which pieces wait; False if none does (any more): then its batch runs on."""
        waiting = self._room.entries.get(frame_id)
        if waiting is None or not waiting.num_waiting:
            return False
        self._room.take_out(waiting)
        return True

    def take_unbegun(self) -> tuple[Frame, ...]:
        """Take out the frames of which no piece has been sent, the most urgent first, for another router to serve."""
        waiting = self._room.unbegun()
        for each in waiting:
            self._room.take_out(each)
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
        return frame_id in self._room.entries

    def is_late(self, batch_id: int) -> bool:
        """Whether a batch that is not answered is overdue: its frames may have been answered by others."""
        return batch_id in self._batches.late

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
        checks, expiry = self._batches.checks, self._room.expiry
        if checks and checks[0][0] <= now_s:
            self._batches.look_for_overdue(now_s)
        expired: list[Expired] = []
        given_up: list[Frame] = []
        if expiry and expiry[0][0] <= now_s:
            self._room.expire(now_s, expired, given_up)
        if now_s - self._felt_s >= PRESSURE_INTERVAL_S:
            self._feel_pressure(now_s)
        batches: list[Batch] = []
        forming = self._forming
        forming.moved_between_pools = True
        while forming.moved_between_pools:
            forming.moved_between_pools = False
            for pool in self._pools.values():
                if pool.held_lane is not None:
                    if now_s < pool.hold_until_s:
                        continue
                    pool.release()
                forming.form(pool, now_s, batches, expired)
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
        batches, room = self._batches, self._room
        late = batches.late.pop(batch_id, None)
        batch, entries = batches.answered(batch_id, now_s) if late is None else late[:2]
        self._took(batch, busy_s, around_s if late is None else None)
        lost = set(failed) if failed else NO_IDS
        if late is not None:
            return batches.answered_late(late, lost, now_s)
        done = []
        for index, waiting in enumerate(entries):
            if waiting.lost_on and not batches.settles(waiting, batch.pieces[index]):
                continue
            waiting.num_running -= 1
            if not room.is_here(waiting):
                continue
            if waiting.frame.frame_id in lost:
                room.take_out(waiting)
            elif not waiting.num_running and not waiting.num_waiting:
                room.forget(waiting)
                done.append(waiting.frame)
        return tuple(done)

    def batch_lost(self, batch_id: int, now_s: float) -> tuple[Frame, ...]:
        """The replica died with a batch: its pieces wait again, where deadline and attempts allow.

        Returns:
            The frames that were given up, for the caller to answer.
        """
        late = self._batches.late.pop(batch_id, None)
        if late is not None:
            return self._batches.lost_late(late)
        batch, entries = self._batches.take_back(batch_id, now_s)
        return self._room.give_up(self._batches.back_to_lanes(batch, entries, now_s, batch.replica))

    def batch_refused(self, batch_id: int, now_s: float) -> tuple[Frame, ...]:
        """A replica did not read a batch, for want of a credit or about to leave: its pieces wait again.

        No attempt counts.

        Returns:
            The frames that were given up, for the caller to answer: those that hoped for an overdue batch.
        """
        late = self._batches.late.pop(batch_id, None)
        if late is not None:
            return self._batches.lost_late(late)
        batch, entries = self._batches.take_back(batch_id, now_s)
        pool = self._pools[batch.pool]
        for waiting, piece in zip(entries, batch.pieces, strict=True):
            if piece.number in waiting.settled:
                continue
            waiting.num_running -= 1
            if self._room.is_here(waiting):
                # What was refused has not been served: it starves since it came.
                pool.others_served_s = min(pool.others_served_s, waiting.frame.arrived_s)
                self._room.enqueue(waiting, (piece.number,), now_s, is_new=False)
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
        late = self._batches.late.pop(batch_id, None)
        batch, entries = self._batches.take_back(batch_id, now_s) if late is None else late[:2]
        if not elsewhere:
            self._routes.limit_batches(batch.bucket, batch.canvas, len(batch.pieces) // 2, now_s)
        if late is not None:
            return self._batches.lost_late(late)
        given_up = []
        for waiting, piece in zip(entries, batch.pieces, strict=True):
            if piece.number in waiting.settled:
                continue
            waiting.num_running -= 1
            if not self._room.is_here(waiting):
                continue
            pieces: Sequence[int] = (piece.number,)
            must_shrink = len(batch.pieces) == 1 and not elsewhere
            if must_shrink and waiting.index < len(waiting.routes) - 1 and waiting.route.num_pieces == 1:
                waiting.take_route(waiting.index + 1)
                pieces, must_shrink = range(waiting.route.num_pieces), False
            if must_shrink or waiting.last_start_s <= now_s:
                self._room.take_out(waiting)
                given_up.append(waiting.frame)
            else:
                self._room.enqueue(waiting, pieces, now_s, is_new=False)
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
