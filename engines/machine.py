"""The name of the machine that times are measured on: a table of seconds holds on no other."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine_name() -> str:
    """The CPU's model and how many cores this process may use, such as `Intel Xeon Platinum, 2 cores`."""
    return f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores"


def _cpu_model() -> str:
    """What Linux says of the first CPU; the architecture where it says nothing, as on ARM."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join((models or [platform.machine()])[0].split())
