"""One lane: the pieces of work of one canvas and class that wait, the one that is due first in front."""

from __future__ import annotations

import heapq
import itertools

from serve_app.frames import Frame
from serve_app.lane_key import LaneKey
from serve_app.route import Route

# How fast a lane's idea of the time between two arrivals follows the cameras.
GAP_LEARNING_RATE = 0.2
NO_PIECES: frozenset[int] = frozenset()


class Waiting:
    """A frame that is here, waiting or running, and how far it has come. The scheduler's own, mutable.

    Attributes:
        frame: the frame.
        routes, index, route: the ways to serve it, and which one it takes.
        lane: where it waits.
        due_s: its place in the order of its lane.
        begin_by_s, last_start_s: after these its route, and any of its routes, cannot make its deadline.
        work_s: device seconds of its pieces that wait, as counted in the pool's backlog.
        saving_s: how many fewer they would be on its cheapest route.
        backlog_bin: where they are counted.
        epoch: grows when it leaves a lane, so that what a heap still holds of it counts no more.
        num_waiting, num_running: its pieces.
        lost_on: what it was lost with: replicas that died, or fell silent (then with a number behind them).
        settled: its pieces that were answered, noted once it was lost with anything: a late copy may answer them again.
        hopes_until_s: nothing of it waits or runs but on replicas that are silent; it ends then. 0: it does not.
    """

    __slots__ = (
        "backlog_bin", "begin_by_s", "due_s", "epoch", "frame", "hopes_until_s", "index", "lane", "last_start_s",
        "lost_on", "num_running", "num_waiting", "route", "routes", "saving_s", "settled", "work_s",
    )  # fmt: skip

    def __init__(self, frame: Frame, routes: tuple[Route, ...], index: int) -> None:
        self.frame = frame
        self.routes = routes
        self.index = index
        self.route = routes[index]
        self.epoch = 0
        self.num_waiting = 0
        self.num_running = 0
        self.lost_on: tuple[str, ...] = ()
        self.settled: frozenset[int] = NO_PIECES
        self.hopes_until_s = 0.0
        self.work_s = 0.0
        self.saving_s = 0.0
        self.backlog_bin = 0
        self.due_s = 0.0
        self.begin_by_s = 0.0
        self.last_start_s = 0.0
        self.lane: Lane | None = None

    def take_route(self, index: int) -> None:
        """Be served another way."""
        self.index = index
        self.route = self.routes[index]

    @property
    def has_begun(self) -> bool:
        """Whether a piece of it has been sent, now or before a replica was lost."""
        return self.num_waiting < self.route.num_pieces or bool(self.lost_on)


class Lane:
    """A heap by due time, then arrival, with lazy removal.

    Adding and popping take O(log n). A frame that leaves by another way leaves its heap entries behind; they are
    dropped when they reach the top, or all together when they are most of the heap: so leaving costs O(1) on average
    and what is left behind never outgrows what waits.

    Attributes:
        key: its name.
        num_waiting: pieces in it.
        gap_s: moving mean of the time between two arrivals; None: unknown yet.
        heap: its entries, left ones included: due time, order, epoch, frame, number of the piece.
    """

    __slots__ = ("_arrival_s", "gap_s", "heap", "key", "num_waiting")

    _order = itertools.count()

    def __init__(self, key: LaneKey) -> None:
        self.key = key
        self.num_waiting = 0
        self.gap_s: float | None = None
        self._arrival_s: float | None = None
        self.heap: list[tuple[float, int, int, Waiting, int]] = []

    def add(self, waiting: Waiting, index: int) -> None:
        """Put in piece `index` of a frame."""
        heapq.heappush(self.heap, (waiting.due_s, next(self._order), waiting.epoch, waiting, index))
        self.num_waiting += 1

    def arrival(self, now_s: float) -> None:
        """Note that a frame has come, for the time between two."""
        if self._arrival_s is not None:
            gap_s = now_s - self._arrival_s
            self.gap_s = gap_s if self.gap_s is None else self.gap_s + GAP_LEARNING_RATE * (gap_s - self.gap_s)
        self._arrival_s = now_s

    def next_arrival_s(self) -> float | None:
        """When company is to be expected at the latest, by the cameras' rate: two gaps after the last frame."""
        if self.gap_s is None or self._arrival_s is None:
            return None
        return self._arrival_s + 2 * self.gap_s

    def first_due_s(self) -> float:
        """When its first piece is due; the lane must not be empty."""
        entry = self.heap[0]
        if entry[3].epoch != entry[2]:
            self.first()
            entry = self.heap[0]
        return entry[0]

    def first(self) -> Waiting | None:
        """The frame whose piece is due first; None if the lane is empty."""
        heap = self.heap
        while heap:
            entry = heap[0]
            if entry[3].epoch == entry[2]:
                return entry[3]
            heapq.heappop(heap)
        return None

    def pop(self) -> tuple[Waiting, int]:
        """Take out the piece that is due first.

        Raises:
            IndexError: the lane is empty.
        """
        while True:
            _, _, epoch, waiting, index = heapq.heappop(self.heap)
            if waiting.epoch == epoch:
                self.num_waiting -= 1
                if not self.num_waiting:
                    self.heap.clear()
                return waiting, index

    def pieces_of(self, waiting: Waiting) -> tuple[int, ...]:
        """Which pieces of a frame wait here. Linear: for the rare case that a replica is lost."""
        return tuple(entry[4] for entry in self.heap if entry[3] is waiting and entry[2] == waiting.epoch)

    def left(self, num_pieces: int) -> None:
        """So many pieces have left by another way: their frame's `epoch` has grown."""
        self.num_waiting -= num_pieces
        if len(self.heap) > 2 * self.num_waiting + 16:
            self.heap = [entry for entry in self.heap if entry[3].epoch == entry[2]]
            heapq.heapify(self.heap)
