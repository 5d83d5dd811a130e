"""Memory of this process against what it may have."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from engines.process_memory import process_memory

MACHINE_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_touched_memory_is_counted():
    """64 MiB that were written to are resident."""
    before = process_memory().used_bytes
    block = np.ones(64 * 2**20, np.uint8)
    assert process_memory().used_bytes - before > 32 * 2**20
    assert block[-1] == 1


def test_used_is_less_than_total():
    """Both are bytes of the same machine."""
    memory = process_memory()
    assert 0 < memory.used_bytes < memory.total_bytes <= MACHINE_BYTES


def test_the_smallest_limit_is_the_total():
    """A process must not count on memory that it will not get; control groups have tests of their own."""
    code = """
import resource
from engines.process_memory import process_memory
resource.setrlimit(resource.RLIMIT_AS, (2**31, resource.RLIM_INFINITY))
assert process_memory().total_bytes == 2**31, process_memory()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
