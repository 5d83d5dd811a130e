"""How many replicas a pool should have: by the device seconds that wait for it, and that come a second."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """When pools grow and shrink.

    Attributes:
        max_wait_s: what waits for a pool should be done within so long.
        utilisation: share of its time that a replica should be busy with what comes.
        up_after_s: for how long more replicas must be wanted before a pool grows.
        down_after_s: for how long fewer must be wanted before it shrinks.
    """

    max_wait_s: float = 0.5
    utilisation: float = 0.8
    up_after_s: float = 1.0
    down_after_s: float = 60.0
