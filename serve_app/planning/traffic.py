"""What a fleet sends: frame sizes with their rates, priorities and deadlines. Values only, no file is read here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from serve_app.frames import Priority

SizeHw = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SizeRate:
    """Frames of one size that come at one rate.

    Attributes:
        size_hw: (height, width) in px.
        rate_hz: frames a second, above 0.
        priority: `critical` or `normal`.
        slo_s: seconds until such a frame must be done; None: the plan's default for its priority.
        camera: who sends them; None: not known, or several.
    """

    size_hw: SizeHw
    rate_hz: float
    priority: Priority = Priority.NORMAL
    slo_s: float | None = None
    camera: str | None = None

    @property
    def num_px(self) -> int:
        """Pixels of one frame."""
        return self.size_hw[0] * self.size_hw[1]


Traffic = tuple[SizeRate, ...]


def merged(traffic: Iterable[SizeRate]) -> Traffic:
    """One entry for each size, priority, deadline and camera, in ascending order of pixels."""
    rates_hz: dict[tuple[SizeHw, Priority, float | None, str | None], float] = {}
    for entry in traffic:
        key = (entry.size_hw, entry.priority, entry.slo_s, entry.camera)
        rates_hz[key] = rates_hz.get(key, 0.0) + entry.rate_hz
    entries = [
        SizeRate(size, rate_hz, rank, slo_s, camera) for (size, rank, slo_s, camera), rate_hz in rates_hz.items()
    ]
    return tuple(
        sorted(entries, key=lambda e: (e.num_px, e.size_hw, e.priority.rank, e.slo_s or 0.0, e.camera or ""))
    )  # fmt: skip


def rate_by_size(traffic: Iterable[SizeRate]) -> dict[SizeHw, float]:
    """Frames a second of each size, in ascending order of pixels."""
    rates_hz: dict[SizeHw, float] = {}
    for entry in traffic:
        rates_hz[entry.size_hw] = rates_hz.get(entry.size_hw, 0.0) + entry.rate_hz
    return dict(sorted(rates_hz.items(), key=lambda item: (item[0][0] * item[0][1], item[0])))


def total_rate_hz(traffic: Iterable[SizeRate]) -> float:
    """Frames a second of all sizes."""
    return sum(entry.rate_hz for entry in traffic)


def total_px_hz(traffic: Iterable[SizeRate]) -> float:
    """Pixels a second of all sizes."""
    return sum(entry.rate_hz * entry.num_px for entry in traffic)


def deadline_s(entry: SizeRate, slo_s: Mapping[Priority, float]) -> float:
    """Seconds until a frame of this entry must be done."""
    return slo_s[entry.priority] if entry.slo_s is None else entry.slo_s


def histogram_distance(one: Iterable[SizeRate], other: Iterable[SizeRate]) -> float:
    """Total variation distance of two size histograms: the share of frames that changed size, in 0..1."""
    first, second = rate_by_size(one), rate_by_size(other)
    first_hz, second_hz = sum(first.values()), sum(second.values())
    sizes = first.keys() | second.keys()
    return sum(abs(first.get(size, 0.0) / first_hz - second.get(size, 0.0) / second_hz) for size in sizes) / 2
