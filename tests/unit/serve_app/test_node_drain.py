"""Which node is meant, what is there, and whether it can be drained. No cluster is asked."""

from __future__ import annotations

import dataclasses

import pytest
from router_world import report
from serve_samples import sample_plan

from serve_app.errors import FramelaneError
from serve_app.node_drain import check_drain, find_node, replicas_on, without_room
from serve_app.plan import Pool
from serve_app.ray_nodes import RayNode
from serve_app.results import PoolStatus

HEAD = RayNode("aaaa1111" + "0" * 48, "head", "10.0.0.1", True, False, {"CPU": 8.0})
ONE = RayNode("bbbb2222" + "0" * 48, "one", "10.0.0.2", False, False, {"CPU": 0.0, "GPU": 0.0})
TWO = RayNode("bbbb3333" + "0" * 48, "two", "10.0.0.3", False, False, {"CPU": 2.0, "GPU": 1.0})
NODES = [HEAD, ONE, TWO]
PLAN = sample_plan(pools=(Pool("near", num_cpus=1), Pool("far", num_cpus=1, num_gpus=1)))


@pytest.mark.parametrize("name", ["bbbb3333", TWO.node_id, "two", "10.0.0.3", "bbbb3"])
def test_a_node_is_found_by_id_name_or_address(name):
    """As the status shows it, or as people know it."""
    assert find_node(name, NODES) is TWO


@pytest.mark.parametrize("name", ["cccc", "", "10.0.0"])
def test_an_unknown_node_is_told_with_those_that_there_are(name):
    """The cure stands in the message."""
    with pytest.raises(FramelaneError, match=rf"got '{name}', allowed .*: aaaa1111 \(10.0.0.1, head\), bbbb2222"):
        find_node(name, NODES)


def test_a_name_of_several_nodes_is_refused():
    """Several Rays on one machine have one address; the beginning of an id may be too short."""
    with pytest.raises(FramelaneError, match=r"got 'bbbb', which are several: bbbb2222 \(10.0.0.2\), bbbb3333"):
        find_node("bbbb", NODES)
    with pytest.raises(FramelaneError, match="name one by its id"):
        find_node("10.0.0.3", [*NODES, dataclasses.replace(ONE, address="10.0.0.3")])


def test_replicas_are_known_by_the_node_that_they_report():
    """Each with its pool."""
    there = dataclasses.replace(report("near-1"), node="bbbb2222")
    elsewhere = dataclasses.replace(report("near-2"), node="bbbb3333")
    pools = [PoolStatus("near", 0, 0, (there, elsewhere)), PoolStatus("far", 0, 0, (there,))]

    assert replicas_on(ONE, pools) == [("near", "near-1"), ("far", "near-1")]


@pytest.mark.parametrize(
    ("pools", "homeless"),
    [
        ([], []),
        (["near", "near"], []),
        (["far"], []),
        (["near", "far"], []),
        (["far", "far"], ["far"]),
        (["near"] * 10, []),
        (["near"] * 11, ["near"]),
        (["near"] * 10 + ["far"], ["near"]),
    ],
)
def test_replicas_need_room_elsewhere(pools, homeless):
    """What one takes the next one cannot have; those with GPUs choose first."""
    assert without_room(ONE, NODES, pools, PLAN) == homeless


def test_a_node_that_drains_itself_has_no_room():
    """Ray places nothing there."""
    nodes = [HEAD, ONE, dataclasses.replace(TWO, is_draining=True)]

    assert without_room(ONE, nodes, ["far"], PLAN) == ["far"]


def test_a_drain_without_room_must_be_forced():
    """Serve keeps the old replicas until others are ready: nothing is lost, but the node is not free either."""
    with pytest.raises(FramelaneError, match="replicas of pools far, for which no other node has room now"):
        check_drain(ONE, NODES, ["far", "far"], PLAN, force=False)
    check_drain(ONE, NODES, ["far", "far"], PLAN, force=True)
    check_drain(ONE, NODES, ["far"], PLAN, force=False)


def test_the_head_cannot_be_drained():
    """Not by force either: Serve's controller would go."""
    with pytest.raises(FramelaneError, match=r"aaaa1111 \(10.0.0.1, head\) is the head"):
        check_drain(HEAD, NODES, [], PLAN, force=True)
