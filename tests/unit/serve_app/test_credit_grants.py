"""Credits of one replica among several routers: never more than there are, each live router its own."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serve_app.credit_grants import LEASE_S, MIN_SHARE, USE_S, CreditAsk, CreditGrants, CreditUse
from serve_app.replica_credits import MAX_CREDITS_PER_REPLICA


def ask(router, num_wanted=2, waiting_s=0.0):
    """What a router asks for."""
    return CreditAsk(router, num_wanted, waiting_s)


def rounds(grants, *asks, from_s=0.0, num=3):
    """Some rounds of questions, one a second; the credits that each router has after the last."""
    for second in range(num):
        given = {each.router: grants.asked(each, from_s + second) for each in asks}
    return {router: grant and grant.num_credits for router, grant in given.items()}


def test_a_router_that_is_alone_is_never_refused():
    """As many batches as it likes, and no word about it."""
    grants = CreditGrants()
    assert grants.asked(ask("a"), 0.0) is None

    numbers = [grants.came("a", 0.1, 0.0, urgent=False) for _ in range(MAX_CREDITS_PER_REPLICA)]
    assert None not in numbers
    assert grants.grant("a", 0.0) is None
    assert grants.use() == CreditUse(1, 2, MAX_CREDITS_PER_REPLICA, 0, 2)


def test_the_busier_of_two_routers_has_a_second_credit():
    """One each, and one that follows the work; there is none for two that are about as busy."""
    grants = CreditGrants()

    assert rounds(grants, ask("a", waiting_s=1.0), ask("b")) == {"a": 2, "b": 1}
    assert rounds(grants, ask("a"), ask("b", waiting_s=1.0), from_s=10) == {"a": 1, "b": 2}
    assert rounds(grants, ask("a", waiting_s=1.0), ask("b", waiting_s=0.9), from_s=20) == {"a": 1, "b": 1}
    assert grants.num_credits == 3


def test_a_busy_router_gets_what_an_idle_one_does_not_need():
    """Each keeps its first credit, whatever the others want."""
    grants = CreditGrants()

    assert rounds(grants, ask("a", 6, 5.0), ask("b", 6), ask("c", 6)) == {"a": 4, "b": 1, "c": 1}
    assert rounds(grants, ask("a", 6, 1.0), ask("b", 6, 1.0), ask("c", 6, 1.0), from_s=10) == {"a": 2, "b": 2, "c": 2}


def test_no_router_gets_more_than_it_wants():
    """What is left over goes to the others."""
    assert rounds(CreditGrants(), ask("a", 2, 9.0), ask("b", 6, 0.1)) == {"a": 2, "b": 4}


def test_routers_that_are_as_busy_are_served_alike():
    """Three would be enough for the device; but two and one would favour half the cameras."""
    assert rounds(CreditGrants(), ask("a", 3, 1.0), ask("b", 3, 0.8)) == {"a": 2, "b": 2}
    assert rounds(CreditGrants(), ask("a", 3, 1.0), ask("b", 3, 0.0)) == {"a": 3, "b": 1}


def test_credits_stay_where_the_work_is_about_equal():
    """Else every second one would go to and fro, and cost a refused batch."""
    grants = CreditGrants()
    rounds(grants, ask("a", waiting_s=1.6), ask("b", waiting_s=1.0))

    assert rounds(grants, ask("a", waiting_s=1.1), ask("b", waiting_s=1.0), from_s=5) == {"a": 2, "b": 1}
    assert rounds(grants, ask("a", waiting_s=0.9), ask("b", waiting_s=1.0), from_s=9) == {"a": 1, "b": 1}
    assert rounds(grants, ask("a", waiting_s=1.1), ask("b", waiting_s=1.0), from_s=13) == {"a": 1, "b": 1}


def test_a_batch_beyond_the_grant_is_refused_and_a_critical_one_is_not():
    """Also refusals are counted."""
    grants = CreditGrants()
    rounds(grants, ask("a", waiting_s=1.0), ask("b"))
    held = {router: [] for router in "ab"}
    for router in "ab":
        for _ in range(3):
            held[router].append(grants.came(router, 0.1, 3.0, urgent=False))
    accepted = {router: sum(number is not None for number in numbers) for router, numbers in held.items()}
    assert accepted == {"a": 2, "b": 1}
    assert grants.use() == CreditUse(2, 3, 3, 3, 3)

    assert grants.came("a", 0.1, 3.0, urgent=True) is not None
    assert grants.use() == CreditUse(2, 3, 3, 3, 3)


def test_a_router_that_joins_gets_a_credit_at_once_where_there_is_room():
    """The first one kept to two by itself; there are three from now on."""
    grants = CreditGrants()
    grants.asked(ask("a", waiting_s=5.0), 0.0)
    numbers = [grants.came("a", 0.1, 0.0, urgent=False) for _ in range(2)]

    assert grants.asked(ask("b"), 0.5).num_credits == 1
    assert grants.grant("a", 0.5).num_credits == 2
    assert None not in numbers


def test_a_router_that_joins_a_full_replica_gets_its_credit_when_a_batch_ends():
    """Nothing that is here is thrown out for it."""
    grants = CreditGrants()
    grants.asked(ask("a", 4), 0.0)
    numbers = [grants.came("a", 0.1, 0.0, urgent=False) for _ in range(4)]

    assert grants.asked(ask("b"), 0.5).num_credits == 0
    assert grants.came("b", 0.1, 0.5, urgent=False) is None
    grants.ended(numbers[0], 0.1, 0.6)
    assert grants.grant("b", 0.6).num_credits == 1
    assert grants.came("b", 0.1, 0.7, urgent=False) is not None


def test_the_lease_of_a_silent_router_runs_out():
    """Its batches run on and keep their places until they have ended; then it is forgotten."""
    grants = CreditGrants()
    rounds(grants, ask("a", 4, 9.0), ask("b", 4))
    numbers = [grants.came("a", 0.1, 3.0, urgent=False) for _ in range(3)]
    late_s = 3.0 + LEASE_S + 0.1

    assert grants.asked(ask("b", 4), late_s).num_credits == 1
    for number in numbers[:2]:
        grants.ended(number, 0.1, late_s)
    assert grants.grant("b", late_s).num_credits == 3
    grants.ended(numbers[2], 0.1, late_s)
    assert grants.grant("b", late_s) is None
    assert grants.use().num_routers == 1


def test_a_batch_is_a_sign_of_life():
    """A router whose questions are late but whose batches come keeps its lease."""
    grants = CreditGrants()
    rounds(grants, ask("a"), ask("b"))
    number = grants.came("a", 0.1, 7.0, urgent=True)
    grants.ended(number, 0.1, 7.1)

    assert grants.asked(ask("b"), 2.0 + LEASE_S + 1) is not None


def test_a_router_is_told_of_the_others_work():
    """Of what runs only what is left; critical work of others goes before ours, other work only before others."""
    grants = CreditGrants()
    rounds(grants, ask("a", 4, 9.0), ask("b", 4))
    grants.came("b", 0.3, 3.0, urgent=False)
    grants.came("a", 0.4, 3.0, urgent=False)
    grants.came("b", 0.2, 3.0, urgent=True)

    told = grants.grant("a", 3.1)
    assert (told.before_urgent_s, told.before_other_s) == (pytest.approx(0.4), pytest.approx(0.4))
    told = grants.grant("b", 3.1)
    assert (told.before_urgent_s, told.before_other_s) == (0.0, pytest.approx(0.4))


def test_a_run_that_takes_longer_than_predicted_has_nothing_left():
    """Never less than nothing."""
    grants = CreditGrants()
    rounds(grants, ask("a"), ask("b"))
    grants.came("b", 0.3, 3.0, urgent=False)

    assert grants.grant("a", 4.0).before_other_s == 0.0


def test_the_share_is_what_others_leave_or_what_credits_will_get():
    """Beside an idle router the device is ours; beside a busy one we can count on what our credits will bring."""
    grants = CreditGrants()
    rounds(grants, ask("a", 4), ask("b", 4))
    assert grants.grant("b", 3.0).share == pytest.approx(1.0)
    for step in range(60):
        number = grants.came("a", 0.1, 3.0 + 0.1 * step, urgent=False)
        grants.ended(number, 0.1, 3.1 + 0.1 * step)
    left = math.exp(-6.0 / USE_S)
    assert grants.grant("a", 9.0).share == pytest.approx(1.0)
    assert grants.grant("b", 9.0).share == pytest.approx(max(left, 1 / 4), abs=0.03)


def test_what_waits_at_the_others_counts_before_it_runs():
    """A router that has half a second of work waiting leaves half of the device, as far as anybody knows."""
    grants = CreditGrants()
    rounds(grants, ask("a", 2, 0.5), ask("b", 2))
    assert grants.grant("b", 3.0).share == pytest.approx(0.5)
    rounds(grants, ask("a", 2, 50.0), ask("b", 2))
    assert grants.grant("b", 3.0).share == pytest.approx(1 / 3)


def test_a_router_without_a_credit_counts_on_a_little_all_the_same():
    """It gets one soon."""
    grants = CreditGrants()
    grants.asked(ask("a", 4, 9.0), 0.0)
    for _ in range(4):
        grants.came("a", 0.1, 0.0, urgent=False)

    grant = grants.asked(ask("b", 4), 0.1)
    assert (grant.num_credits, grant.share) == (0, MIN_SHARE)


ROUTERS = st.sampled_from("abcd")
STEPS_S = st.sampled_from([0.0, 0.01, 0.3, 1.0, 3.0, LEASE_S + 1])


class GrantsHistory(RuleBasedStateMachine):
    """Random questions, batches and silences of up to four routers, against a count of what they hold."""

    def __init__(self):
        super().__init__()
        self.grants = CreditGrants()
        self.now_s = 0.0
        self.held: dict[int, tuple[str, bool]] = {}
        self.taken = 0
        self.heard_s: dict[str, float] = {}

    @initialize()
    def somebody_asks(self):
        """A replica that nobody has asked has no routers."""
        self.router_asks("a", 2, 0.0)

    @rule(router=ROUTERS, num_wanted=st.integers(1, 8), waiting_s=st.sampled_from([0.0, 0.1, 1.0, 30.0]))
    def router_asks(self, router, num_wanted, waiting_s):
        """A question; what it answers is what a batch would be judged by."""
        grant = self.grants.asked(CreditAsk(router, num_wanted, waiting_s), self.now_s)
        self.heard_s[router] = self.now_s
        alone = self.alone()
        assert (grant is None) == alone
        if grant is not None:
            assert 0 <= grant.num_credits <= MAX_CREDITS_PER_REPLICA
            assert MIN_SHARE <= grant.share <= 1
            assert 0 <= grant.before_urgent_s <= grant.before_other_s + 1e-9

    @rule(router=ROUTERS, urgent=st.booleans(), run_s=st.sampled_from([0.0, 0.05, 2.0]))
    def batch_comes(self, router, urgent, run_s):
        """It is taken if it is critical, or the router is alone, or has a credit; and only then."""
        mine = [held for held in self.held.values() if held == (router, False)]
        if len(mine) >= MAX_CREDITS_PER_REPLICA:  # no scheduler sends more
            return
        number = self.grants.came(router, run_s, self.now_s, urgent=urgent)
        self.heard_s[router] = self.now_s
        grant = self.grants.grant(router, self.now_s)
        assert (grant is None) == self.alone()
        if urgent or grant is None:
            assert number is not None
        else:
            assert (number is not None) == (len(mine) < grant.num_credits)
        if number is not None:
            self.held[number] = router, urgent

    def alone(self):
        """Whether no other router lives, or has a batch here that takes a credit."""
        live = {router for router, heard_s in self.heard_s.items() if self.now_s - heard_s <= LEASE_S}
        return len(live | {router for router, urgent in self.held.values() if not urgent}) <= 1

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def batch_ends(self, data):
        """Any of those that are here."""
        number = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[number]
        self.grants.ended(number, 0.01, self.now_s)

    @rule(step_s=STEPS_S)
    def time_passes(self, step_s):
        """Leases run out."""
        self.now_s += step_s

    @rule(routers=st.sets(ROUTERS, min_size=2))
    def all_is_calm(self, routers):
        """Everything ends, the others are silent: after two rounds each has a credit, and all of them are given out."""
        for number in list(self.held):
            del self.held[number]
            self.grants.ended(number, 0.0, self.now_s)
        self.now_s += LEASE_S + 1
        for router in [*sorted(routers), *sorted(routers)]:
            self.grants.asked(CreditAsk(router, 4, 1.0), self.now_s)
            self.heard_s[router] = self.now_s
        given = {router: self.grants.grant(router, self.now_s).num_credits for router in routers}
        assert min(given.values()) >= 1
        assert sum(given.values()) == len(routers) * math.ceil(4 / len(routers))
        self.taken = sum(given.values())

    @invariant()
    def nothing_is_overbooked(self):
        """What is granted or held grows only while it is within the number of credits."""
        taken = 0
        if len(self.grants._leases) > 1:
            for router, lease in self.grants._leases.items():
                num_held = sum(held == (router, False) for held in self.held.values())
                assert lease.num_held == num_held
                taken += max(lease.num_granted, num_held)
            assert taken <= max(self.grants.num_credits, self.taken)
            assert taken <= 2 * 4  # two for each of four: the fewest that are six in all
        else:
            taken = 10**9  # a router that is alone keeps count by itself
        self.taken = taken


TestGrantsHistory = GrantsHistory.TestCase
TestGrantsHistory.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
