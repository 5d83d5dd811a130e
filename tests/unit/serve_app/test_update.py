"""Updating among fakes of Serve: what is refused before, what is told, and when the old plan comes back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.serve.schema import ApplicationStatus
from serve_samples import sample_plan

from serve_app import update as module
from serve_app.app_name import APP_NAME
from serve_app.errors import InvalidPlanError, ServiceUnavailableError
from serve_app.plan import Pool, Scheduling
from serve_app.update import check_room_beside, update

POOLS = (Pool("near", num_cpus=1, num_gpus=0.5), Pool("far", num_cpus=1, num_gpus=1))
OLD, NEW = sample_plan(frame_log="old"), sample_plan(frame_log="new")


def room(monkeypatch, **free):
    """What the cluster has left."""
    monkeypatch.setattr(module.ray, "available_resources", lambda: free)


def test_room_for_one_replica_of_each_pool_is_enough(monkeypatch):
    """All pools wait for each other: so their first new replicas stand beside the old ones together."""
    room(monkeypatch, CPU=2.0, GPU=1.5)

    check_room_beside(sample_plan(pools=POOLS))


def test_less_room_is_refused_with_what_is_missing_and_the_cure(monkeypatch):
    """A full cluster has no entry for what it has none of."""
    room(monkeypatch, CPU=8.0)

    with pytest.raises(InvalidPlanError, match=r"got 1\.5 GPUs .*\(near, far\).* 0 are free; .*surge: false"):
        check_room_beside(sample_plan(pools=POOLS))


def test_pools_that_stop_first_or_may_be_empty_need_no_room(monkeypatch):
    """Their new replicas take the places of the old ones, or start when frames come."""
    room(monkeypatch)
    pools = (Pool("near", num_gpus=1, surge=False), Pool("far", num_replicas=0, max_replicas=1, num_gpus=1))

    check_room_beside(sample_plan(pools=pools, scheduling=Scheduling(defer_above_px=1)))


class Serve:
    """Serve, as it looks while plans are deployed: after each deployment the states that it will show."""

    def __init__(self, monkeypatch, *states_of_deployments):
        self.deployed = []
        self._states = [list(states) for states in states_of_deployments]
        self._now_s = 0.0
        monkeypatch.setattr(module, "_running_plan", lambda: OLD)
        monkeypatch.setattr(module, "check_room_beside", lambda _: None)
        monkeypatch.setattr(module, "_start", self._start)
        monkeypatch.setattr(module, "running_revision", lambda: len(self.deployed))
        monkeypatch.setattr(module, "deployment_message", lambda: self.message)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self._now_s, sleep=self._sleep))
        monkeypatch.setattr(module.serve, "status", self._status)
        self.message = ""

    def _start(self, plan, _make_engines):
        self.deployed.append(plan.frame_log)

    def _sleep(self, seconds):
        self._now_s += seconds

    def _status(self):
        states = self._states[len(self.deployed) - 1]
        state, self.message = states.pop(0) if len(states) > 1 else states[0]
        return SimpleNamespace(applications={APP_NAME: SimpleNamespace(status=state, message="")})


DEPLOYING = (ApplicationStatus.DEPLOYING, "")
WAITING = (ApplicationStatus.DEPLOYING, "no GPU is free")
RUNNING = (ApplicationStatus.RUNNING, "")
FAILED = (ApplicationStatus.DEPLOY_FAILED, "EngineError: no such model")


def test_an_update_ends_when_the_new_plan_serves_and_tells_meanwhile_once(monkeypatch):
    """Serve's news, such as what a replica waits for, are not repeated."""
    cluster, told = Serve(monkeypatch, [DEPLOYING, WAITING, WAITING, RUNNING]), []
    update(NEW, told.append)

    assert cluster.deployed == ["new"]
    assert told == ["no GPU is free"]


def test_a_plan_that_does_not_start_is_followed_by_the_old_one(monkeypatch):
    """And its error is told: pools that had changed already change back."""
    cluster, told = Serve(monkeypatch, [DEPLOYING, FAILED], [DEPLOYING, RUNNING]), []
    with pytest.raises(ServiceUnavailableError, match="EngineError: no such model; the old plan serves on"):
        update(NEW, told.append)

    assert cluster.deployed == ["new", "old"]
    assert told == ["going back to the old plan"]


def test_a_plan_that_is_not_warm_in_time_is_followed_by_the_old_one(monkeypatch):
    """It does not hang: the message says what it waited for."""
    cluster = Serve(monkeypatch, [WAITING], [RUNNING])
    with pytest.raises(ServiceUnavailableError, match=r"warm within 5 s \(no GPU is free\); the old plan"):
        update(NEW, lambda _: None, timeout_s=5.0)

    assert cluster.deployed == ["new", "old"]


def test_when_the_old_plan_does_not_come_back_either_that_is_told(monkeypatch):
    """Nobody may read that all is well."""
    Serve(monkeypatch, [FAILED], [FAILED])
    with pytest.raises(ServiceUnavailableError, match="the old plan did not come back whole either: EngineError"):
        update(NEW, lambda _: None)
