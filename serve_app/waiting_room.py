"""The frames that are here, waiting or running: who may come in, where they wait, and when they must leave."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

from serve_app.admission import Admission
from serve_app.decisions import Expired
from serve_app.frames import Frame, Priority
from serve_app.lanes import Waiting
from serve_app.plan import Plan
from serve_app.pool_queue import PoolQueue
from serve_app.verdicts import RejectCause, Verdict, VerdictKind

# Of the budgets, what noncritical frames may take: critical ones are refused last.
SHARE_OF_NONCRITICAL = 0.9
# Looked up for every frame, see `lane_key.py`.
CRITICAL_PRIORITY = Priority.CRITICAL


class WaitingRoom:
    """Bounds what is here, and lets each frame out once.

    A frame expires when none of its routes can be in time any more; one that hopes for a late answer is given up when
    that can come no more.

    Attributes:
        entries: the frames by id.
        latest: of cameras that keep the latest only, the frame that waits.
        held_bytes: bytes of the pixels of all.
        expiry: when to look at which frame: seconds, order, epoch, frame; what has left is dropped in time.
    """

    def __init__(self, plan: Plan, pools: Mapping[str, PoolQueue], admission: Admission) -> None:
        """Take the plan's limits, the queues where frames wait, and who tells by when they must begin."""
        self._limits = plan.limits
        self._slo_s = plan.slo_s
        self._pools = pools
        self._admission = admission
        self._max_others = math.floor(SHARE_OF_NONCRITICAL * plan.limits.max_waiting_frames)
        self._max_others_bytes = SHARE_OF_NONCRITICAL * plan.limits.max_waiting_bytes
        self._order = itertools.count()
        self.entries: dict[str, Waiting] = {}
        self.latest: dict[tuple[str, Priority], Waiting] = {}
        self.held_bytes = 0
        self.expiry: list[tuple[float, int, int, Waiting]] = []

    def is_here(self, waiting: Waiting) -> bool:
        """Whether a frame has not left."""
        return self.entries.get(waiting.frame.frame_id) is waiting

    def enter(self, waiting: Waiting, *, is_latest: bool) -> None:
        """A frame comes in; `is_latest`: a newer one of its camera is to take its place."""
        frame = waiting.frame
        self.entries[frame.frame_id] = waiting
        self.held_bytes += frame.num_bytes
        if is_latest:
            self.latest[frame.camera, frame.priority] = waiting

    def unbegun(self) -> list[Waiting]:
        """The frames of which no piece has been sent."""
        return [each for each in self.entries.values() if each.num_waiting == each.route.num_pieces]

    def look_at(self, waiting: Waiting, at_s: float) -> None:
        """See to a frame then, if it is still as it is now."""
        heappush(self.expiry, (at_s, next(self._order), waiting.epoch, waiting))

    def next_look_s(self) -> float:
        """When to look at a frame next; infinity: never."""
        expiry = self.expiry
        while expiry:
            look_s, _, epoch, waiting = expiry[0]
            if waiting.epoch == epoch:
                return look_s
            heappop(expiry)
        return math.inf

    def has_room(self, frame: Frame) -> bool:
        """Whether there is room for a frame of any priority: the answer for nearly all of them, and quickly."""
        return len(self.entries) < self._max_others and self.held_bytes + frame.num_bytes <= self._max_others_bytes

    def over_budget(self, frame: Frame, older: Waiting | None) -> Verdict | None:
        """The rejection of a frame for which there is no room; None if there is."""
        limits = self._limits
        num_frames, num_bytes = len(self.entries) + 1, self.held_bytes + frame.num_bytes
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
        return Verdict(VerdictKind.REJECT, reason, retry_after_s=self._slo_s[frame.priority], cause=cause)

    def enqueue(self, waiting: Waiting, pieces: Sequence[int], now_s: float, *, is_new: bool) -> float:
        """Put pieces into the lane of the frame's route; returns when to look whether they wait too long."""
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
        heappush(self.expiry, (look_s, next(self._order), waiting.epoch, waiting))
        if len(self.expiry) > 2 * len(self.entries) + 64:
            # In place: `expire` may be going through it.
            self.expiry[:] = [entry for entry in self.expiry if entry[3].epoch == entry[2]]
            heapify(self.expiry)
        return look_s

    def take_out(self, waiting: Waiting) -> None:
        """A frame leaves for good; what runs of it is answered to nobody."""
        self._pools[waiting.route.pool].take_out(waiting)
        self.forget(waiting)

    def forget(self, waiting: Waiting) -> None:
        """A frame of which nothing waits leaves for good."""
        frame = waiting.frame
        waiting.epoch += 1
        del self.entries[frame.frame_id]
        self.held_bytes -= frame.num_bytes
        if self.latest:
            self.no_longer_latest(waiting)

    def no_longer_latest(self, waiting: Waiting) -> None:
        """A newer frame of its camera is not to take its place any more: it has begun, or left."""
        key = waiting.frame.camera, waiting.frame.priority
        if self.latest.get(key) is waiting:
            del self.latest[key]

    def expire(self, now_s: float, expired: list[Expired], given_up: list[Frame]) -> None:
        """Let out what cannot be in time any more, and what hopes no more; both are added to what they are given."""
        expiry = self.expiry
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
                        given_up += self.give_up([waiting])
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
                self.take_out(waiting)
                expired.append(Expired(waiting.frame, waiting.route))

    def give_up(self, hopeless: Iterable[Waiting]) -> tuple[Frame, ...]:
        """Frames leave that no attempt is left for."""
        given_up = []
        for waiting in hopeless:
            self.take_out(waiting)
            given_up.append(waiting.frame)
        return tuple(given_up)

    def _bridged(self, waiting: Waiting, now_s: float) -> bool:
        """Move a frame whose pool has no replica, while one starts say, to the first rung of a pool that has one."""
        pool = self._pools[waiting.route.pool]
        if not pool.is_empty or waiting.has_begun or waiting.last_start_s <= now_s:
            return False
        for index in range(waiting.index + 1, len(waiting.routes)):
            if self._pools[waiting.routes[index].pool].credits.num_ready:
                pool.take_out(waiting)
                waiting.take_route(index)
                self.enqueue(waiting, range(waiting.route.num_pieces), now_s, is_new=False)
                return True
        return False
