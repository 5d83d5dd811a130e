"""Replicas that are stopped, hang and are slow, on real Serve under load: nobody goes unanswered. Engines are fakes."""

from __future__ import annotations

import os
import signal

import pytest
from told_service import CRITICAL_SLO_S, Load, healthy, lives, pids, reasons, show, told_service, until

from serve_app.ray_session import start_ray, stop_ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where engines say that they are there, and are told what to do."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def client(folder):
    """A service of two replicas on a Ray of its own."""
    start_ray(num_cpus=3)
    try:
        with told_service(folder) as client:
            yield client
    finally:
        stop_ray()


def test_a_stopped_replica_costs_nobody_an_answer(client, folder):
    """SIGSTOP under load: critical frames in time by the other one; after SIGCONT it serves again, or another does."""
    until("two replicas", lambda: healthy(client) == 2)
    stopped = pids(folder)[0]
    with Load(client) as load:
        until("load", lambda: len(load.ended) > 30)
        os.kill(stopped, signal.SIGSTOP)
        try:
            until("the stopped one gets no more frames", lambda: healthy(client) == 1)
            load.goes_on()
        finally:
            os.kill(stopped, signal.SIGCONT)
        until("two replicas again", lambda: healthy(client) == 2)
    show(f"longest: critical {load.longest_s('critical'):.2f} s, normal {load.longest_s('normal'):.2f} s")
    assert {outcome for _, outcome in load.outcomes()} == {"finished"}
    assert load.longest_s("critical") < CRITICAL_SLO_S
    assert client.status().num_in_flight == 0


def test_a_replica_whose_engine_hangs_is_replaced(client, folder):
    """Its thread never comes back: frames go to the other one, and a new process takes its place."""
    until("two replicas", lambda: healthy(client) == 2)
    hung = pids(folder)[0]
    with Load(client) as load:
        until("load", lambda: len(load.ended) > 30)
        (folder / f"{hung}.told").write_text("1e6")
        until("the hung one gets no more frames", lambda: healthy(client) == 1)
        until("the hung process is gone", lambda: not lives(hung))
        until("two replicas again", lambda: healthy(client) == 2)
    show(f"longest: critical {load.longest_s('critical'):.2f} s, normal {load.longest_s('normal'):.2f} s")
    assert {outcome for _, outcome in load.outcomes()} == {"finished"}
    assert load.longest_s("critical") < CRITICAL_SLO_S


def test_a_slow_replica_is_drained_and_comes_back(client, folder):
    """Twelve times slower than it was: it is found out by its batches, and let in again by its probes."""
    until("two replicas", lambda: healthy(client) == 2)
    slow = pids(folder)[0]
    with Load(client) as load:
        until("load", lambda: len(load.ended) > 30)
        (folder / f"{slow}.told").write_text("12")
        until("the slow one is drained", lambda: any("slow" in why for why in reasons(client)))
        (folder / f"{slow}.told").unlink()
        until("two replicas again", lambda: healthy(client) == 2)
    assert {outcome for _, outcome in load.outcomes()} == {"finished"}
