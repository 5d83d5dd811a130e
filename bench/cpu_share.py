"""Holds processes to a share of one core each, whatever else the machine does; Linux only.

A process runs until it has used its share of a period, by the kernel's own count, then it is stopped (SIGSTOP) until
the period is over. So what it can do in a second does not depend on who else wants the cores, while these suffice.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Event

# Long against a scheduler's slice, short against a frame's deadline.
PERIOD_S = 0.05
LOOK_S = 0.001
# `clock_getcpuclockid(3)`: the clock of the CPU time of a whole process is made of its id and this.
CPU_CLOCK_SCHEDULED = 2


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used; raises `OSError` when it has gone."""
    return time.clock_gettime((~pid << 3) | CPU_CLOCK_SCHEDULED)


@contextmanager
def held_to(share: float, pids: Sequence[int]) -> Iterator[None]:
    """Hold these processes to so much of a core each, by a process of its own, until the block ends."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    governor = context.Process(target=_govern, args=(share, tuple(pids), stop), daemon=True)
    governor.start()
    try:
        yield
    finally:
        stop.set()
        governor.join()
        for pid in pids:
            _send(pid, signal.SIGCONT)


def _govern(share: float, pids: tuple[int, ...], stop: Event) -> None:
    while not stop.is_set():
        ends_s = time.monotonic() + PERIOD_S
        left_s = dict.fromkeys(pids, share * PERIOD_S)
        used_s = {pid: _used_s(pid) for pid in pids}
        for pid in pids:
            _send(pid, signal.SIGCONT)
        running = set(pids)
        while (now_s := time.monotonic()) < ends_s:
            for pid in list(running):
                if _used_s(pid) - used_s[pid] >= left_s[pid]:
                    _send(pid, signal.SIGSTOP)
                    running.discard(pid)
            time.sleep(min(LOOK_S, max(0.0, ends_s - now_s)))
    for pid in pids:
        _send(pid, signal.SIGCONT)


def _used_s(pid: int) -> float:
    """As `cpu_s`; of a process that has gone, none."""
    try:
        return cpu_s(pid)
    except OSError:
        return 0.0


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
