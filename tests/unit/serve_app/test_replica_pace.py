"""Which replica of a pool is slow."""

from __future__ import annotations

import pytest

from serve_app.replica_pace import MIN_BATCHES, PROBES_TO_RECOVER, RECOVERED_RATIO, SLOW_RATIO, ReplicaPace


def paced(**ratios: list[float]) -> ReplicaPace:
    """A pool whose replicas took these ratios, one batch each in turn."""
    pace = ReplicaPace()
    for turn in range(max(map(len, ratios.values()))):
        for name, its in ratios.items():
            if turn < len(its):
                pace.took(name, its[turn])
    return pace


def test_one_that_is_ten_times_slower_than_its_peers_is_found_out_after_some_batches():
    """Not at the first: machines have moods."""
    assert paced(a=[10.0] * (MIN_BATCHES - 1), b=[1.0] * 8).slow == {}
    assert paced(a=[10.0] * MIN_BATCHES, b=[1.0] * 8).slow == {"a": 10.0}


@pytest.mark.parametrize(
    "ratios",
    [
        {"a": [10.0] * 8},
        {"a": [10.0] * 8, "b": [10.0] * 8},
        {"a": [SLOW_RATIO - 0.1] * 8, "b": [1.0] * 8},
        {"a": [1.0, 10.0, 1.0, 10.0, 1.0, 10.0, 1.0, 1.0], "b": [1.0] * 8},
        {"a": [10.0] * 8, "b": [3.0] * 8},
    ],
    ids=["alone", "all of them", "half as fast", "now and then", "not so much slower than its peers"],
)
def test_nobody_else_is(ratios):
    """What all have in common is for the latency model to follow."""
    assert paced(**ratios).slow == {}


def test_slow_batches_of_one_replica_teach_the_latency_model_nothing():
    """From the first one on, while its peers are as fast as ever; those of a whole pool do, after a few."""
    pace = paced(a=[1.0] * 8, b=[1.0] * 8)
    assert [pace.took("a", 10.0) for _ in range(8)] == [False] * 8
    assert pace.took("b", 1.1) is True

    both = paced(a=[1.0] * 8, b=[1.0] * 8)
    learnt = [both.took(name, 10.0) for _ in range(12) for name in "ab"]
    assert learnt[-4:] == [True] * 4
    assert both.slow == {}


def test_a_lone_replica_teaches_whatever_it_does():
    """Else predictions would stay wrong for ever."""
    pace = ReplicaPace()
    assert [pace.took("a", 10.0) for _ in range(8)] == [True] * 8


def test_good_probes_in_a_row_bring_it_back():
    """One bad one begins the row anew; what it was before counts no more then."""
    pace = paced(a=[10.0] * MIN_BATCHES, b=[1.0] * 8)
    good = RECOVERED_RATIO - 0.1
    for ratio in (*[good] * (PROBES_TO_RECOVER - 1), RECOVERED_RATIO, *[good] * (PROBES_TO_RECOVER - 1)):
        pace.probed("a", ratio)
        assert set(pace.slow) == {"a"}
    pace.probed("a", good)
    assert pace.slow == {}
    assert pace.took("a", 10.0) is False
    assert pace.slow == {}


def test_probes_of_others_and_replicas_that_left_count_for_nothing():
    """Nothing is kept of them."""
    pace = paced(a=[10.0] * MIN_BATCHES, b=[1.0] * 8)
    pace.probed("b", 20.0)
    assert pace.slow == {"a": 10.0}
    pace.keep(["b"])
    assert pace.slow == {}
    pace.probed("a", 1.0)
    assert [pace.took("b", 10.0) for _ in range(8)] == [True] * 8
