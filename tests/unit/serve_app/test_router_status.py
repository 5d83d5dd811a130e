"""The service at a glance, from the views of its routers."""

from __future__ import annotations

import dataclasses

from router_world import report

from serve_app.results import PoolStatus, RouterReport, ServiceStatus
from serve_app.router_status import merged, seen_by


def view(router, **changes):
    """What a router sees, itself included."""
    pools = (
        PoolStatus("near", 3, 1, (report("near-0"),), backlog_s=0.5, rung=0, around_s=0.01),
        PoolStatus("far", 1, 2, (), backlog_s=2.0, rung=1, around_s=0.03),
    )
    status = ServiceStatus(10.0, pools, {"finished": 5, "expired": 1}, num_in_flight=4, num_records_lost=2)
    return seen_by(RouterReport(router, "node", 7, 0, True), dataclasses.replace(status, **changes))


def test_a_router_alone_is_the_service():
    """Its view, with its own part once more."""
    status = merged([view("r-1")])

    assert status == view("r-1")
    (router,) = status.routers
    assert (router.report.router, router.uptime_s, router.num_in_flight) == ("r-1", 10.0, 4)
    assert (router.num_waiting, router.num_running, router.backlog_s) == (4, 3, 2.5)
    assert router.outcomes == {"finished": 5, "expired": 1}


def test_work_is_added_up_and_replicas_are_not():
    """Of rung and time around a batch the worst is shown; routers stand in the order of their names."""
    worse = (
        PoolStatus("near", 10, 1, (report("near-0"),), backlog_s=1.0, rung=2, around_s=0.02),
        PoolStatus("far", 0, 0, (), backlog_s=0.0, rung=0, around_s=0.01),
    )
    other = view("r-1", uptime_s=99.0, pools=worse, outcomes={"finished": 1, "failed": 2}, num_in_flight=1)
    status = merged([view("r-2"), other])

    assert [(p.name, p.num_waiting, p.num_running, p.backlog_s, p.rung, p.around_s) for p in status.pools] == [
        ("near", 13, 2, 1.5, 2, 0.02), ("far", 1, 2, 2.0, 1, 0.03)
    ]  # fmt: skip
    assert [[each.replica for each in pool.replicas] for pool in status.pools] == [["near-0"], []]
    assert (status.uptime_s, status.num_in_flight, status.num_records_lost) == (99.0, 5, 4)
    assert status.outcomes == {"finished": 6, "expired": 1, "failed": 2}
    assert [router.report.router for router in status.routers] == ["r-1", "r-2"]
    assert [router.num_waiting for router in status.routers] == [10, 4]
