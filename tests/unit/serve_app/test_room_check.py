"""When a plan is refused, waited for or let pass; Ray is what the tests say it is."""

from __future__ import annotations

import dataclasses
import threading
import types

import pytest
from serve_samples import sample_plan

from serve_app import room_check
from serve_app.cluster_machines import ServiceReplicas
from serve_app.cluster_room import Machine
from serve_app.errors import InvalidPlanError
from serve_app.room_check import check_change, check_room, telling_who_waits

BASE = sample_plan()
PLAN = dataclasses.replace(BASE, pools=tuple(dataclasses.replace(pool, num_cpus=1.0) for pool in BASE.pools))
NUM_CPUS = sum(pool.num_replicas for pool in PLAN.pools)
ROOM, NO_ROOM = Machine("a", NUM_CPUS), Machine("a", 0)
HELD = Machine("a", 0, other_cpus=NUM_CPUS)
SERVING = ServiceReplicas(num_alive=3)


class Cluster:
    """Machines that change with each look, and a clock that only sleeping moves."""

    def __init__(self, monkeypatch):
        self.looks, self.replicas, self.now_s = [[ROOM]], ServiceReplicas(), 0.0
        monkeypatch.setattr(room_check, "machines_of_cluster", self.machines)
        monkeypatch.setattr(room_check, "service_replicas", lambda: self.replicas)
        clock = types.SimpleNamespace(monotonic=lambda: self.now_s, sleep=self.sleep)
        monkeypatch.setattr(room_check, "time", clock)

    def machines(self):
        """What is there now; the last look is how it stays."""
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def sleep(self, seconds):
        """Time passes."""
        self.now_s += seconds


@pytest.fixture
def cluster(monkeypatch):
    """A cluster with room for the plan and nothing on it."""
    return Cluster(monkeypatch)


def test_a_plan_with_room_passes_at_once(cluster):
    """Without a word, and without waiting."""
    assert check_room(PLAN) == ()
    assert cluster.now_s == 0


@pytest.mark.parametrize(
    ("replicas", "ending"),
    [(ServiceReplicas(), "add machines"), (SERVING, "; the service goes on with its plan")],
    ids=["nothing-runs", "a-service-runs"],
)
def test_a_plan_that_can_never_fit_is_refused_at_once(cluster, replicas, ending):
    """Who made a slip of the pen should not wait; and hears what becomes of the service."""
    cluster.looks, cluster.replicas = [[NO_ROOM]], replicas

    with pytest.raises(InvalidPlanError, match="no machine has room for one") as caught:
        check_room(PLAN)

    assert str(caught.value).endswith(ending)
    assert cluster.now_s == 0


def test_what_has_just_ended_is_given_time_to_go(cluster):
    """Ray tells a second late that the CPUs of a service that was taken off are free again."""
    cluster.looks = [[HELD], [HELD], [ROOM]]

    assert check_room(PLAN) == ()
    assert cluster.now_s == 1.0


def test_what_others_go_on_holding_is_refused_after_a_moment(cluster):
    """Five seconds, then it is not about to end."""
    cluster.looks = [[HELD]]

    with pytest.raises(InvalidPlanError, match="other work of this cluster holds"):
        check_room(PLAN)

    assert cluster.now_s == 5.0


def test_machines_that_join_in_time_are_waited_for(cluster):
    """As `cluster.yaml` does: the head deploys while workers start."""
    cluster.looks = [[], [NO_ROOM], [NO_ROOM], [ROOM]]

    assert check_room(PLAN, wait_s=10.0) == ()
    assert cluster.now_s == 1.5


def test_machines_that_do_not_join_in_time_are_named(cluster):
    """Not a moment longer than was asked for."""
    cluster.looks = [[NO_ROOM]]

    with pytest.raises(InvalidPlanError):
        check_room(PLAN, wait_s=10.0)

    assert cluster.now_s == 10.0


def test_a_cluster_that_grows_is_only_warned_of(cluster):
    """Its machines come when replicas ask for them."""
    cluster.looks = [[NO_ROOM]]

    (warning, *_) = check_room(PLAN, may_grow=True)

    assert "no machine has room for one" in warning
    assert cluster.now_s == 0


def test_a_first_deployment_by_the_builder_is_not_refused(cluster):
    """In Kubernetes it is asked for before the machines are there, and nobody would ask again."""
    cluster.looks = [[NO_ROOM]]
    check_change(PLAN, may_grow=False)

    cluster.replicas = SERVING
    with pytest.raises(InvalidPlanError):
        check_change(PLAN, may_grow=False)
    check_change(PLAN, may_grow=True)


def told_while(cluster, monkeypatch, *, looks, patient=False):
    """What is told during a deployment in which so many looks find the cluster as it is."""
    monkeypatch.setattr(room_check, "TELL_AFTER_S", 0.0)
    monkeypatch.setattr(room_check, "PATIENCE_S", 1e9 if patient else -1.0)
    told, seen, enough = [], [], threading.Event()

    def replicas():
        seen.append(1)
        if len(seen) >= looks:
            enough.set()
        return cluster.replicas

    monkeypatch.setattr(room_check, "service_replicas", replicas)
    with telling_who_waits(PLAN, told.append):
        assert enough.wait(30)
    return told


@pytest.mark.parametrize(
    ("machines", "waiting", "patient", "expected"),
    [
        ([NO_ROOM], {"engine-near": 2}, True, "replicas wait for a machine (engine-near: 2): pools."),
        ([ROOM], {"engine-near": 2}, False, "(engine-near: 2): there is room, but other replicas stand in the way"),
    ],
    ids=["no-room", "room"],
)
def test_who_waits_for_a_deployment_hears_once_what_it_lacks(
    cluster, monkeypatch, machines, waiting, patient, expected
):
    """The same news is not told twice."""
    cluster.looks, cluster.replicas = [machines], ServiceReplicas(without_place=waiting)

    (told,) = told_while(cluster, monkeypatch, looks=5, patient=patient)

    assert expected in told


@pytest.mark.parametrize(
    ("waiting", "patient"), [({"engine-near": 2}, True), ({}, False)], ids=["it-is-early", "nobody-waits"]
)
def test_where_there_is_room_the_first_minute_is_no_news(cluster, monkeypatch, waiting, patient):
    """Replicas without a place for some seconds are how each deployment begins."""
    cluster.replicas = ServiceReplicas(without_place=waiting)

    assert told_while(cluster, monkeypatch, looks=3, patient=patient) == []
