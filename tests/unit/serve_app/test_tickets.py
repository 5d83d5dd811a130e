"""Tickets of deferred frames: their states, their time to live, their bounds, and cursors that lose nothing."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engines.detections import Detections
from serve_app.errors import (
    FramelaneError,
    InvalidFrameError,
    InvalidPlanError,
    TicketExpiredError,
    TicketUnknownError,
    TooManyTicketsError,
)
from serve_app.results import FrameResult
from serve_app.tickets import (
    GONE_PER_TICKET,
    RETRY_WHEN_FULL_S,
    ResultsPage,
    Ticket,
    TicketAnswer,
    TicketBook,
    TicketState,
)
from serve_app.verdicts import Outcome, Verdict, VerdictKind


def ended(frame_id: str, outcome: Outcome = Outcome.FINISHED, camera: str = "gate-1") -> FrameResult:
    """How a frame ended, with nothing found."""
    return FrameResult(frame_id, camera, (480, 640), "normal", outcome, Detections.none())


def book_of(*ticket_ids: str, max_tickets: int = 10, ttl_s: float = 10.0, camera: str = "gate-1") -> TicketBook:
    """A book in which these tickets were opened, and closed in this order, at 0 s."""
    book = TicketBook(max_tickets=max_tickets, ttl_s=ttl_s)
    for ticket_id in ticket_ids:
        pass_through(book, ticket_id, camera)
    return book


def pass_through(book: TicketBook, ticket_id: str, camera: str = "gate-1", now_s: float = 0.0) -> None:
    """Open a ticket and close it at once."""
    book.open(ticket_id, camera, now_s)
    assert book.close(ticket_id, ended(ticket_id, camera=camera), now_s)


def ids(page: ResultsPage) -> list[str]:
    """The frames of a page."""
    return [result.frame_id for result in page.results]


def states(book: TicketBook, *ticket_ids: str, now_s: float = 0.0) -> list[TicketState]:
    """The states of these tickets, asked for in this order."""
    return [book.result(ticket_id, now_s).state for ticket_id in ticket_ids]


# One ticket


def test_a_ticket_survives_pickling():
    """It travels from the router to the client."""
    ticket = Ticket("a", "gate-1", Verdict(VerdictKind.DEFER, "nothing urgent"), 60.0)

    assert pickle.loads(pickle.dumps(ticket)) == ticket  # noqa: S301 (our own bytes)


def test_a_ticket_waits_until_its_frame_ends():
    """While it waits there is no result, and that is no error."""
    book = TicketBook(max_tickets=10, ttl_s=10.0)
    book.open("a", "gate-1", 1.0)

    waiting = book.result("a", 3.5)

    assert (waiting.state, waiting.result, waiting.unless_gone()) == (TicketState.WAITING, None, None)
    assert waiting.message == (
        "ticket a: its frame of camera 'gate-1' has no outcome yet, 2.500 s after it was submitted; ask again"
    )


@pytest.mark.parametrize("outcome", list(Outcome), ids=lambda outcome: outcome.value)
def test_a_result_is_handed_out_whatever_the_outcome(outcome):
    """A ticket tells what became of the frame, also when that is nothing good."""
    book, result = TicketBook(max_tickets=10, ttl_s=10.0), ended("a", outcome)
    book.open("a", "gate-1", 0.0)
    book.close("a", result, 1.0)

    answer = book.result("a", 3.0)

    assert (answer.state, answer.unless_gone() is result) == (TicketState.DONE, True)
    assert answer.message == (
        f"ticket a: its frame of camera 'gate-1' ended as {outcome.value} 2.000 s ago; it may be read for 8.000 s more"
    )


def test_a_result_may_be_read_again_while_it_is_kept():
    """A client whose answer was lost on the way asks again."""
    book = book_of("a")

    first, second = book.result("a", 1.0), book.result("a", 2.0)

    assert (first.state, second.state) == (TicketState.DONE, TicketState.TAKEN)
    assert second.unless_gone() is first.result is not None


def test_the_time_to_live_runs_from_the_end_of_the_frame_and_ends_exactly():
    """Not from its arrival: a deferred frame may wait for longer than its result is kept."""
    book = TicketBook(max_tickets=10, ttl_s=10.0)
    book.open("a", "gate-1", 0.0)
    book.close("a", ended("a"), 100.0)

    assert book.results_after("gate-1", 0, 109.999, 5).num_dropped == 0
    assert book.result("a", 109.999).result is not None
    assert book.result("a", 110.0).result is None


def test_an_expired_ticket_says_how_its_frame_ended():
    """Gone is not unknown."""
    book = book_of("a", "b")
    book.result("b", 9.0)
    how = "its frame of camera 'gate-1' ended as finished 12.000 s ago"

    answers = [book.result(ticket_id, 12.0) for ticket_id in ("a", "b")]

    assert [(answer.state, answer.result, answer.message) for answer in answers] == [
        (
            TicketState.EXPIRED,
            None,
            f"ticket a: {how}; nobody took its result within the 10 s that it was kept: ask sooner",
        ),
        (
            TicketState.TAKEN,
            None,
            f"ticket b: {how}; its result was handed out, and is kept for 10 s at most",
        ),
    ]
    for answer in answers:
        with pytest.raises(TicketExpiredError, match="ended as finished"):
            answer.unless_gone()


def test_an_unknown_ticket_is_an_error_of_its_own():
    """404 and not 410: there is nothing to say about its frame."""
    answer = book_of("a").result("b", 0.0)

    assert (answer.state, answer.result) == (TicketState.UNKNOWN, None)
    with pytest.raises(TicketUnknownError, match="got 'b', which this service has not given out"):
        answer.unless_gone()


def test_a_withdrawn_ticket_was_never_there():
    """A frame that admission refused leaves no trace, and pushes out no result when many are refused."""
    book = book_of("a")
    book.open("b", "gate-1", 0.0)

    assert (book.withdraw("b"), book.withdraw("b"), book.withdraw("a"), book.withdraw("c")) == (
        True, False, False, False,
    )  # fmt: skip
    assert states(book, "a", "b") == [TicketState.DONE, TicketState.UNKNOWN]
    assert (book.num_waiting, book.num_kept, book.close("b", ended("b"), 0.0)) == (0, 1, False)


def test_a_frame_without_a_ticket_leaves_nothing_behind():
    """The router closes every frame; most have a caller that waits, and one ends once."""
    book = book_of("a")

    assert [book.close(frame_id, ended(frame_id, Outcome.FAILED), 5.0) for frame_id in ("a", "b")] == [False, False]
    answer = book.result("a", 9.0)
    assert (answer.result.outcome, book.num_kept, book.result("b", 9.0).state) == (
        Outcome.FINISHED, 1, TicketState.UNKNOWN,
    )  # fmt: skip


def test_an_id_is_taken_while_its_ticket_waits_or_is_kept():
    """Two frames of one id would answer each other's callers; later the id is free again."""
    book = book_of("kept")
    book.open("waits", "gate-1", 0.0)

    for ticket_id in ("kept", "waits"):
        with pytest.raises(InvalidFrameError, match="give every frame an id of its own"):
            book.open(ticket_id, "gate-2", 9.0)
    book.open("kept", "gate-2", 10.0)

    assert states(book, "kept", now_s=10.0) == [TicketState.WAITING]


def test_a_clock_reading_from_before_counts_as_the_last_one():
    """Readings are taken before the work is done: one that comes late neither revives a result nor shuffles ends."""
    book = book_of("a")
    assert states(book, "a", now_s=10.0) == [TicketState.EXPIRED]
    pass_through(book, "b", now_s=3.0)

    assert states(book, "a", "b", now_s=19.5) == [TicketState.EXPIRED, TicketState.DONE]
    assert book.result("b", 20.0).result is None


# Bounds


def test_a_book_full_of_waiting_frames_refuses_and_changes_nothing():
    """A frame that waits is never forgotten for a newer one."""
    book = TicketBook(max_tickets=2, ttl_s=10.0)
    book.open("a", "gate-1", 0.0)
    assert not book.is_full
    book.open("b", "gate-1", 0.0)
    assert book.is_full

    with pytest.raises(TooManyTicketsError, match="2 frames with a ticket have no outcome yet, 2 allowed") as caught:
        book.open("c", "gate-1", 0.0)

    assert caught.value.retry_after_s == RETRY_WHEN_FULL_S
    assert states(book, "a", "b", "c") == [TicketState.WAITING, TicketState.WAITING, TicketState.UNKNOWN]


def test_room_is_made_by_read_results_first_then_by_the_oldest():
    """Who has read had a chance to; among readers the first had the longest time to ask again."""
    book = book_of("a", "b", "c", "d", max_tickets=4)
    states(book, "d", "c", "d")

    gone = []
    for number in range(4):
        book.open(f"new-{number}", "gate-1", 1.0)
        gone.append({ticket_id for ticket_id in "abcd" if book._kept.get(ticket_id) is None})

    assert gone == [{"d"}, {"c", "d"}, {"a", "c", "d"}, {"a", "b", "c", "d"}]
    assert book.is_full
    assert states(book, "a", "b", "c", "d", now_s=1.0) == [
        TicketState.DROPPED, TicketState.DROPPED, TicketState.TAKEN, TicketState.TAKEN,
    ]  # fmt: skip
    dropped = book.result("a", 1.0)
    assert dropped.message.endswith(
        "newer tickets needed its room before anybody took its result: ask sooner, or raise max_tickets"
    )
    with pytest.raises(TicketExpiredError):
        dropped.unless_gone()


def test_expired_results_make_room_before_any_other():
    """Nothing that can still be read is pushed out for want of looking at the clock."""
    book = book_of("old", max_tickets=2)
    pass_through(book, "young", now_s=5.0)
    states(book, "young", now_s=5.0)

    book.open("new", "gate-1", 10.0)

    assert states(book, "old", "young", now_s=10.0) == [TicketState.EXPIRED, TicketState.TAKEN]
    assert book.result("young", 10.0).result is not None


def test_gone_tickets_are_remembered_in_bounds():
    """The latest of them; what is gone for longer is unknown."""
    book = TicketBook(max_tickets=1, ttl_s=10.0)
    for number in range(7):
        pass_through(book, str(number))

    assert states(book, *"0123456") == [
        TicketState.UNKNOWN, TicketState.UNKNOWN, *[TicketState.DROPPED] * GONE_PER_TICKET, TicketState.DONE,
    ]  # fmt: skip


def test_a_result_that_nobody_takes_pins_no_others():
    """One old result is kept while thousands of its camera come, are read and make room."""
    book = book_of("old", max_tickets=2)
    for number in range(3000):
        pass_through(book, str(number))
        states(book, str(number))

    page = book.results_after("gate-1", 0, 0.0, 5)

    assert (ids(page), page.num_dropped) == (["old", "2999"], 2999)
    assert len(book._cameras["gate-1"]._entries) < 20


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_tickets": 0, "ttl_s": 1.0}, "max_tickets: got 0"),
        ({"max_tickets": 1, "ttl_s": 0.0}, "ttl_s: got 0.0"),
        ({"max_tickets": 1, "ttl_s": float("nan")}, "ttl_s: got nan"),
        ({"max_tickets": 1, "ttl_s": 1.0, "first_cursor": 0}, "first_cursor: got 0"),
    ],
    ids=["no tickets", "no time", "no number", "no cursor"],
)
def test_limits_out_of_range_are_the_operators_error(limits, message):
    """A book that could keep nothing is refused when it is made."""
    with pytest.raises(InvalidPlanError, match=message):
        TicketBook(**limits)


# Cursors


def test_results_of_a_camera_come_in_order_of_their_ends_a_page_at_a_time():
    """Not in that of arrival; and of no other camera."""
    book = TicketBook(max_tickets=10, ttl_s=10.0)
    for ticket_id in "abcde":
        book.open(ticket_id, "gate-1", 0.0)
    pass_through(book, "other", "gate-2")
    for ticket_id in "dbac":
        book.close(ticket_id, ended(ticket_id), 1.0)

    first = book.results_after("gate-1", 0, 1.0, 3)
    second = book.results_after("gate-1", first.cursor, 1.0, 3)
    third = book.results_after("gate-1", second.cursor, 1.0, 3)

    assert [ids(page) for page in (first, second, third)] == [["d", "b", "a"], ["c"], []]
    assert [(page.num_dropped, page.num_waiting) for page in (first, second, third)] == [(0, 1)] * 3
    assert third.cursor == second.cursor


def test_a_page_may_be_asked_for_again():
    """The same cursor gives the same page: a lost answer loses no result."""
    book = book_of("a", "b", "c")

    pages = [book.results_after("gate-1", 0, now_s, 2) for now_s in (0.0, 9.0)]

    assert [(ids(page), page.num_dropped) for page in pages] == [(["a", "b"], 0)] * 2
    assert pages[0].cursor == pages[1].cursor


def test_what_a_page_handed_out_counts_as_read():
    """It makes room first, and its ticket says that it was taken."""
    book = book_of("a", "b", "c", max_tickets=3)
    book.results_after("gate-1", 0, 0.0, 2)

    assert states(book, "b", "c") == [TicketState.TAKEN, TicketState.DONE]
    book.open("new", "gate-1", 0.0)
    assert book.results_after("gate-1", 0, 0.0, 9).num_dropped == 1
    assert states(book, "a") == [TicketState.TAKEN]


def test_each_gap_is_counted_once_where_it_is():
    """Dropped ones before the last result of a page are its own; those after belong to the next."""
    book = book_of("a", "b", "c", "d", "e", max_tickets=5)
    states(book, "a", "c", "e")
    for number in range(3):
        book.open(f"new-{number}", "gate-2", 0.0)

    first = book.results_after("gate-1", 0, 0.0, 1)
    second = book.results_after("gate-1", first.cursor, 0.0, 1)
    third = book.results_after("gate-1", second.cursor, 0.0, 1)

    assert [(ids(page), page.num_dropped) for page in (first, second, third)] == [(["b"], 1), (["d"], 2), ([], 0)]


def test_results_that_come_and_expire_between_two_looks_are_counted():
    """Also for a reader that began before its camera had any, while others went on."""
    book = book_of("x", "y", camera="gate-2")
    before = book.results_after("gate-1", 0, 0.0, 5)
    pass_through(book, "z", "gate-2")
    for ticket_id in "ab":
        pass_through(book, ticket_id, now_s=1.0)
    pass_through(book, "c", now_s=2.0)

    page = book.results_after("gate-1", before.cursor, 11.0, 5)
    later = book.results_after("gate-1", page.cursor, 12.0, 5)

    assert (ids(before), before.num_dropped) == ([], 0)
    assert (ids(page), page.num_dropped) == (["c"], 2)
    assert (ids(later), later.num_dropped) == ([], 0)


def forgetful_book(reader: str = "gate-1") -> tuple[TicketBook, int]:
    """A book that has forgotten a camera whose only result was dropped, and a cursor from before that result."""
    book = TicketBook(max_tickets=1, ttl_s=10.0)
    cursor = book.results_after(reader, 0, 0.0, 5).cursor
    pass_through(book, "a", reader)
    for number in range(GONE_PER_TICKET + 2):
        pass_through(book, f"other-{number}", f"yard-{number}")
    assert reader not in book._cameras
    return book, cursor


@pytest.mark.parametrize("comes_back", [False, True], ids=["gone", "back"])
def test_a_gap_of_unknown_size_is_no_gap_of_zero(comes_back):
    """Cameras of which nothing is kept are remembered in bounds; a cursor from before says so instead of guessing."""
    book, cursor = forgetful_book()
    if comes_back:
        pass_through(book, "b")

    page = book.results_after("gate-1", cursor, 0.0, 5)
    after = book.results_after("gate-1", page.cursor, 0.0, 5)

    assert (ids(page), page.num_dropped) == (["b"] if comes_back else [], None)
    assert (ids(after), after.num_dropped) == ([], 0)


def test_a_camera_that_is_remembered_has_no_unknown_gap():
    """Whatever was forgotten of others meanwhile."""
    book = book_of("a", "b", max_tickets=3)
    cursor = book.results_after("gate-1", 0, 0.0, 1).cursor
    for number in range(40):
        pass_through(book, f"other-{number}", f"yard-{number}")
        states(book, f"other-{number}")
    assert book._forgotten > cursor

    page = book.results_after("gate-1", cursor, 0.0, 5)

    assert (ids(page), page.num_dropped) == (["b"], 0)


def test_beginning_again_counts_what_is_known():
    """0 asks for all that is known of, and so never has an unknown gap."""
    book, _ = forgetful_book()

    assert book.results_after("gate-1", 0, 0.0, 5).num_dropped == 0


def test_a_cursor_of_a_former_life_is_known_as_one():
    """After a restart a reader learns that results may be missing, and misses none of the new ones."""
    former = book_of("a", "b", "c").results_after("gate-1", 0, 0.0, 5).cursor
    book = TicketBook(max_tickets=10, ttl_s=10.0, first_cursor=1000)
    pass_through(book, "d")

    page = book.results_after("gate-1", former, 0.0, 5)

    assert (ids(page), page.num_dropped) == (["d"], None)


@pytest.mark.parametrize(
    ("camera", "cursor"), [("gate-1", 4), ("gate-2", 5), ("gate-1", -1)], ids=["of another", "of nobody", "below 0"]
)
def test_a_cursor_ahead_of_its_camera_is_refused(camera, cursor):
    """It would skip results in silence."""
    book = book_of("a", "b")
    pass_through(book, "c", "gate-3")

    with pytest.raises(TicketUnknownError, match="begin again with 0"):
        book.results_after(camera, cursor, 0.0, 5)


def test_a_page_of_nothing_is_refused():
    """A reader would never get on."""
    with pytest.raises(ValueError, match="max_results: got 0"):
        book_of("a").results_after("gate-1", 0, 0.0, 0)


# Any history


CAMERAS = ("gate-1", "gate-1", "gate-1", "gate-2", "gate-2", *(f"yard-{number}" for number in range(8)))
# Few ids, so that they come back; few steps, so that several end at once and expiry is met exactly.
TICKET_IDS = st.sampled_from([f"t{number}" for number in range(14)])
STEPS_S = st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0])
TTL_S = 2.0


@dataclass(eq=False)
class End:
    """A frame of the model that has ended."""

    ticket_id: str
    camera: str
    ended_s: float
    result: FrameResult
    read_order: int | None = None
    gone_as: TicketState | None = None


@dataclass
class Reader:
    """Someone who follows a camera: where it is, how many ends it has passed, and what it got."""

    camera: str
    cursor: int = 0
    num_passed: int = 0
    got: list[FrameResult] = field(default_factory=list)
    num_dropped: int = 0


class TicketHistory(RuleBasedStateMachine):
    """Random tickets, ends, questions and readers on a moving clock, against lists that forget nothing."""

    @initialize(max_tickets=st.sampled_from([3, 1, 5]))
    def begin(self, max_tickets):
        """An empty book and its model."""
        self.book = TicketBook(max_tickets=max_tickets, ttl_s=TTL_S)
        self.max_tickets = max_tickets
        self.now_s = 0.0
        self.waiting: dict[str, str] = {}
        self.ends: list[End] = []
        self.gone: list[End] = []
        self.num_reads = 0
        self.readers = [Reader(camera) for camera in ("gate-1", "gate-1", "gate-2", "yard-0")]

    # The model

    def kept(self) -> list[End]:
        """What is kept, by end."""
        return [end for end in self.ends if end.gone_as is None]

    def goes(self, end: End, unread_as: TicketState) -> None:
        """A result is not kept any more."""
        end.gone_as = unread_as if end.read_order is None else TicketState.TAKEN
        self.gone.append(end)

    def is_read(self, end: End) -> None:
        """A result is handed out."""
        self.num_reads += 1
        if end.read_order is None:
            end.read_order = self.num_reads

    def named(self, ends: list[End], ticket_id: str) -> End | None:
        """The end of this ticket among these."""
        return next((end for end in ends if end.ticket_id == ticket_id), None)

    # What happens

    @rule(step_s=STEPS_S)
    def time_passes(self, step_s):
        """Results whose time is over are gone from here on, at the exact moment."""
        self.now_s += step_s
        for end in self.kept():
            if self.now_s >= end.ended_s + TTL_S:
                self.goes(end, TicketState.EXPIRED)

    @rule(ticket_id=TICKET_IDS, camera=st.sampled_from(CAMERAS))
    def frame_comes(self, ticket_id, camera):
        """It gets a ticket unless its id is taken or all places wait."""
        kept = self.kept()
        if ticket_id in self.waiting or self.named(kept, ticket_id):
            with pytest.raises(InvalidFrameError):
                self.book.open(ticket_id, camera, self.now_s)
            return
        if len(self.waiting) == self.max_tickets:
            with pytest.raises(TooManyTicketsError):
                self.book.open(ticket_id, camera, self.now_s)
            return
        if len(self.waiting) + len(kept) == self.max_tickets:
            read = [end for end in kept if end.read_order is not None]
            self.goes(min(read, key=lambda end: end.read_order) if read else kept[0], TicketState.DROPPED)
        self.book.open(ticket_id, camera, self.now_s)
        self.waiting[ticket_id] = camera
        self.gone = [end for end in self.gone[-GONE_PER_TICKET * self.max_tickets :] if end.ticket_id != ticket_id]

    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def frame_ends(self, data, outcome):
        """Mostly one that has a ticket."""
        ticket_id = data.draw(st.sampled_from(sorted(self.waiting))) if self.waiting else "t0"
        camera = self.waiting.pop(ticket_id, None)
        result = ended(ticket_id, outcome)
        assert self.book.close(ticket_id, result, self.now_s) is (camera is not None)
        if camera is not None:
            self.ends.append(End(ticket_id, camera, self.now_s, result))

    @rule(ticket_id=TICKET_IDS, camera=st.sampled_from(CAMERAS))
    def frame_comes_and_ends(self, ticket_id, camera):
        """Many end soon, which moves the books on faster than single steps do."""
        self.frame_comes(ticket_id, camera)
        if ticket_id in self.waiting:
            result = ended(ticket_id)
            assert self.book.close(ticket_id, result, self.now_s)
            self.ends.append(End(ticket_id, self.waiting.pop(ticket_id), self.now_s, result))

    @rule(ticket_id=TICKET_IDS)
    def frame_is_refused(self, ticket_id):
        """Exactly the waiting ones can be withdrawn."""
        assert self.book.withdraw(ticket_id) is (self.waiting.pop(ticket_id, None) is not None)

    @rule(ticket_id=TICKET_IDS)
    def client_asks(self, ticket_id):
        """The answer is what became of the ticket."""
        answer = self.book.result(ticket_id, self.now_s)
        kept = self.named(self.kept(), ticket_id)
        gone = self.named(self.gone[: -GONE_PER_TICKET * self.max_tickets - 1 : -1], ticket_id)
        if ticket_id in self.waiting:
            expected = (TicketState.WAITING, None)
        elif kept is not None:
            expected = (TicketState.DONE if kept.read_order is None else TicketState.TAKEN, kept.result)
            self.is_read(kept)
        else:
            expected = (gone.gone_as if gone else TicketState.UNKNOWN, None)
        assert (answer.state, answer.result) == expected
        self.check_raises(answer)

    def check_raises(self, answer: TicketAnswer) -> None:
        """Values inside, exceptions at the edge."""
        try:
            raised = 200 if answer.unless_gone() is answer.result else None
        except FramelaneError as err:
            raised = err.http_status
        is_there = answer.result is not None or answer.state is TicketState.WAITING
        assert raised == (200 if is_there else 404 if answer.state is TicketState.UNKNOWN else 410)

    @rule(index=st.integers(0, 3), max_results=st.sampled_from([1, 2, 100]), is_lost=st.booleans())
    def reader_asks(self, index, max_results, is_lost):
        """The next kept results of its camera, with what is missing before; a lost page changes nothing for it."""
        reader = self.readers[index]
        page = self.book.results_after(reader.camera, reader.cursor, self.now_s, max_results)
        coming = [end for end in self.ends if end.camera == reader.camera][reader.num_passed :]
        there = [end for end in coming if end.gone_as is None]
        num_passed = len(coming) if len(there) <= max_results else coming.index(there[max_results - 1]) + 1
        expected = there[:max_results]
        for end in expected:
            self.is_read(end)
        assert list(page.results) == [end.result for end in expected]
        assert page.num_waiting == list(self.waiting.values()).count(reader.camera)
        if page.num_dropped is None or (reader.cursor == 0 and self.may_have_forgotten()):
            assert self.may_have_forgotten()
        else:
            assert page.num_dropped == num_passed - len(expected)
        if not is_lost:
            reader.cursor = page.cursor
            reader.num_passed += num_passed
            reader.got += page.results
            reader.num_dropped += num_passed - len(expected)

    def may_have_forgotten(self) -> bool:
        """Whether there were more cameras than the book remembers when nothing of them is kept."""
        return len({end.camera for end in self.ends}) > GONE_PER_TICKET * self.max_tickets

    # What always holds

    @invariant()
    def readers_have_everything_once(self):
        """What a reader got and what it was told is missing make up all that it passed, in order."""
        for reader in self.readers:
            passed = [end.result for end in self.ends if end.camera == reader.camera][: reader.num_passed]
            assert len(reader.got) + reader.num_dropped == len(passed)
            places = [passed.index(result) for result in reader.got]
            assert places == sorted(set(places))

    @invariant()
    def bounds_hold(self):
        """Of everything that the book holds on to."""
        book, max_gone = self.book, GONE_PER_TICKET * self.max_tickets
        assert book.num_waiting == len(self.waiting)
        assert book.is_full is (len(self.waiting) == self.max_tickets)
        assert len(self.kept()) <= book.num_kept
        assert book.num_waiting + book.num_kept <= self.max_tickets
        assert len(book._read) <= book.num_kept
        assert len(book._gone) <= max_gone
        assert set(book._idle) == {name for name, camera in book._cameras.items() if not camera.num_kept}
        assert len(book._idle) <= max_gone
        assert len(book._cameras) <= max_gone + book.num_kept
        assert len(book._num_waiting_of) <= len(self.waiting)
        for camera in book._cameras.values():
            assert len(camera._entries) <= 2 * camera.num_kept + 8

    def teardown(self):
        """Every reader that catches up has seen each end of its camera, or knows that it is missing."""
        if not hasattr(self, "book"):
            return
        for index in range(len(self.readers)):
            self.reader_asks(index, 1000, is_lost=False)
            reader = self.readers[index]
            assert reader.num_passed == len([end for end in self.ends if end.camera == reader.camera])


TicketHistory.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, derandomize=True, database=None
)
TestTicketHistory = TicketHistory.TestCase


# Another book


def test_what_is_handed_over_waits_or_was_never_read():
    """What was read stays: its reader would get it twice."""
    book = book_of("read", "unread")
    book.result("read", 1.0)
    book.open("waits", "gate-2", 1.0)

    waiting, unread = book.hand_over(2.0)

    assert waiting == {"waits": "gate-2"}
    assert [(ticket_id, result.frame_id) for ticket_id, result in unread] == [("unread", "unread")]


def test_what_has_expired_is_not_handed_over():
    """Its time to live ran here."""
    assert book_of("old", ttl_s=5.0).hand_over(5.0) == ({}, [])
