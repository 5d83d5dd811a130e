"""The batches that are at replicas: which frames are in them, and what becomes of those when one is overdue or lost."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from heapq import heappop, heappush
from typing import NamedTuple

from serve_app.batching import Batch, Piece
from serve_app.frames import Frame, Priority
from serve_app.lanes import Waiting
from serve_app.latency import LatencyModel
from serve_app.overdue import (
    HEDGE_FLOOR_S,
    LATE_GRACE_S,
    OVERDUE_FLOOR_S,
    STALL_S,
    critical_patience_s,
    patience_s,
)
from serve_app.pool_queue import PoolQueue
from serve_app.replica_credits import SchedulerStateError
from serve_app.waiting_room import WaitingRoom

# A frame whose replica died is tried twice more: a node takes several replicas along. Three times in a row is the
# frame's fault as likely as the replicas'.
MAX_ATTEMPTS = 3
# Looked up for every batch, see `lane_key.py`.
CRITICAL_PRIORITY = Priority.CRITICAL


class LateBatch(NamedTuple):
    """A batch that its replica may answer yet, though it is overdue and holds no credit any more.

    Attributes:
        batch, entries: what it is, and the frame of each piece.
        hoping: those of its frames (ids of their entries) that no other attempt is left for.
    """

    batch: Batch
    entries: tuple[Waiting, ...]
    hoping: frozenset[int]


class RunningBatches:
    """Batches by id, from being sent to being answered.

    A batch that is overdue (`overdue.py`) makes its replica a suspect, which gets no other until it answers; its pieces
    wait again, and whichever copy is answered first counts.

    Attributes:
        running: those that hold a credit, with the frame of each piece.
        late: those that are overdue: they hold none, and may be answered yet.
        checks: when to look whether a batch is overdue, and which; what has ended is dropped when it comes up.
    """

    def __init__(self, pools: Mapping[str, PoolQueue], room: WaitingRoom, latency: LatencyModel) -> None:
        """Take the pools whose replicas run them, the frames, and the seconds that batches take."""
        self._pools = pools
        self._room = room
        self._latency = latency
        self.running: dict[int, tuple[Batch, tuple[Waiting, ...]]] = {}
        self.late: dict[int, LateBatch] = {}
        self.checks: list[tuple[float, int]] = []

    def sent(self, batch: Batch, entries: tuple[Waiting, ...], start_s: float) -> None:
        """A batch is on its way; it is predicted to start then."""
        self.running[batch.batch_id] = batch, entries
        # The earliest moment at which it may be overdue; when exactly is asked then, which is hardly ever.
        is_critical = batch.pieces[0].frame.priority is CRITICAL_PRIORITY
        floor_s = HEDGE_FLOOR_S if is_critical else OVERDUE_FLOOR_S
        heappush(self.checks, (start_s + batch.run_s + floor_s, batch.batch_id))

    def answered(self, batch_id: int, now_s: float) -> tuple[Batch, tuple[Waiting, ...]]:
        """A batch is answered, so its replica lives: what else it holds is not overdue yet. See `take_back`."""
        known = self.running.get(batch_id)
        if known is not None:
            self._pools[known[0].pool].credits.heard(batch_id, now_s)
        return self.take_back(batch_id, now_s)

    def next_check_s(self) -> float:
        """When to look for overdue ones next; infinity: never."""
        checks = self.checks
        while checks and checks[0][1] not in self.running:
            heappop(checks)
        return checks[0][0] if checks else math.inf

    def take_back(self, batch_id: int, now_s: float) -> tuple[Batch, tuple[Waiting, ...]]:
        """A batch is at its replica no more: its credit is free.

        Raises:
            SchedulerStateError: it is with none.
        """
        if batch_id not in self.running:
            raise SchedulerStateError(f"batch {batch_id}: is not running; a batch ends once")
        batch, entries = self.running.pop(batch_id)
        pool = self._pools[batch.pool]
        pool.credits.ended(batch_id, now_s, pool.around_s - pool.before_s)
        if pool.long_batches:
            pool.long_batches.discard(batch_id)
        pool.release()
        return batch, entries

    def _overdue_s(self, batch: Batch, pool: PoolQueue) -> tuple[float, float]:
        """When a batch that runs is overdue, and when it would be if nothing in it were critical."""
        end_s, run_s, around_s = pool.credits.end_s(batch.batch_id), batch.run_s, pool.around_s
        spread_s = self._latency.spread_s(batch.model, batch.canvas, len(batch.pieces))
        patient_s = patience_s(run_s, spread_s, around_s)
        any_s = end_s + patient_s
        if batch.pieces[0].frame.priority is not CRITICAL_PRIORITY:
            return any_s, any_s
        last_start_s = min(waiting.last_start_s for waiting in self.running[batch.batch_id][1])
        return end_s + critical_patience_s(end_s, last_start_s, run_s, patient_s, around_s), any_s

    def look_for_overdue(self, now_s: float) -> None:
        """Doubt the replicas of batches that are overdue; look again at the others when they may be."""
        checks = self.checks
        while checks and checks[0][0] <= now_s:
            check_s, batch_id = heappop(checks)
            if batch_id not in self.running:
                continue
            batch = self.running[batch_id][0]
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
            batch = self.running[batch_id][0]
            if all_of_it or batch.pieces[0].frame.priority is CRITICAL_PRIORITY:
                _, entries = self.take_back(batch_id, now_s)
                hoping = self.back_to_lanes(batch, entries, now_s, mark)
                self.late[batch_id] = LateBatch(batch, entries, frozenset(map(id, hoping)))
                for waiting in hoping:
                    waiting.hopes_until_s = max(now_s, waiting.frame.deadline_s) + LATE_GRACE_S
                    self._room.look_at(waiting, waiting.hopes_until_s)

    def back_to_lanes(
        self, batch: Batch, entries: tuple[Waiting, ...], now_s: float, mark: str | None
    ) -> list[Waiting]:
        """The pieces of a batch wait again, where deadlines and attempts allow; returns the frames where they do not.

        `mark`: what they were lost with; None: with nothing that counts as an attempt.
        """
        again: dict[int, tuple[Waiting, list[int]]] = {}
        for waiting, piece in zip(entries, batch.pieces, strict=True):
            if self._room.is_here(waiting) and piece.number not in waiting.settled:
                again.setdefault(id(waiting), (waiting, []))[1].append(piece.number)
        hopeless = []
        for waiting, pieces in again.values():
            if mark is not None and mark not in waiting.lost_on:
                waiting.lost_on += (mark,)
            if len(waiting.lost_on) >= MAX_ATTEMPTS or waiting.last_start_s <= now_s:
                hopeless.append(waiting)
            else:
                waiting.num_running -= len(pieces)
                self._room.enqueue(waiting, pieces, now_s, is_new=False)
        return hopeless

    def lost_late(self, late: LateBatch) -> tuple[Frame, ...]:
        """An overdue batch will not be answered: with it go the frames that hoped for it."""
        hoping = {
            id(waiting): waiting
            for waiting, piece in zip(late.entries, late.batch.pieces, strict=True)
            if id(waiting) in late.hoping and self._room.is_here(waiting) and piece.number not in waiting.settled
        }
        return self._room.give_up(hoping.values())

    def answered_late(self, late: LateBatch, lost: Collection[str], now_s: float) -> tuple[Frame, ...]:
        """An overdue batch was answered after all: its pieces that nobody else has answered are done.

        One that failed there ends its frame only if that hoped for nothing else: another attempt may yet succeed.
        """
        pool = self._pools[late.batch.pool]
        done = []
        for waiting, piece in zip(late.entries, late.batch.pieces, strict=True):
            frame_id = waiting.frame.frame_id
            if not self._room.is_here(waiting) or piece.route is not waiting.route:
                continue
            if frame_id in lost:
                if id(waiting) in late.hoping and piece.number not in waiting.settled:
                    self._room.take_out(waiting)
                continue
            if not self.settles(waiting, piece):
                continue
            waits = pool.waiting_pieces(waiting)
            if piece.number in waits:
                pool.take_out(waiting)
                rest = [number for number in waits if number != piece.number]
                if rest:
                    self._room.enqueue(waiting, rest, now_s, is_new=False)
                elif waiting.hopes_until_s:
                    self._room.look_at(waiting, waiting.hopes_until_s)
            else:
                waiting.num_running -= 1
            if not waiting.num_running and not waiting.num_waiting:
                self._room.forget(waiting)
                done.append(waiting.frame)
        return tuple(done)

    @staticmethod
    def settles(waiting: Waiting, piece: Piece) -> bool:
        """Note that a piece of a frame was answered that had been lost with something; False: it had been before."""
        if piece.number in waiting.settled:
            return False
        waiting.settled |= {piece.number}
        return True
