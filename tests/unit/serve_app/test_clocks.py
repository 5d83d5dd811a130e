"""Durations come from a clock that cannot be set: the wall clock of a machine jumps, and nothing may notice."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest
from router_world import brief, found, play, with_replica
from serve_samples import sample_meta, sample_plan

import engines
import serve_app
from serve_app.ticket_desk import TicketDesk

pytestmark = pytest.mark.usefixtures("driven_by_hand")

# Names that tell the time of day, by module.
WALL = {"time": {"time", "time_ns", "ctime", "localtime", "gmtime", "strftime"}, "datetime": {"now", "today", "utcnow"}}
# Where the time of day is meant: numbers that must be beyond those of an earlier process (cursors, revisions), the
# name of a file, and the age of frames over a restart of the machine, which `spool_clock.py` guards.
ALLOWED = {
    ("router.py", "time_ns"), ("revision.py", "time_ns"), ("sqlite_spool.py", "time_ns"),
    ("sqlite_file.py", "datetime"), ("sqlite_file.py", "now"), ("machine_clocks.py", "time"),
}  # fmt: skip
PACKAGES = [Path(package.__file__).parent for package in (engines, serve_app)]


def wall_clock_reads(source: str) -> set[str]:
    """Functions that read the wall clock, by the names under which a module calls or imports them."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in set().union(*WALL.values()):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr in WALL.get(owner, ()):
                found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module in WALL:
            names = WALL[node.module] | ({"datetime", "date"} if node.module == "datetime" else set())
            found |= {alias.name for alias in node.names} & names
    return found


@pytest.mark.parametrize(
    "source",
    ["import time\ntime.time()", "from time import time", "import datetime\ndatetime.datetime.now()",
     "from datetime import datetime\ndatetime.now()", "import time\nclock = time.time_ns"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source):
    """Else the next test proves nothing."""
    assert wall_clock_reads(source)
    assert not wall_clock_reads("import time\ntime.monotonic()\nframe.time")


def test_nothing_reads_the_wall_clock_for_a_duration():
    """In both packages."""
    reads = {
        (path.name, name)
        for package in PACKAGES
        for path in package.rglob("*.py")
        for name in wall_clock_reads(path.read_text(encoding="utf-8"))
    }
    assert reads == ALLOWED


def test_frames_are_served_while_the_wall_clock_jumps(monkeypatch):
    """A day forth and back at every look: no frame expires, no batch is overdue, no ticket is forgotten."""
    jumps = iter(range(10**9))
    wall_s = time.time()
    monkeypatch.setattr(time, "time", lambda: wall_s + 86_400 * (-1) ** next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))

    async def scenario(world):
        await with_replica(world)
        for number in range(20):
            caller = world.submit(sample_meta(f"f{number}", slo_s=20.0))
            (await world.near.next_call()).answer(found(0.1))
            assert brief(await caller) == [(f"f{number}", "finished", 0.1)]
            world.near.has_replicas(1)
            await world.settle()
        assert (await world.router.status()).outcomes == {"finished": 20}
        assert (await world.router.status()).pools[0].unhealthy == {}
        assert 0 <= (await world.router.status()).uptime_s < 60
        assert isinstance(world.router._desk, TicketDesk)

    play(scenario, sample_plan())
