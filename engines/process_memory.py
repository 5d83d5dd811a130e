"""Memory of this process against what it may have: the CPU's counterpart of a GPU's memory figures (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

from engines.base import EngineMemory

# cgroup v2, then v1: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
_LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def process_memory() -> EngineMemory:
    """Resident bytes of this process, and the smaller of the machine's memory and the cgroup's limit."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    total_bytes = os.sysconf("SC_PHYS_PAGES") * page_bytes
    for path in _LIMIT_FILES:
        text = path.read_text().strip() if path.exists() else "max"
        if text.isdigit():
            total_bytes = min(total_bytes, int(text))
    return EngineMemory(used_bytes=resident_pages * page_bytes, total_bytes=total_bytes)
