"""Tickets of deferred frames: which are out, what became of their frames, which results are still kept for them.

Book-keeping only: it reads no clock and knows nothing of Ray, of waiting callers or of how a frame is served.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, OrderedDict
from dataclasses import dataclass
from enum import Enum

from serve_app.errors import (
    InvalidFrameError,
    InvalidPlanError,
    TicketExpiredError,
    TicketUnknownError,
    TooManyTicketsError,
)
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome, Verdict

# What is remembered of tickets that are gone is a line of text each, a kept result is boxes: so several times as many.
GONE_PER_TICKET = 4
# Frames that wait end within their deadlines, which are seconds for most.
RETRY_WHEN_FULL_S = 1.0
# Tickets that begin with this are the spool's: they outlive the service.
DURABLE_PREFIX = "durable-"
# Removed results leave their place in a camera's list when they outnumber the kept ones by more than this.
_SLACK = 8


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a caller gets for a frame that it does not wait for.

    Attributes:
        ticket_id: to ask with; the frame's id, behind a prefix if it is durable.
        camera: who took the frame.
        verdict: what admission decided about it.
        expires_in_s: for how many seconds its result will be kept, from the frame's end on.
        router: who gave it out, and keeps its result.
    """

    ticket_id: str
    camera: str
    verdict: Verdict
    expires_in_s: float
    router: str = ""

    @property
    def is_durable(self) -> bool:
        """Whether its frame lies in the spool, and is answered after a restart as well."""
        return is_durable_ticket(self.ticket_id)


def durable_ticket_id(frame_id: str) -> str:
    """The ticket of a frame in the spool."""
    return f"{DURABLE_PREFIX}{frame_id}"


def is_durable_ticket(ticket_id: str) -> bool:
    """Whether the spool is to be asked about this ticket."""
    return ticket_id.startswith(DURABLE_PREFIX)


def frame_of_ticket(ticket_id: str) -> str:
    """The frame of a durable ticket."""
    return ticket_id.removeprefix(DURABLE_PREFIX)


class TicketState(Enum):
    """What became of a ticket: waiting → done → taken; from done also → expired or dropped."""

    WAITING = "waiting"
    """Its frame has no outcome yet."""
    DONE = "done"
    """Its frame has ended, and nobody took the result before."""
    TAKEN = "taken"
    """Its result was handed out before; it may be read again as long as it is kept."""
    EXPIRED = "expired"
    """Its time to live passed before anybody took the result."""
    DROPPED = "dropped"
    """Newer tickets needed its room before anybody took the result."""
    UNKNOWN = "unknown"
    """Never given out by this book, withdrawn, or gone for so long that nothing is known of it."""


@dataclass(frozen=True, slots=True, eq=False)
class TicketAnswer:
    """What can be said of a ticket.

    Attributes:
        ticket_id: as asked.
        state: as it was before this question.
        message: what became of its frame, in words for the caller.
        result: how its frame ended; None if it has not, or if the result is not kept any more.
    """

    ticket_id: str
    state: TicketState
    message: str
    result: FrameResult | None = None

    def unless_gone(self) -> FrameResult | None:
        """The result; None while the frame has no outcome yet.

        Raises:
            TicketUnknownError: nothing is known of this ticket.
            TicketExpiredError: its result is not kept any more.
        """
        if self.state is TicketState.UNKNOWN:
            raise TicketUnknownError(self.message)
        if self.result is None and self.state is not TicketState.WAITING:
            raise TicketExpiredError(self.message)
        return self.result


@dataclass(frozen=True, slots=True, eq=False)
class ResultsPage:
    """The next results of one camera.

    Attributes:
        results: in the order in which their frames ended.
        cursor: to ask for the next page with. Of one camera only.
        num_dropped: results between the two cursors that are not kept any more; None: there may be some, and how many
            is not known, since the cursor is older than what is remembered of this camera.
        num_waiting: tickets of this camera whose frames have no outcome yet.
    """

    results: tuple[FrameResult, ...]
    cursor: int
    num_dropped: int | None
    num_waiting: int


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A ticket whose frame has no outcome yet."""

    camera: str
    opened_s: float


@dataclass(slots=True, eq=False)
class _Kept:
    """A ticket whose frame has ended; without its result it is gone."""

    ticket_id: str
    camera: str
    sequence: int
    ended_s: float
    result: FrameResult | None


@dataclass(frozen=True, slots=True, eq=False)
class _Gone:
    """What is remembered of a ticket whose result is not kept any more."""

    state: TicketState
    camera: str
    outcome: Outcome
    ended_s: float


class _CameraResults:
    """The kept results of one camera, numbered without holes as its frames ended: so missing ones count themselves.

    Adding and removing take amortised O(1), finding a number O(log kept).

    Attributes:
        before: the number before the first that is known of.
        last: the number of the last.
        num_kept: how many are kept.
    """

    __slots__ = ("_entries", "before", "last", "num_kept")

    def __init__(self, before: int) -> None:
        self.before = self.last = before
        self.num_kept = 0
        self._entries: list[_Kept] = []

    def add(self, kept: _Kept) -> None:
        """Add the next one; its sequence number is the one after `last`."""
        self.last = kept.sequence
        self.num_kept += 1
        self._entries.append(kept)

    def one_is_gone(self) -> None:
        """One of them has lost its result."""
        self.num_kept -= 1
        if len(self._entries) > 2 * self.num_kept + _SLACK:
            self._entries = [kept for kept in self._entries if kept.result is not None]

    def after(self, cursor: int, max_results: int) -> tuple[list[_Kept], int]:
        """The next kept ones after this number, and the number up to which nothing but these is kept."""
        page: list[_Kept] = []
        first = bisect_right(self._entries, cursor, key=lambda kept: kept.sequence)
        for index in range(first, len(self._entries)):
            kept = self._entries[index]
            if kept.result is not None:
                if len(page) == max_results:
                    return page, page[-1].sequence
                page.append(kept)
        return page, self.last


class TicketBook:
    """All tickets of one router.

    Algorithm: a ticket is opened with its frame and closed with the frame's result, which can be read, again too, until
    `ttl_s` after the frame's end. A new ticket that finds no room pushes out a result that was read (the one read
    first: its reader had the longest time to ask again), else the oldest result, and never a frame that waits.
    Order: the results of a camera come in the order in which its frames ended; a cursor is a place in that order, so
    asking twice with one cursor repeats, and asking with the page's goes on. Whatever is missing between is counted.
    Bound: `max_tickets` waiting and kept together; `GONE_PER_TICKET` times as many gone ones, and as many cameras of
    which nothing is kept, are remembered.
    Cost: amortised O(1) an operation; a page takes O(log kept + its camera's kept results) at most.
    """

    def __init__(self, *, max_tickets: int, ttl_s: float, first_cursor: int = 1) -> None:
        """Start with no ticket.

        Args:
            max_tickets: how many may wait or be kept together, at least 1.
            ttl_s: for how many seconds a result is kept, above 0.
            first_cursor: where cursors begin, at least 1, since 0 asks for all. A driver that may be started again
                gives more than any of before, say microseconds since 1970, so that an old cursor is known as one.

        Raises:
            InvalidPlanError: a limit is out of its range.
        """
        if max_tickets < 1:
            raise InvalidPlanError(f"max_tickets: got {max_tickets!r}, allowed is a whole number of at least 1")
        if not ttl_s > 0:
            raise InvalidPlanError(f"ttl_s: got {ttl_s!r}, allowed is a number of seconds above 0")
        if first_cursor < 1:
            raise InvalidPlanError(f"first_cursor: got {first_cursor!r}, allowed is a whole number of at least 1")
        self.max_tickets = max_tickets
        self.ttl_s = ttl_s
        self._max_gone = GONE_PER_TICKET * max_tickets
        self._now_s = float("-inf")
        self._waiting: dict[str, _Waiting] = {}
        self._num_waiting_of: Counter[str] = Counter()
        # By end, which is also by expiry. OrderedDict: a plain dict finds its first key slower the more were popped.
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        # Of these, the ones that were read, by first reading.
        self._read: OrderedDict[str, _Kept] = OrderedDict()
        self._gone: OrderedDict[str, _Gone] = OrderedDict()
        self._cameras: dict[str, _CameraResults] = {}
        # Of these, the ones that have nothing kept, by when that began.
        self._idle: OrderedDict[str, None] = OrderedDict()
        # No number of any camera is above `_newest`; of a camera that was forgotten, none above `_forgotten`.
        self._newest = self._forgotten = first_cursor

    @property
    def num_waiting(self) -> int:
        """Tickets whose frames have no outcome yet."""
        return len(self._waiting)

    @property
    def num_kept(self) -> int:
        """Results that are kept; those whose time has passed since the last event are still counted."""
        return len(self._kept)

    @property
    def is_full(self) -> bool:
        """Whether every place is taken by a frame without outcome, so that `open` refuses a new ticket."""
        return len(self._waiting) >= self.max_tickets

    def open(self, ticket_id: str, camera: str, now_s: float) -> None:
        """Begin a ticket for a frame that comes; then either `close` or `withdraw` it.

        Raises:
            InvalidFrameError: a ticket of this id waits or is kept; nothing was changed.
            TooManyTicketsError: the book is full; nothing was changed.
        """
        self._forget_expired(now_s)
        if ticket_id in self._waiting or ticket_id in self._kept:
            raise InvalidFrameError(
                f"frame_id: got {ticket_id!r}, of which a ticket is out; give every frame an id of its own"
            )
        if self.is_full:
            raise TooManyTicketsError(
                f"ticket: {len(self._waiting)} frames with a ticket have no outcome yet, {self.max_tickets} allowed; "
                "try again when some have ended, or raise max_tickets in the plan",
                RETRY_WHEN_FULL_S,
            )
        if len(self._waiting) + len(self._kept) >= self.max_tickets:
            self._drop(next(iter((self._read or self._kept).values())), TicketState.DROPPED)
        self._gone.pop(ticket_id, None)
        self._waiting[ticket_id] = _Waiting(camera, self._now_s)
        self._num_waiting_of[camera] += 1

    def withdraw(self, ticket_id: str) -> bool:
        """Take back a ticket that its caller never got, as that of a refused frame; False if it does not wait."""
        return self._take_waiting(ticket_id) is not None

    def close(self, ticket_id: str, result: FrameResult, now_s: float) -> bool:
        """A frame ended, whatever way; False if no ticket waits for it, and then nothing is kept."""
        self._forget_expired(now_s)
        waiting = self._take_waiting(ticket_id)
        if waiting is None:
            return False
        camera = self._cameras.get(waiting.camera)
        if camera is None:
            camera = self._cameras[waiting.camera] = _CameraResults(self._newest)
        self._idle.pop(waiting.camera, None)
        kept = _Kept(ticket_id, waiting.camera, camera.last + 1, self._now_s, result)
        camera.add(kept)
        self._kept[ticket_id] = kept
        # Every number of a camera raised this by one as well: so a camera that begins here is above all former ones.
        self._newest += 1
        return True

    def hand_over(self, now_s: float) -> tuple[dict[str, str], list[tuple[str, FrameResult]]]:
        """What another book takes over: the waiting tickets with their cameras, and the results that nobody has read.

        Results that were read stay here: their readers would get them twice.
        """
        self._forget_expired(now_s)
        unread = [
            (kept.ticket_id, kept.result)
            for kept in self._kept.values()
            if kept.result is not None and kept.ticket_id not in self._read
        ]
        return {ticket_id: waiting.camera for ticket_id, waiting in self._waiting.items()}, unread

    def result(self, ticket_id: str, now_s: float) -> TicketAnswer:
        """What became of a ticket; a result that is handed out may be read again until its time to live is over."""
        self._forget_expired(now_s)
        waiting = self._waiting.get(ticket_id)
        if waiting is not None:
            message = (
                f"ticket {ticket_id}: its frame of camera {waiting.camera!r} has no outcome yet, "
                f"{self._now_s - waiting.opened_s:.3f} s after it was submitted; ask again"
            )
            return TicketAnswer(ticket_id, TicketState.WAITING, message)
        kept = self._kept.get(ticket_id)
        if kept is not None and kept.result is not None:
            state = TicketState.TAKEN if ticket_id in self._read else TicketState.DONE
            self._read.setdefault(ticket_id, kept)
            left_s = kept.ended_s + self.ttl_s - self._now_s
            message = (
                f"{self._ended(ticket_id, kept.camera, kept.result.outcome, kept.ended_s)}; "
                f"it may be read for {left_s:.3f} s more"
            )
            return TicketAnswer(ticket_id, state, message, kept.result)
        gone = self._gone.get(ticket_id)
        if gone is not None:
            message = f"{self._ended(ticket_id, gone.camera, gone.outcome, gone.ended_s)}; {self._why_gone(gone.state)}"
            return TicketAnswer(ticket_id, gone.state, message)
        message = (
            f"ticket: got {ticket_id!r}, which this service has not given out since it started, or too long ago; "
            f"ask within {self.ttl_s:g} s of the frame's end"
        )
        return TicketAnswer(ticket_id, TicketState.UNKNOWN, message)

    def results_after(self, camera: str, cursor: int, now_s: float, max_results: int) -> ResultsPage:
        """The results of a camera whose frames ended after a place in their order; they count as read.

        Args:
            camera: whose.
            cursor: 0 for all that is known of, or the cursor of the last page of this camera.
            now_s: when this is asked.
            max_results: how many at most; at least 1.

        Returns:
            The next results. The missing ones before the page's last are counted in this page, later ones in a later.

        Raises:
            TicketUnknownError: the cursor is ahead of this camera: of another one, or of another service.
            ValueError: `max_results` is below 1.
        """
        if max_results < 1:
            raise ValueError(f"max_results: got {max_results!r}, allowed is a whole number of at least 1")
        self._forget_expired(now_s)
        # One of which nothing is known would begin here.
        known = self._cameras.get(camera) or _CameraResults(self._newest)
        if not 0 <= cursor <= known.last:
            raise TicketUnknownError(
                f"cursor: got {cursor!r}, camera {camera!r} is at {known.last}; a cursor is of one camera and one run "
                "of the service: begin again with 0"
            )
        page, end = known.after(cursor, max_results)
        for kept in page:
            self._read.setdefault(kept.ticket_id, kept)
        num_dropped: int | None = end - max(cursor, known.before) - len(page)
        if 0 < cursor < min(known.before, self._forgotten):
            num_dropped = None
        results = tuple(kept.result for kept in page if kept.result is not None)
        return ResultsPage(results, end, num_dropped, self._num_waiting_of[camera])

    def _take_waiting(self, ticket_id: str) -> _Waiting | None:
        waiting = self._waiting.pop(ticket_id, None)
        if waiting is not None:
            self._num_waiting_of[waiting.camera] -= 1
            if not self._num_waiting_of[waiting.camera]:
                del self._num_waiting_of[waiting.camera]
        return waiting

    def _forget_expired(self, now_s: float) -> None:
        """Let go of what has had its time; a reading older than the last one counts as that, so order by end holds."""
        self._now_s = max(self._now_s, now_s)
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if self._now_s < oldest.ended_s + self.ttl_s:
                break
            self._drop(oldest, TicketState.EXPIRED)

    def _drop(self, kept: _Kept, unread_state: TicketState) -> None:
        """Let go of a result, and remember for a while what became of it."""
        del self._kept[kept.ticket_id]
        was_read = self._read.pop(kept.ticket_id, None) is not None
        if kept.result is not None:
            state = TicketState.TAKEN if was_read else unread_state
            self._gone[kept.ticket_id] = _Gone(state, kept.camera, kept.result.outcome, kept.ended_s)
        if len(self._gone) > self._max_gone:
            self._gone.popitem(last=False)
        kept.result = None
        camera = self._cameras[kept.camera]
        camera.one_is_gone()
        if not camera.num_kept:
            self._idle[kept.camera] = None
        if len(self._idle) > self._max_gone:
            forgotten, _ = self._idle.popitem(last=False)
            self._forgotten = max(self._forgotten, self._cameras.pop(forgotten).last)

    def _ended(self, ticket_id: str, camera: str, outcome: Outcome, ended_s: float) -> str:
        ago_s = self._now_s - ended_s
        return f"ticket {ticket_id}: its frame of camera {camera!r} ended as {outcome.value} {ago_s:.3f} s ago"

    def _why_gone(self, state: TicketState) -> str:
        if state is TicketState.EXPIRED:
            return f"nobody took its result within the {self.ttl_s:g} s that it was kept: ask sooner"
        if state is TicketState.DROPPED:
            return "newer tickets needed its room before anybody took its result: ask sooner, or raise max_tickets"
        return f"its result was handed out, and is kept for {self.ttl_s:g} s at most"
