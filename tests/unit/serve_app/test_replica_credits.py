"""Which replica gets the next batch, and what is predicted of those that are busy."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serve_app.replica_credits import (
    MAX_CREDITS_PER_REPLICA,
    MIN_CREDITS_PER_REPLICA,
    ReplicaCredits,
    SchedulerStateError,
)

NAMES = ("a", "b", "c")


def credits_of(*names: str) -> ReplicaCredits:
    """Replicas that are ready and idle."""
    ready = ReplicaCredits()
    ready.set_ready(names)
    return ready


def give(
    ready: ReplicaCredits, batch_id: int, run_s: float, *, urgent: bool = False, now_s: float = 0.0, before_s=0.0
) -> str | None:
    """Send a batch to the place that is offered for its kind; the replica's name, or None if there is no place."""
    place = ready.place_for_critical(now_s, before_s) if urgent else ready.place_for_other(now_s, before_s)
    if place is None:
        return None
    ready.sent(batch_id, place, run_s, urgent=urgent)
    return place.replica.name


def offered(ready: ReplicaCredits, now_s: float = 0.0, before_s: float = 0.0) -> list[tuple[str, float] | None]:
    """The places for a critical batch and for another: replica and start."""
    places = (ready.place_for_critical(now_s, before_s), ready.place_for_other(now_s, before_s))
    return [place and (place.replica.name, place.start_s) for place in places]


def test_without_a_replica_there_is_no_place():
    """None is assumed before one has said that it is ready."""
    assert offered(ReplicaCredits()) == [None, None]
    assert ReplicaCredits().num_ready == 0


def test_a_lone_replica_runs_one_batch_and_has_one_staged():
    """The third noncritical batch waits until one of the two has ended."""
    ready = credits_of("a")

    assert [give(ready, number, 1.0) for number in (1, 2, 3)] == ["a", "a", None]
    ready.ended(1, 1.0)
    assert give(ready, 3, 1.0, now_s=1.0) == "a"
    assert ready.num_batches == 2


def test_one_critical_batch_joins_the_two():
    """It waits for the running one only; the next critical one waits until that has left its place."""
    ready = credits_of("a")
    for number in (1, 2):
        give(ready, number, 1.0)

    assert offered(ready, 0.25) == [("a", 1.0), None]
    assert [give(ready, number, 0.5, urgent=True) for number in (3, 4)] == ["a", None]
    ready.ended(1, 1.0)
    assert offered(ready, 1.0) == [("a", 1.5), ("a", 2.5)]


def test_idle_replicas_come_first_then_the_one_that_is_free_first():
    """Staging is the second choice."""
    ready = credits_of("a", "b", "c")

    assert [give(ready, number, run_s) for number, run_s in ((1, 0.9), (2, 0.3), (3, 0.6))] == ["a", "b", "c"]
    assert [give(ready, number, 0.1) for number in (4, 5)] == ["b", "c"]


def test_the_last_credit_of_two_replicas_is_kept_for_critical_batches():
    """Noncritical ones hold at most one credit fewer than there are; a lone replica has none to spare."""
    ready = credits_of("a", "b")

    assert [give(ready, number, 0.1 * number) for number in (1, 2, 3, 4)] == ["a", "b", "a", None]
    assert give(ready, 5, 0.1, urgent=True) == "a"
    assert give(ready, 6, 0.1) is None
    assert give(ready, 7, 0.1, urgent=True) == "b"


def test_critical_batches_take_no_credit_of_the_others():
    """What critical work holds does not count against the limit of the others."""
    ready = credits_of("a", "b")

    assert [give(ready, number, 1.0, urgent=True) for number in (1, 2)] == ["a", "b"]
    assert [give(ready, number, 1.0) for number in (3, 4, 5, 6)] == ["a", "b", "a", None]


def test_a_critical_batch_goes_where_the_running_one_ends_first():
    """A staged batch is overtaken, so it does not matter how many are staged, only when the running one ends."""
    ready = credits_of("a", "b")
    for number, run_s in ((1, 0.1), (2, 0.9), (3, 0.5)):
        give(ready, number, run_s)
    assert [len(replica.held) for replica in ready._replicas.values()] == [2, 1]

    assert offered(ready)[0] == ("a", 0.1)


def test_a_replica_that_leaves_gets_nothing_more():
    """Its batches end in their own time; until then they are counted."""
    ready = credits_of("a", "b")
    give(ready, 1, 1.0)
    ready.set_ready(["b"])

    assert (ready.names(), ready.num_ready, ready.num_batches) == (("b",), 1, 1)
    assert offered(ready) == [("b", 0.0), ("b", 0.0)]
    ready.ended(1, 1.0)
    assert (offered(ready), ready.num_batches) == ([("b", 0.0), ("b", 0.0)], 0)


def test_an_idle_replica_serves_though_one_that_left_still_holds_batches():
    """The credits of those that are gone are not those of the ready one: it must not idle for them."""
    ready = credits_of("a", "b")
    for number, run_s in ((1, 0.1), (2, 5.0), (3, 5.0)):
        give(ready, number, run_s)
    assert [len(replica.held) for replica in ready._replicas.values()] == [2, 1]
    ready.ended(2, 0.05)
    ready.set_ready(["b"])

    assert offered(ready, 0.05) == [("b", 0.05), ("b", 0.05)]


def test_a_replica_that_comes_back_still_holds_its_batches():
    """It was only not ready for a while."""
    ready = credits_of("a")
    give(ready, 1, 1.0)
    ready.set_ready([])
    assert offered(ready) == [None, None]
    ready.set_ready(["a"])

    assert offered(ready, 0.5) == [("a", 1.0), ("a", 1.0)]
    assert [give(ready, number, 1.0) for number in (2, 3)] == ["a", None]


def test_a_replica_that_overruns_is_free_from_now():
    """A prediction that has passed is no start in the past."""
    ready = credits_of("a")
    give(ready, 1, 1.0)

    assert offered(ready, 3.0) == [("a", 3.0), ("a", 3.0)]


def test_the_seconds_that_run_and_those_that_are_staged_are_told_apart():
    """The running batch counts what is left of it; staged ones count in full, by who overtakes whom."""
    ready = credits_of("a")
    for number, run_s, urgent in ((1, 1.0, False), (2, 0.5, False), (3, 0.25, True)):
        give(ready, number, run_s, urgent=urgent)

    def seconds(now_s: float) -> tuple[float, float, float]:
        return ready.running_s(now_s), ready.staged_urgent_s, ready.staged_others_s

    assert seconds(0.25) == pytest.approx((0.75, 0.25, 0.5))
    ready.ended(1, 0.75)
    assert seconds(0.75) == pytest.approx((0.25, 0.0, 0.5))
    ready.ended(3, 1.0)
    assert seconds(1.0) == pytest.approx((0.5, 0.0, 0.0))
    ready.ended(2, 1.5)
    assert seconds(1.5) == (0.0, 0.0, 0.0)


def test_a_batch_starts_when_it_is_there():
    """Its way is added where nothing runs, and passes while another batch runs."""
    ready = credits_of("a")
    assert offered(ready, 1.0, before_s=0.25) == [("a", 1.25), ("a", 1.25)]
    give(ready, 1, 1.0, now_s=1.0, before_s=0.25)

    assert offered(ready, 1.5, before_s=0.25) == [("a", 2.25), ("a", 2.25)]
    assert offered(ready, 2.125, before_s=0.25) == [("a", 2.375), ("a", 2.375)]


def test_the_next_batch_runs_since_the_last_one_ended_not_since_that_was_heard_of():
    """The answer was on its way for a while."""
    ready = credits_of("a")
    for number in (1, 2):
        give(ready, number, 1.0)
    ready.ended(1, 1.25, 0.25)

    assert offered(ready, 1.25) == [("a", 2.0), ("a", 2.0)]


def test_a_batch_that_is_still_on_its_way_does_not_run():
    """The one before it has ended meanwhile: it begins when it is there."""
    ready = credits_of("a")
    give(ready, 1, 1.0)
    give(ready, 2, 1.0, now_s=1.0, before_s=0.5)
    ready.ended(1, 1.25, 0.25)

    assert offered(ready, 1.25)[0] == ("a", 2.5)


def test_more_credits_let_more_be_on_their_way():
    """Noncritical batches of one replica; the pool of two still keeps one credit."""
    alone, pair = credits_of("a"), credits_of("a", "b")
    for ready in (alone, pair):
        ready.per_replica = 3

    assert [give(alone, number, 1.0) for number in range(4)] == ["a", "a", "a", None]
    assert [give(pair, number, 1.0) is not None for number in range(6)] == [True] * 5 + [False]


def test_an_idle_replica_serves_though_another_holds_more_than_there_are_credits_now():
    """Calls have become shorter, so fewer batches need be on their way: that is no reason to idle."""
    ready = credits_of("a")
    ready.per_replica = 6
    for number in range(6):
        give(ready, number, 1.0)
    ready.per_replica = 2
    ready.set_ready(["a", "b"])

    assert offered(ready) == [("b", 0.0), ("b", 0.0)]
    assert [give(ready, number, 1.0) for number in (7, 8)] == ["b", None]


def test_the_first_end_is_of_all_that_a_replica_holds():
    """With a credit or without; of ready ones only."""
    ready = credits_of("a", "b")
    for number, run_s in ((1, 0.5), (2, 1.0), (3, 0.25)):
        give(ready, number, run_s)

    assert [ready.first_end_s(0.0), ready.first_end_s(9.0)] == [0.75, 0.75]
    ready.set_ready(["b"])
    assert ready.first_end_s(0.0) == 1.0
    ready.set_ready([])
    assert ready.first_end_s(9.0) == 9.0


def test_a_batch_ends_once():
    """The second end changes nothing."""
    ready = credits_of("a")
    give(ready, 7, 1.0)
    ready.ended(7, 1.0)

    for batch_id in (7, 8):
        with pytest.raises(SchedulerStateError, match=f"batch {batch_id}: is not running; a batch ends once"):
            ready.ended(batch_id, 1.0)
    assert (ready.num_batches, offered(ready, 1.0)) == (0, [("a", 1.0), ("a", 1.0)])


def test_a_replica_for_critical_work_only_gets_nothing_else():
    """Idle or not: others take all credits of the second one, as none need be kept; critical batches go to both."""
    ready = ReplicaCredits()
    ready.set_ready({"a": 0, "b": 2})

    assert [give(ready, number, 1.0) for number in (1, 2, 3)] == ["b", "b", None]
    assert give(ready, 4, 1.0, urgent=True) == "a"


def test_a_limited_replica_holds_so_many_and_more_once_it_may():
    """Two replicas with one credit each, one of both kept for critical work: nothing is staged."""
    ready = ReplicaCredits()
    ready.set_ready({"a": 1, "b": 1})
    given = [give(ready, number, 1.0) for number in (1, 2, 3)]
    ready.set_ready({"a": 1, "b": 3})

    assert given == ["a", "b", None]
    assert [give(ready, number, 1.0) for number in (4, 5)] == [None, None], "per_replica is 2, one of 3 is kept"
    ready.per_replica = 3
    assert [give(ready, number, 1.0) for number in (6, 7)] == ["b", None]


class CreditHistory(RuleBasedStateMachine):
    """Replicas that come and go, batches that are sent and end in any order, against plain lists."""

    def __init__(self):
        super().__init__()
        self.ready = ReplicaCredits()
        self.now_s = 0.0
        self.names: tuple[str, ...] = ()
        self.held: dict[str, list[tuple[int, bool, float]]] = {}
        self.free_s: dict[str, float] = {}
        self.there_s: dict[int, float] = {}
        self.numbers = itertools.count(1)

    @initialize(names=st.sets(st.sampled_from(NAMES), min_size=1))
    def first_replicas(self, names):
        """Every history begins with some."""
        self.replicas_change(names)

    @rule(names=st.sets(st.sampled_from(NAMES)))
    def replicas_change(self, names):
        """Come, go, come back."""
        self.names = tuple(sorted(names))
        self.ready.set_ready(self.names)

    @rule(step_s=st.sampled_from([0.25, 0.5, 2.0]))
    def time_passes(self, step_s):
        """Predictions may be overrun."""
        self.now_s += step_s

    @rule(per_replica=st.integers(MIN_CREDITS_PER_REPLICA, MAX_CREDITS_PER_REPLICA))
    def credits_change(self, per_replica):
        """Calls take longer, or less."""
        self.ready.per_replica = per_replica

    @rule(urgent=st.booleans(), run_s=st.sampled_from([0.25, 0.5, 1.0, 4.0]), before_s=st.sampled_from([0.0, 0.125]))
    def a_batch_is_sent(self, urgent, run_s, before_s):
        """To the place that is offered."""
        ask = self.ready.place_for_critical if urgent else self.ready.place_for_other
        place = ask(self.now_s, before_s)
        if place is None:
            return
        name, number = place.replica.name, next(self.numbers)
        held = self.held.setdefault(name, [])
        assert name in self.names
        staged = held[1:]
        if urgent:
            assert not any(is_urgent for _, is_urgent, _ in staged)
        elif held:
            others = {name: self.num_others(name) for name in self.names}
            assert others[name] < self.ready.per_replica
            assert sum(others.values()) < self.ready.per_replica * len(others) - (len(others) > 1)
        there_s = self.now_s + before_s
        all_s = self.free_s.get(name, 0.0) + sum(staged_s for _, _, staged_s in ([] if urgent else staged))
        assert place.start_s == (max(there_s, all_s) if held else there_s)
        assert not held or all(self.held.get(other) for other in self.names), "an idle replica was passed over"
        self.ready.sent(number, place, run_s, urgent=urgent)
        self.there_s[number] = there_s
        if not held:
            self.free_s[name] = there_s + run_s
        ahead = sum(1 for _, is_urgent, _ in staged if is_urgent or not urgent)
        held.insert(1 + ahead if held else 0, (number, urgent, run_s))

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), after_s=st.sampled_from([0.0, 0.125]))
    def a_batch_ends(self, data, after_s):
        """Any of those that are held: replicas may also drop a staged one."""
        name = data.draw(st.sampled_from(sorted(name for name, held in self.held.items() if held)))
        held = self.held[name]
        index = data.draw(st.integers(0, len(held) - 1))
        number, _, _ = held.pop(index)
        if index == 0 and held:
            self.free_s[name] = max(self.now_s - after_s, self.there_s[held[0][0]]) + held[0][2]
        self.ready.ended(number, self.now_s, after_s)

    def num_others(self, name):
        """Noncritical batches that a replica holds."""
        return sum(not urgent for _, urgent, _ in self.held.get(name, []))

    @invariant()
    def what_is_held_is_counted(self):
        """Batches, replicas, and the order at each."""
        assert self.ready.num_batches == sum(len(held) for held in self.held.values())
        assert sorted(self.ready.names()) == list(self.names)
        assert self.ready.num_ready == len(self.names)
        kept = {name: [one.batch_id for one in replica.held] for name, replica in self.ready._replicas.items()}
        assert {name: numbers for name, numbers in kept.items() if numbers} == {
            name: [number for number, _, _ in held] for name, held in self.held.items() if held
        }

    @invariant()
    def a_ready_idle_replica_is_offered_to_critical_batches(self):
        """And some place is offered unless every ready replica has a critical batch staged."""
        place = self.ready.place_for_critical(self.now_s, 0.0)
        idle = [name for name in self.names if not self.held.get(name)]
        if idle:
            assert place is not None
            assert place.replica.name in idle
            assert self.ready.place_for_other(self.now_s, 0.0) is not None
        can_take = [name for name in self.names if not any(urgent for _, urgent, _ in self.held.get(name, [])[1:])]
        assert (place is None) == (not can_take)

    @invariant()
    def seconds_are_those_of_what_is_held(self):
        """What runs, and what is staged of each kind."""
        staged = [batch for held in self.held.values() for batch in held[1:]]
        running_s = sum(self.free_s[name] - self.now_s for name, held in self.held.items() if held)
        assert self.ready.running_s(self.now_s) == pytest.approx(max(0.0, running_s))
        assert self.ready.staged_urgent_s == pytest.approx(sum(run_s for _, urgent, run_s in staged if urgent))
        assert self.ready.staged_others_s == pytest.approx(sum(run_s for _, urgent, run_s in staged if not urgent))

    def teardown(self):
        """When all batches have ended no seconds are left over, and nothing is remembered."""
        for held in self.held.values():
            for number, _, _ in held:
                self.ready.ended(number, self.now_s)
        assert self.ready.running_s(self.now_s) == pytest.approx(0.0, abs=1e-9)
        assert (self.ready.num_batches, self.ready._num_others, self.ready._num_running) == (0, 0, 0)
        self.ready.set_ready([])
        assert self.ready._replicas == {}


CreditHistory.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
TestCreditHistory = CreditHistory.TestCase
