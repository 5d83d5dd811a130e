"""From what replicas report of their devices: the memory level of each pool, and which replica may take how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from serve_app.memory_level import DeviceMemory, MemoryLevel, MemoryMarks
from serve_app.replica_credits import MAX_CREDITS_PER_REPLICA
from serve_app.results import ReplicaReport

# Ray's memory monitor ends workers when 95 % of a machine, or of its container, are in use. So that all levels come
# before that, marks of CPU replicas are shares of this much of it. https://docs.ray.io, "Out-of-memory prevention"
CPU_USABLE_FRACTION = 0.95
# A replica that was not counted for so long has gone, and its device's level with it.
FORGET_S = 60.0
# What a replica may hold of noncritical batches while its device is above its pool's level: where memory is high it
# serves on, one batch at a time and nothing staged; where it is nearly full it is there for critical frames only.
OTHERS_ABOVE = {MemoryLevel.HIGH: 1, MemoryLevel.CRITICAL: 0, MemoryLevel.SHED: 0}

# (node, UUID) of a GPU, which replicas of several pools may share; (node, replica) of a CPU.
_DeviceKey = tuple[str, str]


class MemoryGauge:
    """The devices of all pools.

    A pool's level is the lowest among its replicas: as long as one device has room, normal frames go there as they are.
    Replicas above it get less of them, see `limits`. So one full device costs its pool that device, and no rung.
    A replica that cannot run one of its buckets for want of memory counts only where no other of its pool can.
    """

    def __init__(self, marks: MemoryMarks) -> None:
        """Take the plan's marks; nothing has been reported."""
        self._marks = marks
        self._devices: dict[_DeviceKey, DeviceMemory] = {}
        self._seen_s: dict[_DeviceKey, float] = {}
        # By pool: what each replica runs on, and which of them lack memory for a bucket.
        self._replicas: dict[str, dict[str, _DeviceKey]] = {}
        self._broken: dict[str, frozenset[str]] = {}

    def reported(self, pool: str, reports: Iterable[ReplicaReport], now_s: float) -> MemoryLevel:
        """The replicas of a pool that are ready said this; returns the pool's level."""
        reports = tuple(reports)
        self._replicas[pool] = {report.replica: _key(report) for report in reports}
        self._broken[pool] = frozenset(report.replica for report in reports if report.broken)
        for report in reports:
            key = _key(report)
            device = self._devices.get(key)
            if device is None:
                device = self._devices[key] = DeviceMemory(self._marks)
            device.looked(_used_fraction(report), now_s)
            self._seen_s[key] = now_s
        self._forget_gone(now_s)
        return self.level(pool)

    def broke(self, pool: str, replica: str) -> bool:
        """A replica has no memory for the smallest batch of a bucket; whether another of its pool still has."""
        self._broken[pool] = self._broken.get(pool, frozenset()) | {replica}
        return bool(set(self._replicas.get(pool, ())) - self._broken[pool])

    def level(self, pool: str) -> MemoryLevel:
        """The lowest level of the devices that serve a pool; normal where there are none."""
        return min((self._level_of(key) for key in self._serving(pool).values()), default=MemoryLevel.NORMAL)

    def limits(self, pool: str) -> Mapping[str, int]:
        """The replicas of a pool that take batches, and how many noncritical ones each may hold."""
        level = self.level(pool)
        return {
            replica: MAX_CREDITS_PER_REPLICA if self._level_of(key) <= level else OTHERS_ABOVE[self._level_of(key)]
            for replica, key in self._serving(pool).items()
        }

    def fullest(self, pool: str) -> str:
        """In words: the device of a pool of which the largest share is in use."""
        used = {
            replica: fraction
            for replica, key in self._replicas.get(pool, {}).items()
            if (fraction := self._devices[key].used_fraction) is not None
        }
        if not used:
            return "no device says what it uses"
        replica = max(used, key=lambda name: used[name])
        return f"replica {replica}: {used[replica]:.0%} of its device's memory"

    def _forget_gone(self, now_s: float) -> None:
        here = {key for replicas in self._replicas.values() for key in replicas.values()}
        gone = [key for key, seen_s in self._seen_s.items() if now_s - seen_s > FORGET_S and key not in here]
        for key in gone:
            del self._devices[key], self._seen_s[key]

    def _serving(self, pool: str) -> Mapping[str, _DeviceKey]:
        replicas = self._replicas.get(pool, {})
        broken = self._broken.get(pool, frozenset())
        return {name: key for name, key in replicas.items() if name not in broken} or replicas

    def _level_of(self, key: _DeviceKey) -> MemoryLevel:
        return self._devices[key].level


def _key(report: ReplicaReport) -> _DeviceKey:
    return report.node, report.device.uuid or report.replica


def _used_fraction(report: ReplicaReport) -> float | None:
    """Share of what may be used of a replica's device; None: it does not say."""
    used_bytes, total_bytes = report.device.used_bytes, report.device.total_bytes
    if used_bytes is None or not total_bytes:
        return None
    return used_bytes / (total_bytes if report.device.uuid else CPU_USABLE_FRACTION * total_bytes)
