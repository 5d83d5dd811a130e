"""Durable frames on a real service: 500 of them, with everything restarted or killed in the middle."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

DRILL = Path(__file__).with_name("durable_drill.py")
AWAY_DRILL = Path(__file__).with_name("redis_away_drill.py")
# Starting Ray and two deployments on a busy machine takes its time; an idle one needs a tenth of it.
DRILL_S = 280.0
START_S = 20.0


def seen_in(folder, *arguments, script=DRILL):
    """What a drill saw, in a process with a Ray of its own."""
    environment = os.environ | {"FRAMELANE_STATE_DIR": str(folder / "state")}
    ran = subprocess.run(
        [sys.executable, str(script), str(folder), *map(str, arguments)],
        capture_output=True, text=True, timeout=DRILL_S, env=environment, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture
def redis_port():
    """A free port, where there is a Redis to listen on it."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here; on Debian: apt-get install redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def redis_address(tmp_path, redis_port):
    """A Redis of this test's own."""
    port = redis_port
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", "",
         "--appendonly", "yes"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    give_up_s = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < give_up_s, "Redis did not start"
            time.sleep(0.02)
    yield f"redis://127.0.0.1:{port}/0"
    server.kill()
    server.wait()


def assert_each_answered_once(seen):
    """By the callers' tickets, by the readers of the cameras, and by the spool's own count."""
    assert seen["errors"] == []
    assert 250 <= seen["middle"] < 500, "it was not in the middle"
    assert seen["tickets"] == 500
    assert seen["outcomes"] == {"finished": 500}
    assert (seen["own"], seen["same_again"]) == (True, True)
    assert (seen["streamed"], seen["streamed_once"]) == (500, 500)
    assert (seen["pending"], seen["done"], seen["aside"]) == (0, 500, 0)


@pytest.mark.timeout(300)
def test_500_durable_frames_survive_a_restart_of_the_service(tmp_path):
    """The application is deleted and deployed again while callers send: no ticket is lost, none answered twice."""
    assert_each_answered_once(seen_in(tmp_path, "restart"))
    assert (tmp_path / "spool" / "spool.sqlite").exists()


@pytest.mark.timeout(300)
def test_500_durable_frames_survive_kill_9_of_router_and_spool(tmp_path):
    """Callers go on as if nothing had happened: their calls are made again with the same frame ids."""
    assert_each_answered_once(seen_in(tmp_path, "kills"))


@pytest.mark.timeout(300)
def test_500_durable_frames_survive_a_restart_with_redis(tmp_path, redis_address):
    """The next spool takes over the leases of the one before."""
    assert_each_answered_once(seen_in(tmp_path, "restart", redis_address))
    assert not (tmp_path / "spool").exists()


@pytest.mark.timeout(300)
def test_without_its_redis_a_service_refuses_durable_frames_only_and_takes_them_when_it_comes(tmp_path, redis_port):
    """Away at the start and again in service: the refusal names it, other cameras go on, nothing taken is lost."""
    seen = seen_in(tmp_path, redis_port, script=AWAY_DRILL)
    for when in ("at_start", "in_service"):
        assert seen[when]["other_camera"] == "finished"
        assert seen[when]["told"].startswith("ServiceUnavailableError: ")
        assert f"127.0.0.1:{redis_port}" in seen[when]["told"]
    assert (seen["first"], seen["second"], seen["first_again"]) == ("finished", "finished", "finished")
