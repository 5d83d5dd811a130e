"""Which batches to send now: the most urgent lane's pieces, as many as sizes, chunk and deadlines allow."""

from __future__ import annotations

import itertools
import math

from serve_app.admission import Admission
from serve_app.batching import Batch, Piece, batch_size, gain_of_joining, neighbours
from serve_app.decisions import Expired
from serve_app.lane_key import CRITICAL, DEFERRED, NORMAL
from serve_app.lanes import Lane, Waiting
from serve_app.latency import LatencyModel
from serve_app.plan import Plan
from serve_app.pool_queue import PoolQueue
from serve_app.replica_credits import Place, new_tuple
from serve_app.route import Route
from serve_app.routes import RouteTable
from serve_app.running_batches import RunningBatches
from serve_app.waiting_room import WaitingRoom


class BatchForming:
    """Forms the batches of a pool while it has a credit.

    The next lane (`PoolQueue.next_lane`) gives a batch: as many pieces as the warmed sizes, the chunk and the first
    one's deadline allow. A noncritical batch that would only be staged behind a running one waits for company until it
    must be sent. What is longer than a chunk leaves one replica to the others.

    Attributes:
        moved_between_pools: whether a frame went to another pool, for which batches may now be formed.
    """

    def __init__(
        self,
        plan: Plan,
        routes: RouteTable,
        latency: LatencyModel,
        *,
        admission: Admission,
        room: WaitingRoom,
        batches: RunningBatches,
    ) -> None:
        """Take the plan and the scheduler's parts."""
        self._routes = routes
        self._latency = latency
        self._admission = admission
        self._room = room
        self._batches = batches
        self._neighbours = neighbours(plan)
        self._max_starve_s = plan.scheduling.max_starve_s
        self._batch_ids = itertools.count(1)
        self.moved_between_pools = False

    def form(self, pool: PoolQueue, now_s: float, batches: list[Batch], expired: list[Expired]) -> None:
        """Form what the free credits of a pool allow; batches, and frames that are found late, are added."""
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
            if begin_s > head.last_start_s and begin_s > (last_start_s := _last_start_s(head)):
                if pool.credits.first_end_s(now_s) <= last_start_s or _is_in(head, batches):
                    # Another replica has no credit now, but will be free in time; or tiles of it have just been sent.
                    pool.hold(lane, min(begin_s, last_start_s))
                    return
                self._room.take_out(head)
                expired.append(Expired(head.frame, head.route))
                continue
            time_left_s = head.frame.deadline_s - place.start_s - (pool.around_s - before_s)
            most = self._routes.max_batch(head.route) if self._routes.limits else None
            size = batch_size(head.route, lane, self._latency, time_left_s, most)
            if not urgent and place.replica.held:
                is_full = size in (head.route.max_batch, most)
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
        self.moved_between_pools |= waiting.route.pool != pool.name
        self._room.enqueue(waiting, range(waiting.route.num_pieces), now_s, is_new=False)
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
        if self._room.latest:
            for waiting, _ in taken:
                self._room.no_longer_latest(waiting)
        if lane.key.lane_class is not CRITICAL:
            pool.others_served_s = now_s
        pool.sent_s += route.piece_s * len(taken)
        run_s = self._latency.predict_s(route.model, route.canvas, len(taken))
        pieces = tuple([new_tuple(Piece, (waiting.frame, waiting.route, index)) for waiting, index in taken])
        batch = new_tuple(
            Batch,
            (next(self._batch_ids), pool.name, place.replica.name, route.bucket, route.model, route.canvas, urgent,
             run_s, pieces),
        )  # fmt: skip
        pool.credits.sent(batch.batch_id, place, run_s, urgent=urgent)
        if lane.key.lane_class is DEFERRED and pool.is_long(taken[0][0]):
            pool.long_batches.add(batch.batch_id)
        self._batches.sent(batch, tuple([waiting for waiting, _ in taken]), place.start_s)
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


def _last_start_s(waiting: Waiting) -> float:
    """When a frame must begin at the latest: once it has begun, what is left of it by its deadline."""
    return waiting.frame.deadline_s if waiting.has_begun else waiting.last_start_s


def _is_in(waiting: Waiting, batches: list[Batch]) -> bool:
    """Whether a piece of a frame goes with these batches: then it cannot have expired before."""
    return waiting.num_running > 0 and any(piece.frame is waiting.frame for b in batches for piece in b.pieces)
