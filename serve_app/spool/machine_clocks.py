"""The clocks of this machine."""

from __future__ import annotations

import time
from pathlib import Path

from serve_app.spool.spool_clock import ClockReading

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_clocks() -> ClockReading:
    """What they say now; see proc_sys_kernel(5) and clock_gettime(2)."""
    try:
        boot_id = _BOOT_ID.read_text().strip()
        boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):  # no Linux
        boot_id, boot_s = "", 0.0
    return ClockReading(time.time(), time.monotonic(), boot_id, boot_s)
