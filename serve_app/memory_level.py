"""How full the memory of a device is, as a level that does not flap."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.errors import InvalidPlanError


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
