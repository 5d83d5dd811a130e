"""The traffic of `overload.py`: which camera sends a frame of which size when, how urgent, at any load.

Values only: knows no service, no engine and no clock.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

CRITICAL, NORMAL = "critical", "normal"
# What a safety stop allows, and what people call "live".
CRITICAL_SLO_S, NORMAL_SLO_S = 0.25, 1.0
# A full-HD frame alone takes a third of a second of two cores: its camera documents, it stops nothing.
LARGE_SLO_S = 5.0
CRITICAL_FRACTION = 0.15
# In these many seconds at its nominal rate every camera sends a whole number of frames.
CYCLE_S = 2.0


@dataclass(frozen=True, slots=True)
class CameraKind:
    """Cameras of one kind.

    Attributes:
        name: what their names begin with.
        num_cameras: how many of them.
        size_hw: (height, width) px of their frames.
        rate_hz: frames a second of each, before the fleet is scaled to a load.
        slo_s: seconds in which their normal frames must be answered.
        critical_fraction: share of their frames that is critical.
    """

    name: str
    num_cameras: int
    size_hw: tuple[int, int]
    rate_hz: float
    slo_s: float = NORMAL_SLO_S
    critical_fraction: float = CRITICAL_FRACTION

    @property
    def cameras(self) -> tuple[str, ...]:
        """The names of its cameras."""
        return tuple(f"{self.name}-{number}" for number in range(1, self.num_cameras + 1))


FLEET = (
    CameraKind("small", 4, (240, 320), 5.0),
    CameraKind("medium", 3, (360, 640), 3.0),
    CameraKind("wide", 2, (540, 960), 2.0),
    CameraKind("tall", 1, (540, 405), 2.0),
    CameraKind("large", 1, (1080, 1920), 0.5, LARGE_SLO_S, critical_fraction=0.0),
)
SIZES_HW = tuple(kind.size_hw for kind in FLEET)


@dataclass(frozen=True, slots=True)
class Send:
    """One frame that is due.

    Attributes:
        at_s: when, in seconds from the trace's begin; the deadline is `at_s + slo_s`, however late it is sent.
        camera: who sends it.
        size_hw: (height, width) in px.
        priority: `critical` or `normal`.
        slo_s: seconds in which it must be answered.
    """

    at_s: float
    camera: str
    size_hw: tuple[int, int]
    priority: str
    slo_s: float


def trace(load: float, capacity_hz: float, seconds: float, seed: int) -> list[Send]:
    """What the fleet sends in `seconds`, ordered by time; the same arguments give the same trace.

    All rates are scaled by one factor, so that the mix stays. Each camera sends evenly, from a phase of its own; which
    of its frames are critical does not depend on the load.

    Args:
        load: offered frames a second, as a multiple of `capacity_hz`.
        capacity_hz: frames a second of this mix that the bare engine can do.
        seconds: how long; a frame is due before its end.
        seed: of the phases and of which frames are critical.
    """
    factor = load * capacity_hz / sum(kind.num_cameras * kind.rate_hz for kind in FLEET)
    sends: list[Send] = []
    for kind in FLEET:
        for camera in kind.cameras:
            rng = random.Random(f"{seed} {camera}")  # noqa: S311 (traffic, no secrets)
            interval_s = 1 / (kind.rate_hz * factor)
            first_s = rng.random() * interval_s
            num_sends = max(0, math.ceil((seconds - first_s) / interval_s))
            sends += [_send(kind, camera, first_s + index * interval_s, rng) for index in range(num_sends)]
    return sorted(sends, key=lambda send: (send.at_s, send.camera))


def mix_cycle() -> list[tuple[int, int]]:
    """The frame sizes (height, width) of one cycle: each as often as the fleet sends it, evenly interleaved."""
    places: list[tuple[float, tuple[int, int]]] = []
    for kind in FLEET:
        num_frames = round(kind.num_cameras * kind.rate_hz * CYCLE_S)
        places += [((index + 0.5) / num_frames, kind.size_hw) for index in range(num_frames)]
    return [size_hw for _, size_hw in sorted(places)]


def _send(kind: CameraKind, camera: str, at_s: float, rng: random.Random) -> Send:
    critical = rng.random() < kind.critical_fraction
    return Send(
        at_s, camera, kind.size_hw, CRITICAL if critical else NORMAL, CRITICAL_SLO_S if critical else kind.slo_s
    )  # fmt: skip
