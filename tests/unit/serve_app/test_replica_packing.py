"""Packing against every possible placing, on clusters small enough to try them all."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.replica_packing import UNIT, Demand, Space, fits, room_on

HALF, THIRD, MOST = UNIT // 2, UNIT // 3, 6 * UNIT // 10


def every_way(demands, spaces):
    """Whether any of all ways to give each replica a machine, and there its GPUs, keeps within everything."""
    replicas = [demand for demand in demands for _ in range(demand.count)]
    for machines in product(*(sorted(demand.machines) for demand in replicas)):
        if all(
            _holds(space, [r for r, at in zip(replicas, machines, strict=True) if at == index], demands)
            for index, space in enumerate(spaces)
        ):
            return True
    return False


def _holds(space, replicas, demands):
    too_many = any(d.max_each is not None and sum(r is d for r in replicas) > d.max_each for d in demands)
    if too_many or sum(r.cpu for r in replicas) > space.cpu or sum(r.gpu for r in replicas) > space.gpu:
        return False
    whole = sum(r.gpu // UNIT for r in replicas if r.gpu >= UNIT)
    parts = [r.gpu for r in replicas if 0 < r.gpu < UNIT]
    left = space.num_gpus - whole
    return left >= 0 and any(
        all(sum(p for p, at in zip(parts, on, strict=True) if at == gpu) <= UNIT for gpu in range(left))
        for on in product(range(left), repeat=len(parts))
    )


@st.composite
def clusters(draw):
    """Up to three machines and three kinds of at most five replicas in all."""
    spaces = [
        Space(cpu * HALF, min(gpu * HALF, num_gpus * UNIT), num_gpus)
        for cpu, gpu, num_gpus in draw(
            st.lists(st.tuples(st.integers(0, 8), st.integers(2, 6), st.integers(0, 3)), min_size=1, max_size=3)
        )
    ]
    demands, left = [], 5
    for _ in range(draw(st.integers(1, 3))):
        count = draw(st.integers(0, left))
        left -= count
        machines = frozenset(draw(st.sets(st.integers(0, len(spaces) - 1))))
        gpu = draw(st.sampled_from([0, THIRD, HALF, MOST, UNIT, 2 * UNIT]))
        max_each = draw(st.sampled_from([None, None, 1, 2]))
        demands.append(Demand(count, draw(st.integers(0, 2)) * HALF, gpu, machines, max_each))
    return demands, spaces


@settings(max_examples=500)  # kinds that get in each other's way are rare
@given(clusters())
def test_the_search_finds_what_trying_everything_finds(cluster):
    """It neither refuses a plan that fits nor takes one that does not."""
    demands, spaces = cluster

    assert fits(demands, spaces) is every_way(demands, spaces)


@settings(max_examples=200)
@given(clusters())
def test_the_room_of_a_machine_for_one_kind_is_what_fits_on_it_alone(cluster):
    """Parts of GPUs included: three of 0.6 do not lie on two GPUs."""
    demands, spaces = cluster
    for demand, space in product(demands, spaces):
        room = room_on(space, demand)
        here = [
            n
            for n in range(demand.count + 1)
            if every_way([Demand(n, demand.cpu, demand.gpu, frozenset({0}), demand.max_each)], [space])
        ]
        assert room == max(here)


ANYWHERE, FIRST = frozenset({0, 1}), frozenset({0})
PART, REST = 7 * UNIT // 10, 4 * UNIT // 10


@pytest.mark.parametrize(
    ("demands", "spaces"),
    [
        ([Demand(1, 0, PART, FIRST), Demand(1, 0, REST, FIRST)], [Space(0, 2 * UNIT, 1)]),
        ([Demand(2, 0, PART, FIRST), Demand(1, 0, REST, FIRST)], [Space(0, 19 * UNIT // 10, 2)]),
        ([Demand(1, 0, UNIT, FIRST), Demand(2, 0, PART, FIRST)], [Space(0, 3 * UNIT, 2)]),
        ([Demand(1, UNIT, 0, FIRST), Demand(1, UNIT, 0, ANYWHERE, 1)], [Space(UNIT, 0, 0), Space(UNIT // 2, UNIT, 1)]),
        (
            [Demand(2, UNIT, 0, ANYWHERE, 1), Demand(2, UNIT, 0, FIRST)],
            [Space(2 * UNIT, 0, 0), Space(2 * UNIT, 0, 0)],
        ),
        ([Demand(1, 0, REST, ANYWHERE), Demand(2, 0, HALF, ANYWHERE)], [Space(0, 8 * UNIT // 10, 2)] * 2),
    ],
    ids=["one-gpu", "two-parts-and-a-rest", "whole-and-parts", "only-there", "one-each-then-two", "held-by-others"],
)
def test_kinds_that_fit_alone_do_not_always_fit_together(demands, spaces):
    """Each has room for itself, and the sums would do: what counts is each machine and each GPU."""
    assert all(sum(room_on(spaces[i], demand) for i in demand.machines) >= demand.count for demand in demands)

    assert fits(demands, spaces) is False


@pytest.mark.parametrize(("gpu", "room"), [(MOST, 2), (HALF, 4), (THIRD, 5), (UNIT, 2), (2 * UNIT, 1), (3 * UNIT, 0)])
def test_the_last_gpu_is_used_and_no_more(gpu, room):
    """Two GPUs: a part lies on one of them, whole ones are taken whole."""
    space, demand = Space(0, 2 * UNIT, 2), Demand(5, 0, gpu, FIRST)

    assert room_on(space, demand) == room
    assert fits([replace(demand, count=room)], [space]) is True


def test_a_greedy_choice_that_leads_nowhere_is_taken_back():
    """The tightest machine is not always the right one: the kind that only it can run comes later."""
    spaces = [Space(2 * UNIT, 0, 0), Space(3 * UNIT, 0, 0)]
    anywhere = Demand(1, 2 * UNIT, 0, frozenset({0, 1}))
    only_there = Demand(2, UNIT, 0, frozenset({0}))

    assert fits([anywhere, only_there], spaces) is True


@pytest.mark.parametrize("num_machines", [100, 400])
def test_a_large_cluster_is_decided_at_once(num_machines):
    """Full to the last GPU, and with one replica too many; thousands of replicas need no deep recursion."""
    spaces = [Space(64 * UNIT, 8 * UNIT, 8) for _ in range(num_machines)]
    everywhere = frozenset(range(num_machines))
    half, whole = Demand(8 * num_machines, UNIT, HALF, everywhere), Demand(4 * num_machines, UNIT, UNIT, everywhere)

    assert fits([half, whole], spaces) is True
    one_too_many = Demand(whole.count + 1, UNIT, UNIT, everywhere)
    assert fits([half, one_too_many], spaces) is False


def test_what_is_not_decided_is_said_so():
    """A puzzle of parts that would take for ever is neither refused nor taken."""
    lots = random.Random(7)
    spaces = [Space(100 * UNIT, 4 * UNIT, 4) for _ in range(6)]
    parts = [lots.randrange(3000, 3700) for _ in range(24)]
    demands = [Demand(3, 0, part, frozenset(range(6))) for part in parts]

    assert fits(demands, spaces, max_tries=300) is None
