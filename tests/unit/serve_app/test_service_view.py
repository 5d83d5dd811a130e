"""Rates between two looks, and the keys that scripts read."""

from __future__ import annotations

import dataclasses
import json

import pytest
from status_samples import STATUS, VIEW

from serve_app.results import ServiceStatus
from serve_app.service_view import rates, view_as_json


def status(uptime_s: float, finished: int, **outcomes: int) -> ServiceStatus:
    """A service that has finished so many."""
    return ServiceStatus(uptime_s, (), {"finished": finished, **outcomes}, 0, verdicts={"admit": finished})


def test_rates_are_means_between_two_looks():
    """By the service's own clock, so that a slow answer does not count as a slow service."""
    found = rates(status(30.0, 140, failed=2), status(20.0, 100))

    assert (found.over_s, found.since_start) == (10.0, False)
    assert (found.outcomes, found.verdicts) == ({"finished": 4.0, "failed": 0.2}, {"admit": 4.0})
    assert found.frames_hz == pytest.approx(4.2)


def test_the_first_look_counts_from_the_start():
    """There is nothing else to count from."""
    found = rates(status(20.0, 100), None)

    assert (found.over_s, found.since_start, found.frames_hz) == (20.0, True, 5.0)


@pytest.mark.parametrize("uptime_s", [20.0, 50.0])
def test_a_service_that_started_anew_counts_from_its_start(uptime_s):
    """Its counts began at 0; negative rates mean nothing. Nor do rates within no time."""
    found = rates(status(20.0, 10), status(uptime_s, 100))

    assert (found.since_start, found.frames_hz) == (True, 0.5)


def test_counts_that_went_back_are_no_negative_rates():
    """One of several routers started anew, the sum of them is smaller."""
    assert rates(status(30.0, 50), status(20.0, 100)).outcomes == {"finished": 0}


def test_the_json_has_these_keys():
    """Scripts read them: one that is taken away or renamed breaks them."""
    view = view_as_json(VIEW, rates(STATUS, None))

    assert json.loads(json.dumps(view)) == view
    assert list(view) == [
        "uptime_s", "num_in_flight", "num_records_lost", "outcomes", "verdicts", "rates", "routers", "pools", "nodes",
        "spool",
    ]  # fmt: skip
    assert list(view["rates"]) == ["over_s", "outcomes_hz", "verdicts_hz"]
    assert view["pools"][0] | {"replicas": []} == {
        "pool": "near", "num_ready": 2, "num_wanted": 2, "waiting": {"critical": 1, "normal": 4, "deferred": 0},
        "waiting_device_s": 0.21, "num_running": 3, "num_credits": 2, "rung": 1, "memory_level": "high", "trouble": "",
        "unhealthy": {},
        "replicas": [],
    }  # fmt: skip
    assert view["pools"][0]["replicas"][1] == {
        "replica": "near-77c0d9f1", "node": "93aa41c7", "up_s": 7948.0, "num_batches": 92113, "device": "NVIDIA L4",
        "memory_used_bytes": int(21.6 * 2**30), "memory_total_bytes": int(22.5 * 2**30), "temperature_c": 88.0,
        "utilisation": 1.0, "notes": ["slowed down: hw_thermal"],
    }  # fmt: skip
    assert view["nodes"][2] == {
        "node": "93aa41c7", "host": "line-gpu-2", "address": "10.0.0.12", "state": "draining", "is_head": False,
        "num_cpus": 16.0, "cpus_used": 3.0, "num_gpus": 1.0, "gpus_used": 1.0, "memory_bytes": 44 * 2**30,
        "labels": {"gpu": "l4", "hall": "3"}, "metrics_port": 8080,
    }  # fmt: skip
    assert view["routers"] == [
        {"router": "router-4be10077", "node": "1f0c9a44", "uptime_s": 8000.0, "num_ended": 312122, "num_in_flight": 38}
    ]


def test_without_serve_the_plan_says_how_many_are_wanted():
    """An older cluster, or a controller that is just starting anew."""
    view = view_as_json(dataclasses.replace(VIEW, pools=None), rates(STATUS, None))

    assert [pool["num_wanted"] for pool in view["pools"]] == [2, 3, 1]
