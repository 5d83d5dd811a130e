"""Traces: which camera sends a frame of which size when, how urgent; from synthetic fleets, at any load.

Values only: reads no file and no clock. Columns instead of objects, because three million frames are a usual trace.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from serve_app.errors import InvalidPlanError
from serve_app.planning.traffic import SizeHw

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

# What a camera's clock and network shift a frame, as a share of the time between two of them.
DEFAULT_JITTER_FRACTION = 0.02
DEFAULT_SECONDS = 60.0
DAY_S = 86_400.0
# Rates that change are taken as constant within one of so many steps of the trace.
NUM_RATE_STEPS = 4096
# More frames than memory holds are a slip of the pen: this many take 4 GB.
MAX_FRAMES = 50_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Frames in the order in which they reach the router; one row of every column a frame.

    Attributes:
        at_s: `(N,)` seconds from the begin, ascending.
        camera: `(N,)` index into `cameras`.
        size: `(N,)` index into `sizes_hw`.
        is_critical: `(N,)`.
        slo_s: `(N,)` seconds until it must be done; NaN: the plan's default for its priority.
        cameras: their names.
        sizes_hw: (height, width) in px.
        duration_s: how long the cameras sent.
    """

    at_s: Floats
    camera: Ids
    size: Ids
    is_critical: Flags
    slo_s: Floats
    cameras: tuple[str, ...]
    sizes_hw: tuple[SizeHw, ...]
    duration_s: float

    def __post_init__(self) -> None:
        lengths = {len(column) for column in (self.at_s, self.camera, self.size, self.is_critical, self.slo_s)}
        if len(lengths) != 1:
            raise InvalidPlanError(f"trace: got columns of {sorted(lengths)} rows, allowed is one length for all")
        if not len(self.at_s):
            raise InvalidPlanError("trace: got no frames, allowed is one or more; give a longer one or a higher load")
        self._check_order()
        if min(min(size) for size in self.sizes_hw) < 1:
            raise InvalidPlanError(f"trace: got sizes {self.sizes_hw}, allowed are sides of 1 px or more")
        wrong = np.flatnonzero(~(np.isnan(self.slo_s) | (self.slo_s > 0)))
        if len(wrong):
            raise InvalidPlanError(
                f"trace, frame {wrong[0] + 1}: slo_s: got {self.slo_s[wrong[0]]:g}, allowed are seconds above 0; "
                "leave it out for the plan's default"
            )

    def __len__(self) -> int:
        return len(self.at_s)

    @property
    def rate_hz(self) -> float:
        """Frames a second, on average."""
        return len(self) / self.duration_s

    def at_load(self, load: float) -> Trace:
        """The same frames at `load` times the rate: time runs faster, deadlines stay."""
        _check_load(load)
        if load == 1:
            return self
        return dataclasses.replace(self, at_s=self.at_s / load, duration_s=self.duration_s / load)

    def _check_order(self) -> None:
        if not np.isfinite(self.at_s).all() or self.at_s[0] < 0 or not 0 < self.duration_s < np.inf:
            raise InvalidPlanError(
                f"trace: got a first frame at {self.at_s[0]:g} s and a duration of {self.duration_s:g} s, allowed are "
                "times of 0 or more and a duration above 0"
            )
        wrong = np.flatnonzero(np.diff(self.at_s) < 0)
        if len(wrong):
            before_s, after_s = self.at_s[wrong[0] : wrong[0] + 2]
            raise InvalidPlanError(
                f"trace, frame {wrong[0] + 2}: out of order: got {after_s:.6f} s after {before_s:.6f} s, allowed are "
                "times that never fall; sort the trace by time"
            )


class TraceSource(Protocol):
    """Something that gives a trace at any load: a recorded `Trace`, or a `FleetSpec` that draws one."""

    def at_load(self, load: float) -> Trace:
        """The trace at `load` times its own rate; the same argument gives the same trace."""


@dataclass(frozen=True, slots=True)
class Bursts:
    """All cameras of a group send faster for a while, together, again and again.

    Attributes:
        every_s: from the begin of one burst to that of the next.
        length_s: how long one lasts.
        factor: by how much the rate is multiplied meanwhile.
    """

    every_s: float
    length_s: float
    factor: float

    def __post_init__(self) -> None:
        if not 0 < self.length_s < self.every_s < np.inf or not 0 <= self.factor < np.inf:
            raise InvalidPlanError(
                f"burst: got {self.length_s:g} s every {self.every_s:g} s, factor {self.factor:g}, allowed are bursts "
                "shorter than the time from one to the next and a factor of 0 or more"
            )


@dataclass(frozen=True, slots=True)
class CameraGroup:
    """Cameras of one kind.

    Attributes:
        name: what their names begin with; `-1`, `-2` … follow.
        num_cameras: how many.
        size_hw: (height, width) in px.
        rate_hz: frames a second of each.
        critical_share: share of their frames that is critical, drawn frame by frame.
        critical_slo_s, normal_slo_s: seconds until a frame must be done; None: the plan's default.
        bursts: None: an even rate.
    """

    name: str
    num_cameras: int
    size_hw: SizeHw
    rate_hz: float
    critical_share: float = 0.0
    critical_slo_s: float | None = None
    normal_slo_s: float | None = None
    bursts: Bursts | None = None

    def __post_init__(self) -> None:
        for what, value, is_right, allowed in (
            ("count", self.num_cameras, self.num_cameras >= 1, "1 or more"),
            ("size", self.size_hw, min(self.size_hw) >= 1, "(height, width) of 1 px or more"),
            ("fps", self.rate_hz, 0 < self.rate_hz < np.inf, "a number above 0; leave out what is off"),
            ("critical_share", self.critical_share, 0 <= self.critical_share <= 1, "0 to 1"),
            ("slo_s.critical", self.critical_slo_s, self.critical_slo_s is None or self.critical_slo_s > 0, "above 0"),
            ("slo_s.normal", self.normal_slo_s, self.normal_slo_s is None or self.normal_slo_s > 0, "above 0"),
        ):
            if not is_right:
                raise InvalidPlanError(f"fleet {self.name}: {what}: got {value}, allowed is {allowed}")


@dataclass(frozen=True, slots=True)
class DayCurve:
    """How the rate of the whole fleet changes over a day, and how long that day lasts in the trace.

    Attributes:
        factors: at equal steps from midnight to midnight, linear between them.
        length_s: the day is pressed into so many seconds.
    """

    factors: tuple[float, ...]
    length_s: float = DAY_S

    def __post_init__(self) -> None:
        if len(self.factors) < 2 or min(self.factors) < 0 or not 0 < max(self.factors) < np.inf:
            raise InvalidPlanError(
                f"day: got factors {self.factors}, allowed are two or more, none below 0 and one above"
            )
        if not 0 < self.length_s < np.inf:
            raise InvalidPlanError(f"day: got a length of {self.length_s:g} s, allowed is a number above 0")

    def at(self, times_s: Floats) -> Floats:
        """The factors at these times."""
        places = times_s % self.length_s / self.length_s * len(self.factors)
        factors = np.asarray((*self.factors, self.factors[0]))
        return np.asarray(np.interp(places, np.arange(len(factors)), factors))


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """A synthetic fleet.

    Every camera sends evenly from a phase of its own, each frame shifted by a small jitter; the same values give the
    same trace.

    Attributes:
        groups: one or more.
        duration_s: how long the cameras send.
        day: None: the same rate all the time.
        jitter_fraction: the widest shift to either side, as a share of the time between two frames; at most 0.5, so
            that a camera's frames stay in order.
        seed: of phases, jitter and priorities.
    """

    groups: tuple[CameraGroup, ...]
    duration_s: float = DEFAULT_SECONDS
    day: DayCurve | None = None
    jitter_fraction: float = DEFAULT_JITTER_FRACTION
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.groups:
            raise InvalidPlanError("fleet: got no cameras, allowed is one group or more")
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise InvalidPlanError(f"fleet: got names {', '.join(names)}, allowed is a name of its own for each group")
        if not 0 < self.duration_s < np.inf:
            raise InvalidPlanError(f"fleet: seconds: got {self.duration_s:g}, allowed is a number above 0")
        if not 0 <= self.jitter_fraction <= 0.5:
            raise InvalidPlanError(f"fleet: jitter: got {self.jitter_fraction:g}, allowed is 0 to 0.5")

    @property
    def num_cameras(self) -> int:
        """Of all groups."""
        return sum(group.num_cameras for group in self.groups)

    def at_load(self, load: float) -> Trace:
        """What the fleet sends at `load` times its rates, in the same time."""
        _check_load(load)
        num_expected = load * self.duration_s * sum(group.num_cameras * group.rate_hz for group in self.groups)
        if num_expected > MAX_FRAMES:
            raise InvalidPlanError(
                f"fleet: got about {num_expected:,.0f} frames, allowed are {MAX_FRAMES:,}; shorten it with --seconds"
            )
        parts, cameras, sizes_hw = [], list[str](), list[SizeHw]()
        for index, group in enumerate(self.groups):
            if group.size_hw not in sizes_hw:
                sizes_hw.append(group.size_hw)
            parts.append(self._part(index, load, len(cameras), sizes_hw.index(group.size_hw)))
            cameras += [f"{group.name}-{number}" for number in range(1, group.num_cameras + 1)]
        at_s, camera, size, is_critical, slo_s = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(at_s, kind="stable")
        return Trace(
            at_s[order], camera[order], size[order], is_critical[order], slo_s[order], tuple(cameras),
            tuple(sizes_hw), self.duration_s,
        )  # fmt: skip

    def _part(self, index: int, load: float, first_camera: int, size: int) -> tuple[Floats, Ids, Ids, Flags, Floats]:
        """The columns of one group. Frame k of a camera comes when its rate has summed up to k plus its phase."""
        group = self.groups[index]
        rng = np.random.default_rng([self.seed, index])
        times_s, summed_s = self._summed_rate(group, rng.random())
        rate_hz = group.rate_hz * load
        phases = rng.random(group.num_cameras)
        nums = np.maximum(0, np.ceil(rate_hz * summed_s[-1] - phases)).astype(np.int64)
        camera = np.repeat(np.arange(group.num_cameras), nums)
        number = np.arange(len(camera)) - np.repeat(np.cumsum(nums) - nums, nums)
        shift = (2 * rng.random(len(camera)) - 1) * self.jitter_fraction
        place_s = np.clip((number + phases[camera] + shift) / rate_hz, 0, summed_s[-1])
        is_critical = rng.random(len(camera)) < group.critical_share
        slos_s = [np.nan if slo_s is None else slo_s for slo_s in (group.normal_slo_s, group.critical_slo_s)]
        return (
            np.interp(place_s, summed_s, times_s),
            (camera + first_camera).astype(np.int32),
            np.full(len(camera), size, np.int32),
            is_critical,
            np.asarray(slos_s, np.float64)[is_critical.astype(np.intp)],
        )

    def _summed_rate(self, group: CameraGroup, phase: float) -> tuple[Floats, Floats]:
        """Times, and the rate summed up to them, in seconds at the nominal rate."""
        times_s = np.linspace(0, self.duration_s, NUM_RATE_STEPS + 1)
        bursts = group.bursts
        if bursts is not None:
            first = np.arange(-1, np.ceil(self.duration_s / bursts.every_s) + 1) + phase
            edges_s = np.concatenate([first * bursts.every_s, first * bursts.every_s + bursts.length_s])
            times_s = np.union1d(times_s, edges_s[(edges_s > 0) & (edges_s < self.duration_s)])
        middles_s = (times_s[1:] + times_s[:-1]) / 2
        factors = np.ones(len(middles_s)) if self.day is None else self.day.at(middles_s)
        if bursts is not None:
            since_s = (middles_s - phase * bursts.every_s) % bursts.every_s
            factors = np.where(since_s < bursts.length_s, factors * bursts.factor, factors)
        return times_s, np.concatenate([[0.0], np.cumsum(factors * np.diff(times_s))])


def _check_load(load: float) -> None:
    if not 0 < load < np.inf:
        raise InvalidPlanError(f"load: got {load:g}, allowed is a number above 0")
