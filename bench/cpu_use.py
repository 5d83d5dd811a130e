"""CPU seconds by role of a process and all its descendants, from /proc; Linux only.

Ray starts its daemons and workers below the process that calls `ray.init`; one that was orphaned is still known by the
session's name in its command line.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ENGINE, OTHER = "engine", "other"
# What a command line says of its process; the first that matches counts.
ROLE_PATTERNS = (
    (ENGINE, re.compile(r"ray::ServeReplica:[^:]+:engine-")),
    ("router", re.compile(r"ray::ServeReplica:[^:]+:router")),
    ("replica", re.compile(r"ray::ServeReplica:")),
    ("controller", re.compile(r"ray::ServeController")),
    ("gcs_server", re.compile(r"gcs_server(\s|$)")),
    ("raylet", re.compile(r"raylet/raylet(\s|$)")),
    ("client", re.compile(r"overload_client\.py")),
    ("host", re.compile(r"overload\.py")),
)
# proc(5): after the name in brackets, fields count from 3, the state.
PARENT, USER_TICKS, SYSTEM_TICKS, STARTED_TICKS = 4 - 3, 14 - 3, 15 - 3, 22 - 3


@dataclass(frozen=True, slots=True)
class ProcessCpu:
    """One process at one moment.

    Attributes:
        parent_pid: who started it, or adopted it.
        started_ticks: when it began; tells it from a later process of the same id.
        command: its command line.
        cpu_s: seconds of CPU it has used since it began.
    """

    parent_pid: int
    started_ticks: int
    command: str
    cpu_s: float


Snapshot = Mapping[int, ProcessCpu]


def snapshot(root_pid: int, session: str) -> Snapshot:
    """The root, all its descendants, and every process of this Ray session, by process id."""
    found = {int(path.name): process for path in Path("/proc").iterdir() if (process := _read(path)) is not None}
    children = defaultdict(list)
    for pid, process in found.items():
        children[process.parent_pid].append(pid)
    wanted: set[int] = set()
    to_visit = [root_pid, *(pid for pid, process in found.items() if session in process.command)]
    while to_visit:
        pid = to_visit.pop()
        if pid in found and pid not in wanted:
            wanted.add(pid)
            to_visit += children[pid]
    return {pid: found[pid] for pid in wanted}


def cpu_between(before: Snapshot, after: Snapshot) -> dict[str, float]:
    """CPU seconds by role from one snapshot to the next; a process that ended in between is not in it."""
    used_s: defaultdict[str, float] = defaultdict(float)
    for pid, process in after.items():
        earlier = before.get(pid)
        is_same = earlier is not None and earlier.started_ticks == process.started_ticks
        used_s[role_of(process.command)] += process.cpu_s - (earlier.cpu_s if earlier and is_same else 0.0)
    return dict(used_s)


def machine_busy_s() -> float:
    """CPU seconds that were used on this machine since it started, by anyone, and those that a hypervisor withheld."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )  # fmt: skip
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def role_of(command: str) -> str:
    """What a process of this command line is to the service."""
    return next((role for role, pattern in ROLE_PATTERNS if pattern.search(command)), OTHER)


def _read(folder: Path) -> ProcessCpu | None:
    """The process of this folder of /proc; None if it is none, or gone."""
    if not folder.name.isdigit():
        return None
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    ticks = int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])
    return ProcessCpu(int(fields[PARENT]), int(fields[STARTED_TICKS]), command, ticks / os.sysconf("SC_CLK_TCK"))
