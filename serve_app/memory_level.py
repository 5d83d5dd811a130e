"""How full the memory of a device is, as a level that does not flap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from serve_app.errors import InvalidPlanError

# Below the mark of its level by this share of the device a level is on its way down: memory that swings by less, as
# buffers come and go (1.6 GB of 80), holds one level.
MARGIN_FRACTION = 0.02


class MemoryLevel(IntEnum):
    """How full the memory of a device, or of a pool's devices, is."""

    NORMAL = 0
    HIGH = 1
    """Normal frames go at least one rung down."""
    CRITICAL = 2
    """Normal frames go to the last rung, deferred ones wait."""
    SHED = 3
    """Normal frames are rejected."""


@dataclass(frozen=True, slots=True)
class MemoryMarks:
    """Shares of a device's memory from which on a level holds.

    Attributes:
        high, critical, shed: where each level begins; see `MemoryLevel`.
        calm_s: for how long less must be used before a lower level holds again.
    """

    high: float = 0.85
    critical: float = 0.92
    shed: float = 0.97
    calm_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.high < self.critical < self.shed:
            raise InvalidPlanError(
                f"memory: got high {self.high:g}, critical {self.critical:g}, shed {self.shed:g}; allowed are shares "
                "that grow in this order"
            )

    def begin_of(self, level: MemoryLevel) -> float:
        """The share from which on a level holds."""
        return (-math.inf, self.high, self.critical, self.shed)[level]

    def level_of(self, used_fraction: float) -> MemoryLevel:
        """The highest level whose mark is reached."""
        return max(level for level in MemoryLevel if used_fraction >= self.begin_of(level))


class DeviceMemory:
    """The level of one device.

    Algorithm: up at once, to the level of the highest mark that is reached. Down one level when, for `calm_s` without a
    break, less was used than the level's mark less `MARGIN_FRACTION`; then the calm begins anew. A device that does not
    say how much is used counts as calm: nothing is known against it.
    Bound: at most one level down a look. Liveness: `calm_s` of calm for each level leads back to normal.

    Attributes:
        level: as of the last look.
        used_fraction: share in use at the last look; None: the device did not say.
    """

    def __init__(self, marks: MemoryMarks) -> None:
        """Take the marks; the level is normal until somebody has looked."""
        self._marks = marks
        self._calm_since_s: float | None = None
        self.level = MemoryLevel.NORMAL
        self.used_fraction: float | None = None

    def looked(self, used_fraction: float | None, now_s: float) -> MemoryLevel:
        """So much was in use when it was looked at; looks come in the order of time."""
        self.used_fraction = used_fraction
        used = -math.inf if used_fraction is None else used_fraction
        wanted = self._marks.level_of(used)
        if wanted > self.level:
            self.level, self._calm_since_s = wanted, None
        elif not self._is_calm(used):
            self._calm_since_s = None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        elif now_s - self._calm_since_s >= self._marks.calm_s:
            self.level = MemoryLevel(self.level - 1)
            self._calm_since_s = now_s if self._is_calm(used) else None
        return self.level

    def _is_calm(self, used: float) -> bool:
        """Whether so little is in use that the level is on its way down."""
        return self.level > MemoryLevel.NORMAL and used < self._marks.begin_of(self.level) - MARGIN_FRACTION
