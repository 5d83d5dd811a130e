"""Which replica of a pool may get the next batch: credits, who is idle, and when a busy one will be free."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Collection, Mapping
from heapq import heappush
from typing import NamedTuple

from serve_app.errors import FramelaneError

# One batch runs, one is fetched and placed meanwhile.
MIN_CREDITS_PER_REPLICA = 2
# Where a call takes several times as long as a run, more must be on their way to keep the device busy; but each takes a
# decision early.
MAX_CREDITS_PER_REPLICA = 6
# A named tuple's own constructor is Python and takes three times as long; these are made for every batch.
new_tuple = tuple.__new__
# How often heaps are looked at for entries of older states.
CLEANING_CHANGES = 64


class SchedulerStateError(FramelaneError):
    """An event that cannot have happened, such as the end of a batch that was never sent; nothing was changed."""


class Held(NamedTuple):
    """A batch at a replica: its id, whether it is critical work, how long it will run, and when it will be there."""

    batch_id: int
    urgent: bool
    run_s: float
    there_s: float


class Replica:
    """One replica: the batches that it holds, in the order in which it is thought to run them.

    Attributes:
        name: as it reports itself.
        ready: whether it takes batches.
        held: the running batch, then staged critical ones, then the other staged ones.
        free_s: when the running one is predicted to end.
        staged_s: predicted seconds of the staged ones.
        heard_s: when it last answered anything.
        num_others: how many of all are noncritical.
        max_others: how many of them it may hold, at most `ReplicaCredits.per_replica`; 0: it is for critical ones only.
        share: of its device's time, what batches of ours can count on; less than 1 where other routers use it as well.
        free_for_urgent_s, free_for_other_s: when the batches of other routers that run, or are urgent, will have ended;
            and all of them.
        version: grows with every change, so that what a heap still holds of an older state counts no more.
    """

    __slots__ = (
        "free_for_other_s", "free_for_urgent_s", "free_s", "heard_s", "held", "max_others", "name", "num_others",
        "ready", "share", "staged_s", "version",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = True
        self.held: list[Held] = []
        self.free_s = 0.0
        self.heard_s = 0.0
        self.staged_s = 0.0
        self.num_others = 0
        self.max_others = MAX_CREDITS_PER_REPLICA
        self.share = 1.0
        self.free_for_urgent_s = self.free_for_other_s = -math.inf
        self.version = 0


# When it will be free, order of entry, version, replica.
_Entry = tuple[float, int, int, Replica]


class Place(NamedTuple):
    """Where a batch could go now, when it would begin to run there, and from when on it could."""

    replica: Replica
    start_s: float
    there_s: float


class ReplicaCredits:
    """The replicas of one pool.

    Order: an idle replica first, else the one that will be free for such a batch first. Noncritical batches hold at
    most `per_replica` credits on each, and in a pool of two or more one fewer in all, which is kept for critical ones
    (not where a replica is for critical ones only).
    A critical batch needs none of them: it may join whatever a replica holds, one at a time, and overtakes what is
    staged there, so that it waits for the running batch only. Places, sending and ending take O(log replicas); while
    other routers use the replicas too, an idle one is chosen by the work that they have there, in O(replicas).

    Attributes:
        per_replica: credits for noncritical batches.
        num_ready: replicas that take batches.
        num_devices: the sum of their shares: how many devices the work here can count on.
        staged_urgent_s, staged_others_s: predicted seconds of what is staged at them.
    """

    def __init__(self) -> None:
        self.per_replica = MIN_CREDITS_PER_REPLICA
        self.num_ready = 0
        self.num_devices = 0.0
        self.staged_urgent_s = 0.0
        self.staged_others_s = 0.0
        self._replicas: dict[str, Replica] = {}
        self._idle: dict[str, Replica] = {}
        # Of these, the ones that take noncritical batches.
        self._idle_for_others: dict[str, Replica] = {}
        # Credits for noncritical batches in all, less the one kept, by `per_replica`; empty: to be counted anew.
        self._total_of: dict[int, int] = {}
        # Busy replicas that may take a noncritical batch, by the end of all they hold; that may take a critical one, by
        # the end of what runs.
        self._stageable: list[_Entry] = []
        self._overtakable: list[_Entry] = []
        self._order = itertools.count()
        self._where: dict[int, Replica] = {}
        self._num_others = 0
        self._running_end_sum_s = 0.0
        self._num_running = 0
        self._is_shared = False

    @property
    def num_batches(self) -> int:
        """Batches that are with replicas."""
        return len(self._where)

    @property
    def has_idle(self) -> bool:
        """Whether a replica that takes batches has none."""
        return bool(self._idle)

    @property
    def num_free(self) -> int:
        """Noncritical batches that may be sent now; a critical one needs no credit where it overtakes."""
        return max(0, self._counted(self.per_replica) - self._num_others)

    def names(self) -> tuple[str, ...]:
        """The replicas that take batches, in the order in which they came."""
        return tuple(replica.name for replica in self._replicas.values() if replica.ready)

    def set_ready(self, names: Collection[str] | Mapping[str, int]) -> None:
        """These replicas take batches now; batches that others still hold end or are lost in their own time.

        Args:
            names: the replicas; a mapping says for each how many noncritical batches it may hold.
        """
        wanted = set(names)
        self._total_of.clear()
        for replica in list(self._replicas.values()):
            if replica.ready != (replica.name in wanted):
                replica.ready = replica.name in wanted
                self._num_others += replica.num_others if replica.ready else -replica.num_others
                self._changed(replica)
        for name in names:
            if name not in self._replicas:
                self._replicas[name] = Replica(name)
                self._changed(self._replicas[name])
            replica = self._replicas[name]
            max_others = names[name] if isinstance(names, Mapping) else MAX_CREDITS_PER_REPLICA
            if max_others != replica.max_others:
                replica.max_others = max_others
                self._changed(replica)
        self.num_ready = len(wanted)
        self.num_devices = sum(replica.share for replica in self._replicas.values() if replica.ready)

    def set_shared(self, name: str, share: float, free_for_urgent_s: float, free_for_other_s: float) -> None:
        """A replica told how much of it other routers use: see `Replica`. One that is not known is passed over."""
        replica = self._replicas.get(name)
        if replica is None:
            return
        if replica.ready:
            self.num_devices += share - replica.share
        replica.share = share
        replica.free_for_urgent_s, replica.free_for_other_s = free_for_urgent_s, free_for_other_s
        self._is_shared |= share < 1

    def running_s(self, now_s: float) -> float:
        """Device seconds until all that runs has ended."""
        running_s = self._running_end_sum_s - self._num_running * now_s
        return running_s if running_s > 0 else 0.0

    def place_for_critical(self, now_s: float, before_s: float) -> Place | None:
        """Where a critical batch can go that takes `before_s` on its way: at once, or after the running batch."""
        there_s = now_s + before_s
        if self._idle:
            replica = next(iter(self._idle.values()))
            if self._is_shared:
                replica = min(self._idle.values(), key=_free_for_urgent_s)
            return new_tuple(Place, (replica, max(there_s, replica.free_for_urgent_s), there_s))
        heap = self._overtakable
        while heap:
            free_s, _, version, replica = heap[0]
            if replica.version == version:
                return new_tuple(Place, (replica, max(there_s, free_s, replica.free_for_urgent_s), there_s))
            heapq.heappop(heap)
        return None

    def place_for_other(self, now_s: float, before_s: float) -> Place | None:
        """Where a noncritical batch can go that takes `before_s` on its way: at once, or after all that is held."""
        if self._idle_for_others:
            # Whatever the others hold, which may be more than `per_replica` has become.
            there_s = now_s + before_s
            replica = next(iter(self._idle_for_others.values()))
            if self._is_shared:
                replica = min(self._idle_for_others.values(), key=_free_for_other_s)
            return new_tuple(Place, (replica, max(there_s, replica.free_for_other_s), there_s))
        per_replica = self.per_replica
        if self._num_others >= (self._total_of.get(per_replica) or self._counted(per_replica)):
            return None
        heap = self._stageable
        while heap:
            free_s, _, version, replica = heap[0]
            if (
                replica.version == version
                and replica.num_others < per_replica
                and replica.num_others < replica.max_others
            ):
                there_s = now_s + before_s
                return new_tuple(Place, (replica, max(there_s, free_s, replica.free_for_other_s), there_s))
            heapq.heappop(heap)
        return None

    def first_end_s(self, now_s: float) -> float:
        """When the first replica will have run all that it holds, whether it has a credit now or not. Linear."""
        return min(
            (
                max(replica.free_s + replica.staged_s, replica.free_for_other_s)
                for replica in self._replicas.values()
                if replica.ready
            ),
            default=now_s,
        )

    def end_s(self, batch_id: int) -> float:
        """When a batch that a replica holds is predicted to end: what is ahead of it ends first."""
        replica = self._where[batch_id]
        running, *staged = replica.held
        # Where other routers use it too, what they have there may go first.
        end_s = max(replica.free_s, max(replica.heard_s, replica.free_for_other_s) + running.run_s)
        if running.batch_id == batch_id:
            return end_s
        for held in staged:
            end_s = max(end_s, held.there_s) + held.run_s
            if held.batch_id == batch_id:
                break
        return end_s

    def held_with(self, batch_id: int) -> tuple[int, ...]:
        """All batches of the replica that holds this one, which comes first."""
        others = (held.batch_id for held in self._where[batch_id].held if held.batch_id != batch_id)
        return (batch_id, *others)

    def heard(self, batch_id: int, now_s: float) -> None:
        """The replica that holds this batch has answered it: what it holds beside is not overdue yet."""
        replica = self._where.get(batch_id)
        if replica is not None:
            replica.heard_s = now_s

    def sent(self, batch_id: int, place: Place, run_s: float, *, urgent: bool) -> None:
        """A batch goes to a place; it will run for so long."""
        replica = place.replica
        held = new_tuple(Held, (batch_id, urgent, run_s, place.there_s))
        if not replica.held:
            replica.held.append(held)
            self._runs(replica, place.start_s)
        else:
            place_in_line = len(replica.held)
            if urgent:
                place_in_line = 1 + sum(1 for staged in replica.held[1:] if staged.urgent)
            replica.held.insert(place_in_line, held)
            self._stage(replica, held, 1)
        self._where[batch_id] = replica
        if not urgent:
            self._count_other(replica, 1)
        self._changed(replica)

    def ended(self, batch_id: int, now_s: float, after_s: float = 0.0) -> None:
        """A batch is no more at its replica, since `after_s`: so long its answer was on its way.

        Raises:
            SchedulerStateError: it is with none.
        """
        replica = self._where.pop(batch_id, None)
        if replica is None:
            raise SchedulerStateError(f"batch {batch_id}: is not running; a batch ends once")
        index = 0
        while replica.held[index].batch_id != batch_id:
            index += 1
        ended = replica.held.pop(index)
        if not ended.urgent:
            self._count_other(replica, -1)
        if index > 0:
            self._stage(replica, ended, -1)
        else:
            self._running_end_sum_s -= replica.free_s
            self._num_running -= 1
            if replica.held:
                self._stage(replica, replica.held[0], -1)
                # Where the way is long, the next one may still be on it.
                start_s = max(now_s - after_s, replica.held[0].there_s, replica.free_for_urgent_s)
                self._runs(replica, start_s)
        self._changed(replica)

    def _runs(self, replica: Replica, start_s: float) -> None:
        """The first batch that a replica holds runs from now on."""
        replica.free_s = start_s + replica.held[0].run_s
        self._running_end_sum_s += replica.free_s
        self._num_running += 1

    def _stage(self, replica: Replica, held: Held, sign: int) -> None:
        """A staged batch comes (1) or goes (-1)."""
        replica.staged_s += sign * held.run_s
        if held.urgent:
            self.staged_urgent_s += sign * held.run_s
        else:
            self.staged_others_s += sign * held.run_s

    def _count_other(self, replica: Replica, change: int) -> None:
        """Noncritical batches of replicas that left hold nobody's credit."""
        replica.num_others += change
        if replica.ready:
            self._num_others += change

    def _counted(self, per_replica: int) -> int:
        """Credits for noncritical batches of all replicas. Linear, once after each change of the replicas."""
        limits = [replica.max_others for replica in self._replicas.values() if replica.ready]
        # One is kept for critical batches, unless a whole replica is.
        kept = 1 if len(limits) > 1 and min(limits) > 0 else 0
        total = self._total_of[per_replica] = sum(min(per_replica, limit) for limit in limits) - kept
        return total

    def _changed(self, replica: Replica) -> None:
        """Put a replica where its batches say."""
        replica.version += 1
        self._idle.pop(replica.name, None)
        self._idle_for_others.pop(replica.name, None)
        if not replica.held:
            # Sums of floats drift; an empty replica is a place to begin anew.
            replica.staged_s = 0.0
            if replica.ready:
                self._idle[replica.name] = replica
                if replica.max_others:
                    self._idle_for_others[replica.name] = replica
            else:
                self._replicas.pop(replica.name, None)
            if not self._where:
                self._running_end_sum_s = self.staged_urgent_s = self.staged_others_s = 0.0
        elif replica.ready:
            order, version = next(self._order), replica.version
            if replica.num_others < self.per_replica and replica.num_others < replica.max_others:
                heappush(self._stageable, (replica.free_s + replica.staged_s, order, version, replica))
            held = replica.held
            if len(held) == 1 or not held[1].urgent:
                heappush(self._overtakable, (replica.free_s, order, version, replica))
            if order % CLEANING_CHANGES == 0:
                self._clean()

    def _clean(self) -> None:
        """Drop what the heaps still hold of older states, once it is most of them."""
        for heap in (self._stageable, self._overtakable):
            if len(heap) > 4 * len(self._replicas) + 16:
                heap[:] = [entry for entry in heap if entry[3].version == entry[2]]
                heapq.heapify(heap)


def _free_for_urgent_s(replica: Replica) -> float:
    return replica.free_for_urgent_s


def _free_for_other_s(replica: Replica) -> float:
    return replica.free_for_other_s
