"""One pool's lanes, backlog and replicas, and the questions that admission and batch forming ask of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from serve_app.backlog import Backlog
from serve_app.lane_key import CRITICAL, DEFERRED, NORMAL, LaneClass, LaneKey
from serve_app.lanes import Lane, Waiting
from serve_app.pool_load import PoolLoad
from serve_app.pressure import Pressure
from serve_app.replica_credits import MAX_CREDITS_PER_REPLICA, MIN_CREDITS_PER_REPLICA, ReplicaCredits
from serve_app.replica_fitness import ReplicaFitness

# What a call takes beside the engine until the first has been seen: there, placing, and back.
ASSUMED_AROUND_S = 0.01
AROUND_LEARNING_RATE = 0.05
# Of what a call takes, most lies before the device: the way there, fetching and placing. The answer is small.
SHARE_BEFORE = 0.7
# The ladder has dwell times of tenths of a second: asking it more often than this only costs.
PRESSURE_INTERVAL_S = 0.01
# Over how long the share of critical work is averaged.
CRITICAL_SHARE_S = 5.0
# However much critical work came lately, the others are predicted to get at least this share of the pool.
MIN_SHARE_OF_OTHERS = 0.1


class PoolQueue:
    """What waits for one pool, and who works on it.

    Attributes:
        name: the pool's.
        credits: its replicas.
        fitness: which of those that are counted get batches.
        backlog: device seconds that wait.
        pressure: the rung that queue and memory force.
        num_waiting: pieces by lane class.
        around_s: moving mean of what a batch takes beside the device.
        others_served_s: when noncritical work was last sent, or began to wait.
        held_lane: the lane whose next batch waits for company, or to be staged late; None: nothing waits for that.
        hold_until_s: when it is to be sent after all.
        long_batches: ids of the batches at replicas that are longer than a chunk, which none but deferred ones are.
        is_empty: whether it is known to have no replica: all died, or it has shrunk to none; not before it was counted.
        offered_s: device seconds of all frames that came so far, each by its first route, admitted or not.
        sent_s: device seconds of all pieces that were sent to its replicas so far.
    """

    def __init__(self, name: str, pressure: Pressure, max_chunk_s: float) -> None:
        """Take the name, the pressure and the longest chunk; no replica is known yet."""
        self.name = name
        self.pressure = pressure
        self.long_batches: set[int] = set()
        self._max_chunk_s = max_chunk_s
        self.credits = ReplicaCredits()
        self.fitness = ReplicaFitness()
        self.backlog = Backlog()
        self.num_waiting = [0, 0, 0]
        self.around_s = ASSUMED_AROUND_S
        self.others_served_s = 0.0
        self.held_lane: Lane | None = None
        self.hold_until_s = math.inf
        self.is_empty = False
        self.offered_s = 0.0
        self.sent_s = 0.0
        self._run_s = 0.0
        self._lanes: dict[LaneKey, Lane] = {}
        self._lanes_of_class: tuple[list[Lane], ...] = ([], [], [])
        self._critical_share = 0.0
        self._share_of_others = 1.0
        self._critical_seen_s = 0.0

    @property
    def num_pieces(self) -> int:
        """All pieces that wait."""
        return sum(self.num_waiting)

    @property
    def waiting_by_class(self) -> tuple[int, int, int]:
        """All pieces that wait: critical, normal, deferred."""
        critical, normal, deferred = self.num_waiting
        return critical, normal, deferred

    def load(self) -> PoolLoad:
        """What it has to do, as a value."""
        replicas, backlog = self.credits, self.backlog
        return PoolLoad(
            replicas.num_ready, self.num_pieces, replicas.num_batches, backlog.total_s, self.pressure.rung,
            self.around_s, replicas.per_replica, backlog.waiting_deferred_s, self.offered_s, self.sent_s,
            self.waiting_by_class, self.pressure.memory, replicas.num_free,
        )  # fmt: skip

    @property
    def before_s(self) -> float:
        """What a batch takes from its decision to its device."""
        return SHARE_BEFORE * self.around_s

    def lane(self, key: LaneKey) -> Lane | None:
        """The lane of a key, if anything was ever in it."""
        return self._lanes.get(key)

    def add(self, waiting: Waiting, pieces: Sequence[int], now_s: float, *, is_new: bool) -> None:
        """Put pieces of a frame, of which none waits, into the lane of its route; `is_new`: it has just arrived."""
        route = waiting.route
        lane = self._lanes.get(route.lane)
        if lane is None:
            lane = self._lanes[route.lane] = Lane(route.lane)
            self._lanes_of_class[route.lane.lane_class].append(lane)
        num_pieces, lane_class, work_s = len(pieces), route.lane.lane_class, route.piece_s * len(pieces)
        waiting.lane = lane
        for index in pieces:
            lane.add(waiting, index)
        waiting.num_waiting = num_pieces
        waiting.work_s = work_s
        if lane_class is CRITICAL:
            self.backlog.critical_s += work_s
        else:
            if is_new and not (self.num_waiting[1] or self.num_waiting[2]):
                self.others_served_s = now_s
            waiting.backlog_bin = self.backlog.add(waiting.due_s, work_s, now_s)
            cheapest = waiting.routes[-1]
            waiting.saving_s = 0.0 if cheapest is route else work_s - cheapest.work_s
            self.backlog.saving_s += waiting.saving_s
            if lane_class is DEFERRED:
                self.backlog.deferred_s += work_s
        if is_new:
            lane.arrival(now_s)
        if lane_class is CRITICAL or (lane is self.held_lane and lane.num_waiting >= route.max_batch):
            self.release()
        self.num_waiting[lane_class] += num_pieces

    def hold(self, lane: Lane, until_s: float) -> None:
        """Send nothing until then, unless something changes that matters."""
        self.held_lane = lane
        self.hold_until_s = until_s

    def release(self) -> None:
        """Nothing is held any more: replicas, credits or what waits have changed."""
        self.held_lane = None
        self.hold_until_s = math.inf

    def choose_replicas(self) -> None:
        """Give credits to the replicas that are fit."""
        self.credits.set_ready(self.fitness.fit())
        self.release()

    def take_out(self, waiting: Waiting) -> int:
        """Take all waiting pieces of a frame out of its lane; returns how many."""
        num_pieces = waiting.num_waiting
        waiting.epoch += 1
        if num_pieces and waiting.lane is not None:
            self._uncount(waiting, waiting.work_s)
            waiting.lane.left(num_pieces)
            self.num_waiting[waiting.lane.key.lane_class] -= num_pieces
            waiting.num_waiting = 0
        waiting.lane = None
        return num_pieces

    def waiting_pieces(self, waiting: Waiting) -> tuple[int, ...]:
        """Which pieces of a frame wait in this pool."""
        return waiting.lane.pieces_of(waiting) if waiting.lane is not None else ()

    def popped(self, waiting: Waiting) -> None:
        """One piece of a frame has been popped from its lane, to be sent."""
        self._uncount(waiting, waiting.work_s / waiting.num_waiting)
        self.num_waiting[waiting.route.lane.lane_class] -= 1
        waiting.num_waiting -= 1
        waiting.num_running += 1

    def next_lane(self, now_s: float, max_starve_s: float) -> tuple[Lane, bool] | None:
        """The lane to serve next and whether as critical work; None if nothing may be served.

        Order: critical, then deferred that must begin, then normal, then deferred; by due time within each. But when
        critical work has kept all others from the pool for `max_starve_s`, one chunk of the others counts as critical.
        """
        others = self._first_of_others(now_s)
        if not self.num_waiting[CRITICAL]:
            return None if others is None else (others, False)
        if others is not None and now_s - self.others_served_s >= max_starve_s:
            return others, True
        critical = self._first_of(CRITICAL)
        return None if critical is None else (critical, True)

    def wait_for_critical_s(self, now_s: float) -> float:
        """How long a critical frame that comes now is predicted to wait."""
        ahead_s = self.credits.running_s(now_s) + self.credits.staged_urgent_s + self.backlog.critical_s
        return ahead_s / (self.credits.num_devices or 1) if ahead_s > 0 else 0.0

    def wait_at_most_s(self, now_s: float) -> float:
        """How long a noncritical frame would wait behind all that is here: more than it is predicted to, but cheap."""
        replicas, backlog = self.credits, self.backlog
        ahead_s = replicas.running_s(now_s) + replicas.staged_urgent_s + backlog.critical_s
        ahead_s += replicas.staged_others_s + backlog.others_s
        return ahead_s / (replicas.num_devices or 1) / self._share_of_others if ahead_s > 0 else 0.0

    def wait_if_degraded_s(self, now_s: float) -> float:
        """How long a noncritical frame would wait if all that waits took its cheapest route."""
        saved_s = max(0.0, self.backlog.saving_s) / (self.credits.num_devices or 1) / self._share_of_others
        return max(0.0, self.wait_at_most_s(now_s) - saved_s)

    def wait_for_other_s(self, due_s: float, now_s: float) -> float:
        """How long a noncritical frame that comes now and is due then is predicted to wait."""
        ahead_s = self.credits.staged_others_s + self.backlog.ahead_s(due_s, now_s)
        wait_s = self.wait_for_critical_s(now_s) + max(0.0, ahead_s) / (self.credits.num_devices or 1)
        return wait_s / self._share_of_others

    def feel_pressure(self, now_s: float) -> None:
        """Tell the ladder how long a normal frame would wait behind all that is not deferred.

        To be called every `PRESSURE_INTERVAL_S`: the share of critical work is brought up to date as well.
        """
        self.critical_came(0.0, now_s)
        ahead_s = self.credits.staged_others_s + self.backlog.normal_s
        wait_s = self.wait_for_critical_s(now_s) + max(0.0, ahead_s) / (self.credits.num_devices or 1)
        self.pressure.waits(wait_s / self._share_of_others, now_s)

    def took(self, busy_s: float, around_s: float) -> None:
        """A batch took so long on the device, and beside it: so many must be on their way to keep a device busy."""
        self.around_s += AROUND_LEARNING_RATE * (min(around_s, 10 * self.around_s) - self.around_s)
        self._run_s += AROUND_LEARNING_RATE * (busy_s - self._run_s) if self._run_s else busy_s
        on_their_way = 1 + math.ceil(self.around_s / max(self._run_s, 1e-6))
        self.credits.per_replica = min(MAX_CREDITS_PER_REPLICA, max(MIN_CREDITS_PER_REPLICA, on_their_way))

    def critical_came(self, work_s: float, now_s: float) -> None:
        """Critical work of so many device seconds has arrived: the moving mean of it fades until now, and grows."""
        if now_s > self._critical_seen_s:
            self._critical_share *= math.exp((self._critical_seen_s - now_s) / CRITICAL_SHARE_S)
            self._critical_seen_s = now_s
        self._critical_share += work_s / CRITICAL_SHARE_S
        self._share_of_others = max(MIN_SHARE_OF_OTHERS, 1 - self._critical_share / (self.credits.num_devices or 1))

    def _first_of_others(self, now_s: float) -> Lane | None:
        has_normal = self.num_waiting[NORMAL]
        if self.num_waiting[DEFERRED] and not self.pressure.pauses_deferred:
            deferred = self._first_of(DEFERRED)
            goes_first = deferred is not None and (not has_normal or deferred.first_due_s() <= now_s)
            if deferred is not None and goes_first and self._may_run(deferred, now_s):
                return deferred
        return self._first_of(NORMAL) if has_normal else None

    def is_long(self, waiting: Waiting) -> bool:
        """Whether a piece of a noncritical frame alone keeps a device longer than a chunk: it is not to be tiled."""
        return waiting.route.alone_s > self._max_chunk_s and waiting.route.lane.lane_class is DEFERRED

    def _may_run(self, lane: Lane, now_s: float) -> bool:
        """Whether the head of a deferred lane may go now: what is longer than a chunk leaves one replica to the others.

        Until it must begin it waits for an idle one; so a critical frame has a place where it waits for one chunk.
        """
        head = lane.first()
        if head is None or not self.is_long(head):
            return True
        if self.long_batches and len(self.long_batches) >= self.credits.num_ready - 1:
            return False
        return self.credits.has_idle or head.due_s <= now_s

    def _first_of(self, lane_class: LaneClass) -> Lane | None:
        """The lane of a class whose head is due first. Linear in the number of canvases."""
        best = None
        best_due_s = math.inf
        for lane in self._lanes_of_class[lane_class]:
            if lane.num_waiting and (due_s := lane.first_due_s()) < best_due_s:
                best, best_due_s = lane, due_s
        return best

    def _uncount(self, waiting: Waiting, work_s: float) -> None:
        waiting.work_s -= work_s
        lane_class = waiting.route.lane.lane_class
        if lane_class is CRITICAL:
            self.backlog.critical_s -= work_s
            return
        self.backlog.remove(waiting.backlog_bin, work_s)
        if waiting.saving_s:
            # Once a piece is on its way it takes no other route, nor does the rest.
            self.backlog.saving_s -= waiting.saving_s
            waiting.saving_s = 0.0
        if lane_class is DEFERRED:
            self.backlog.deferred_s -= work_s
