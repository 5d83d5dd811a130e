"""Memory of this process against what it may have: the CPU's counterpart of what an engine holds on a GPU (Linux)."""

from __future__ import annotations

from engines.base import EngineMemory
from engines.memory_bounds import memory_bounds, resident_bytes


def process_memory() -> EngineMemory:
    """Resident bytes of this process, and the smallest of the limits that bind it."""
    return EngineMemory(resident_bytes(), min(bound.total_bytes for bound in memory_bounds()))
