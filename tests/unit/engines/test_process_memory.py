"""Memory of this process against what it may have."""

from __future__ import annotations

import os

import numpy as np
import pytest

from engines import process_memory as module
from engines.process_memory import process_memory

MACHINE_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def limit_file(tmp_path, monkeypatch):
    """The only file that limits are read from; it does not exist yet."""
    path = tmp_path / "memory.max"
    monkeypatch.setattr(module, "_LIMIT_FILES", (path,))
    return path


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


def test_without_a_limit_file_the_machine_is_the_limit(limit_file):
    """Not every machine has cgroups."""
    assert not limit_file.exists()
    assert process_memory().total_bytes == MACHINE_BYTES


@pytest.mark.parametrize(
    ("text", "total_bytes"),
    [
        pytest.param("1073741824\n", 2**30, id="limited"),
        pytest.param("max\n", MACHINE_BYTES, id="v2-unlimited"),
        pytest.param("9223372036854771712\n", MACHINE_BYTES, id="v1-unlimited"),
        pytest.param("\n", MACHINE_BYTES, id="empty"),
    ],
)
def test_the_smaller_of_machine_and_cgroup_is_the_limit(limit_file, text, total_bytes):
    """A container must not count on memory that it will be killed for."""
    limit_file.write_text(text)
    assert process_memory().total_bytes == total_bytes
