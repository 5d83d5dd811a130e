"""CPU by role, from snapshots of /proc."""

from __future__ import annotations

import os
import sys
import time

import pytest
from cpu_use import ProcessCpu, cpu_between, machine_busy_s, role_of, snapshot

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("ray::ServeReplica:framelane:engine-cpu", "engine"),
        ("ray::ServeReplica:plain:engine-plain.handle_request", "engine"),
        ("ray::ServeReplica:framelane:router", "router"),
        ("ray::ServeController.listen_for_change", "controller"),
        ("/x/ray/core/src/ray/raylet/raylet --session_dir=/tmp/ray/session_1", "raylet"),
        ("/x/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp", "gcs_server"),
        ("python bench/overload_client.py --address 1.2.3.4:5", "client"),
        ("python bench/overload.py --seconds 8", "host"),
        ("ray::IDLE", "other"),
        ("python -u dashboard/agent.py --raylet-name=/tmp/sockets/raylet", "other"),
    ],
    ids=lambda text: text[-24:],
)
def test_a_command_line_tells_the_role(command, role):
    """Ray names its workers after what they run."""
    assert role_of(command) == role


def test_what_is_counted_is_the_difference_of_the_same_process():
    """A process that is new, or has the id of one that is gone, counts from its begin; one that ended does not."""
    router, other = "ray::ServeReplica:framelane:router", "ray::IDLE"
    before = {1: ProcessCpu(0, 100, router, 5.0), 2: ProcessCpu(0, 100, other, 7.0), 3: ProcessCpu(0, 100, other, 1.0)}
    after = {1: ProcessCpu(0, 100, router, 6.5), 2: ProcessCpu(0, 900, other, 0.5), 4: ProcessCpu(0, 900, other, 0.25)}

    assert cpu_between(before, after) == {"router": 1.5, "other": 0.75}


def test_a_snapshot_holds_this_process_and_what_it_burns():
    """Ticks of 10 ms are seen after 0.1 s of work."""
    pid = os.getpid()
    before, busy_before_s = snapshot(pid, "no session is called this"), machine_busy_s()
    until_s = time.process_time() + 0.1
    while time.process_time() < until_s:
        pass
    after = snapshot(pid, "no session is called this")

    assert after[pid].cpu_s - before[pid].cpu_s >= 0.05
    assert sum(cpu_between(before, after).values()) >= 0.05
    assert machine_busy_s() - busy_before_s >= 0.05
