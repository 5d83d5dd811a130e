"""Whether a plan has room on a cluster, and what the answer says."""

from __future__ import annotations

import dataclasses

import pytest
from serve_samples import sample_plan

from serve_app.cluster_room import Machine, RoomAnswer, room_for
from serve_app.errors import InvalidPlanError
from serve_app.plan import Plan, Pool

L4, T4 = (("gpu", "l4"), ("ray.io/node-id", "abc")), (("gpu", "t4"),)
A, B = Machine("a", 8, 1, 1, L4), Machine("b", 8, 1, 1, L4)
C = Machine("c", 4, 2, 2, T4)
ROOM = RoomAnswer((), ())
THERE = "gpu=l4 (2 machines), gpu=t4 (1 machine)"


def plan_of(*pools: Pool) -> Plan:
    """A plan of these pools, each with a bucket."""
    base = sample_plan()
    models = {pool.name: "model.onnx" for pool in pools}
    buckets = tuple(
        dataclasses.replace(base.buckets[0], name=pool.name, model=pool.name, pool=pool.name) for pool in pools
    )
    return dataclasses.replace(base, models=models, pools=pools, buckets=buckets, cameras=(), ladder=())


def gpu_pool(name="gpu-l4", **changes) -> Pool:
    """Replicas of one GPU each on machines with gpu=l4."""
    return Pool(**{"name": name, "num_gpus": 1.0, "labels": {"gpu": "l4"}} | changes)


def shortage(plan, *machines) -> str:
    """The one thing that is missing."""
    (text,) = room_for(plan, machines).shortages
    return text


def test_a_plan_that_fits_has_no_shortage():
    """To the last GPU, and a pool of any machine beside it."""
    plan = plan_of(gpu_pool(num_replicas=2), Pool("rest", 18, num_cpus=1.0))

    assert room_for(plan, [A, B, C]) == ROOM


def test_one_replica_too_many_is_told_with_where_there_is_room():
    """Which pool, how many of what, on which machines, and how many there are places for."""
    assert shortage(plan_of(gpu_pool(num_replicas=3)), A, B, C) == (
        "pools.gpu-l4: got 3 replicas of 1 GPU and 1 CPU each on machines with gpu=l4; there is room for 2 "
        "(a: 1, b: 1); lower replicas in the plan or add machines"
    )


def test_the_limit_of_a_machine_counts_and_is_told():
    """Two GPUs on one machine are one place where the plan says so."""
    pool = Pool("any", 4, num_cpus=0.5, num_gpus=1.0, max_replicas_per_node=1)

    assert "at most 1 a machine; there is room for 3 (a: 1, b: 1, c: 1)" in shortage(plan_of(pool), A, B, C)


def test_parts_of_gpus_do_not_add_up_across_gpus():
    """Ray gives a replica a part of one GPU: three of 0.6 need three."""
    pool = Pool("parts", 3, num_cpus=0.0, num_gpus=0.6)

    assert "there is room for 2 (c: 2)" in shortage(plan_of(pool), C)
    assert room_for(plan_of(pool), [A, C]) == ROOM


def test_a_replica_that_is_larger_than_any_machine_is_told():
    """Two GPUs of two machines are not one machine with two."""
    assert "no machine has room for one" in shortage(plan_of(gpu_pool(num_gpus=2.0)), A, B)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"gpu": "l5"}, f"got gpu=l5, which no machine has; labels that there are: {THERE}"),
        ({"rack": "1"}, f"got rack=1, which no machine has; labels that there are: {THERE}"),
        ({"gpu": "l4", "rack": "1"}, "got rack=1, which no machine has;"),
        ({"gpu": "l4", "ray.io/node-id": "!abc"}, "got gpu=l4, ray.io/node-id=!abc, which no machine has together;"),
    ],
    ids=["other-value", "unknown-label", "one-of-two", "not-together"],
)  # fmt: skip
def test_labels_that_match_nothing_are_told_with_those_that_there_are(labels, expected):
    """Ray's own names of single machines are no help, so they are left out."""
    text = shortage(plan_of(gpu_pool(labels=labels)), A, B, C)

    assert text.startswith(f"pools.gpu-l4.labels: {expected}")
    assert "node-id=abc" not in text
    assert text.endswith("machines get labels from: ray start --labels")


def test_a_cluster_without_machines_is_called_so():
    """Before the first worker has joined."""
    assert "there are no machines" in room_for(plan_of(gpu_pool()), []).shortages[0]


def test_pools_that_fit_alone_only_are_told_together():
    """Those that stand in each other's way are named, others are not."""
    plan = plan_of(
        gpu_pool("first", num_replicas=1), gpu_pool("second", num_replicas=2), Pool("rest", num_cpus=0.5)
    )  # fmt: skip

    text = shortage(plan, A, B)

    assert text.startswith(
        "pools first, second: each has room alone, together they have not; they need first: 1 × 1 GPU"
    )
    assert "free are a: 1 GPU and 8 CPUs, b: 1 GPU and 8 CPUs" in text


def test_what_others_hold_is_told():
    """It may be another service of the same cluster."""
    taken = dataclasses.replace(B, gpus=0.0, other_gpus=1.0)

    text = shortage(plan_of(gpu_pool(num_replicas=2)), A, taken)

    assert "there is room for 1 (a: 1); other work of this cluster holds 1 GPU and 0 CPUs there" in text
    assert room_for(plan_of(gpu_pool(num_replicas=2)), [A, taken.without_others()]) == ROOM


def test_a_pool_that_cannot_grow_as_far_as_it_may_is_a_warning():
    """It works today; but who counts on four replicas should know."""
    plan = plan_of(gpu_pool(max_replicas=4), Pool("rest", 2, num_cpus=1.0, max_replicas=10))

    answer = room_for(plan, [A, B, C])

    assert answer.shortages == ()
    (warning,) = answer.warnings
    assert warning.startswith(
        "pools.gpu-l4.max_replicas: got 4 of 1 GPU and 1 CPU each on machines with gpu=l4, for which"
    )


def test_a_pool_that_starts_empty_needs_no_place_yet():
    """Its labels may be those of machines that an autoscaler brings: a warning says so."""
    base = sample_plan()
    uhd = next(bucket for bucket in base.buckets if bucket.canvases[0].num_px > base.scheduling.defer_above_px)
    pool = gpu_pool("x", num_replicas=0, max_replicas=2, labels={"gpu": "l5"})
    buckets = (dataclasses.replace(uhd, model="full", pool="x"),)
    plan = dataclasses.replace(
        base, models={"full": "m.onnx"}, cameras=(), ladder=(), buckets=buckets, pools=(pool,)
    )  # fmt: skip

    answer = room_for(plan, [A])

    assert (answer.shortages, len(answer.warnings)) == ((), 1)


def test_many_machines_are_counted_not_listed():
    """A message of a cluster of hundreds stays readable."""
    machines = [dataclasses.replace(A, name=f"m{number:03}") for number in range(200)]

    text = shortage(plan_of(gpu_pool(num_replicas=201)), *machines)

    assert "(m000: 1, m001: 1, m002: 1, m003: 1, m004: 1, m005: 1 and 194 more)" in text


def test_routers_need_a_machine_that_takes_them():
    """A head that says no is well; a cluster of such is not."""
    head = Machine("head", 0, labels=(("framelane-routers", "no"),))

    assert room_for(plan_of(Pool("cpu")), [head, C]) == ROOM
    assert (
        "routers: every machine has the label framelane-routers=no"
        in room_for(plan_of(Pool("cpu")), [head]).shortages[-1]
    )


@pytest.mark.parametrize("gpus", [1.5, 2.25])
def test_a_whole_gpu_and_a_part_is_refused(gpus):
    """Ray would refuse it when the replica is made."""
    with pytest.raises(InvalidPlanError, match="allowed are whole GPUs or a part of one"):
        plan_of(gpu_pool(num_gpus=gpus))
