"""The CPU as a device: memory against the limit that will be met first, what the kernel holds back (Linux)."""

from __future__ import annotations

from pathlib import Path

from engines.device_facts import DeviceFacts, ThrottleReason
from engines.machine import machine_name
from engines.memory_bounds import tightest_bound

# Counters that grow while a core is too warm: Documentation/admin-guide/thermal of the kernel, x86 only.
_CORES = Path("/sys/devices/system/cpu")
_CORE_COUNTERS = "cpu*/thermal_throttle/core_throttle_count"
# cgroup v2, then v1; `nr_throttled` counts the periods in which the CPU quota ran out.
_QUOTA_FILES = (Path("/sys/fs/cgroup/cpu.stat"), Path("/sys/fs/cgroup/cpu/cpu.stat"))
_ZONES = Path("/sys/class/thermal")
# Names of the zone that is the CPU's package: Intel, AMD, ARM boards.
_CPU_ZONES = frozenset({"x86_pkg_temp", "k10temp", "cpu-thermal", "cpu_thermal"})


class CpuDevice:
    """Counterpart of a GPU for engines on the CPU.

    Memory is what counts towards the limit of which the largest share is used (the machine's, a control group's, this
    process's address space), whoever uses it: the kernel kills by that, and not by what this process holds. What the
    kernel counts up, it counts for ever: a reason to be slow is one whose counter has grown since the last look, so the
    first look gives none. Files that this machine has not make a field None.
    """

    def __init__(self) -> None:
        """Looks at the counters when it is first asked."""
        self._counts: dict[ThrottleReason, int] = {}

    def facts(self) -> DeviceFacts:
        """Look now."""
        memory = tightest_bound()
        return DeviceFacts(
            name=machine_name(),
            index=None,
            uuid=None,
            compute_capability=None,
            total_bytes=memory.total_bytes,
            used_bytes=memory.used_bytes,
            free_bytes=max(0, memory.total_bytes - memory.used_bytes),
            utilisation_fraction=None,
            temperature_c=_temperature_c(),
            throttle_reasons=self._throttle_reasons(),
            ecc_uncorrected=None,
        )

    def close(self) -> None:
        """Nothing is held."""

    def _throttle_reasons(self) -> tuple[ThrottleReason, ...] | None:
        counts = _throttle_counts()
        grown = tuple(reason for reason, count in counts.items() if count > self._counts.get(reason, count))
        self._counts = counts
        return grown if counts else None


def _throttle_counts() -> dict[ThrottleReason, int]:
    """What the kernel has counted so far; a reason that it does not count here is missing."""
    counts: dict[ThrottleReason, int] = {}
    of_cores = [number for path in _CORES.glob(_CORE_COUNTERS) if (number := _number(_read(path))) is not None]
    if of_cores:
        counts[ThrottleReason.CPU_THERMAL] = sum(of_cores)
    for path in _QUOTA_FILES:
        fields = dict(line.split(maxsplit=1) for line in _read(path).splitlines() if " " in line)
        periods = _number(fields.get("nr_throttled", ""))
        if periods is not None:
            counts[ThrottleReason.CPU_QUOTA] = periods
            break
    return counts


def _temperature_c() -> float | None:
    """Of the warmest CPU package; the kernel writes thousandths of a degree."""
    found = []
    for zone in _ZONES.glob("thermal_zone*"):
        if _read(zone / "type").strip() in _CPU_ZONES:
            milli_c = _number(_read(zone / "temp"))
            if milli_c is not None:
                found.append(milli_c / 1000)
    return max(found, default=None)


def _read(path: Path) -> str:
    """A kernel file's text; empty where it is not there or not ours to read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if text.strip().lstrip("-").isdigit() else None
