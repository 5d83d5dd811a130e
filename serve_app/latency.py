"""How long a batch keeps its device: measured, interpolated where it was not, and kept current by what is observed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from engines.spec import CanvasShape

# What a YOLOv8n takes on two CPU cores; stands in until the first batch of a model was measured.
ASSUMED_S_PER_PX = 130e-9
# Weight of a new observation of a shape, and of any shape for the pace: ten batches tell that a machine has become
# slower, whatever their shapes; fifty of one shape what is its own.
LEARNING_RATE = 0.05
PACE_LEARNING_RATE = 0.1
# One batch counts as at most so many times slower or faster than predicted, and the pace stays within reason.
MAX_PACE_STEP = 2.0
# In a thousand batches the pace returns to 1, and the estimates of the shapes that run take over what lasts. Otherwise
# scatter alone would move pace and estimates apart, and shapes that are not run would be off by more and more.
PACE_RETURN_RATE = 0.001
MAX_PACE = 20.0
# An observation counts at most so many spreads away: one stall must not teach that every batch stalls.
OUTLIER_SPREADS = 3.0
# A measured time without its own spread, and the least that any is believed to have.
ASSUMED_SPREAD_FRACTION = 0.1
MIN_SPREAD_FRACTION = 0.02
# No clock tells less; a batch of nothing would otherwise divide by zero.
MIN_S = 1e-6
# Interpolated values are worked out again after so many observations.
REFRESH_OBSERVATIONS = 64


class LatencyKey(NamedTuple):
    """What is timed: a model (its name in the plan) at one exact shape."""

    model: str
    canvas: CanvasShape
    batch: int


class Origin(Enum):
    """Where the seconds of a table come from."""

    MEASURED = "measured"
    """On the machine that the table names."""
    PUBLISHED = "published"
    """By others, for a device that the table names."""
    ESTIMATED = "estimated"
    """Worked out from other figures."""
    ASSUMED = "assumed"
    """Nothing is known yet."""


class Latency(NamedTuple):
    """Seconds that one batch keeps the device (network and boxes), how far they scatter, and how often measured."""

    run_s: float
    spread_s: float
    num_samples: int


class LatencyTable(NamedTuple):
    """Latencies of one machine.

    Attributes:
        machine: where they hold, as `engines.machine.machine_name` says it, or the name of a GPU.
        origin: where they come from.
        entries: seconds by model, canvas and batch.
    """

    machine: str
    origin: Origin
    entries: Mapping[LatencyKey, Latency]


class LatencyModel:
    """Predicts seconds per (model, canvas, batch).

    Algorithm: a prediction is the shape's own seconds times the pace. The pace is what all shapes have in common now
    (a busy machine, a throttled device): a moving mean of observed over predicted, each limited to `MAX_PACE_STEP`. A
    shape that was measured has its own estimate, a mean that moves by `LEARNING_RATE` towards each new observation at
    that pace, which counts at most `OUTLIER_SPREADS` spreads away from it; the spread is the moving mean of these
    distances, so that a lasting change is followed (each step widens the spread) and a single stall is not. A shape
    that was not measured is interpolated linearly, in batch on its own canvas first, then in pixels between canvases;
    beyond the measured ones time is proportional. Nothing measured: `ASSUMED_S_PER_PX`.
    """

    def __init__(self, table: LatencyTable | None = None) -> None:
        """Begin with a table, or with nothing."""
        self._shapes: dict[tuple[str, CanvasShape, int], _Estimate] = {}
        self._of_model: dict[str, dict[tuple[CanvasShape, int], _Estimate]] = {}
        # Of shapes that were not measured.
        self._interpolated_s: dict[tuple[str, CanvasShape, int], float] = {}
        self._num_observed = 0
        self._pace = 1.0
        for key, latency in (table.entries if table else {}).items():
            self._learn(*key, _Estimate(*latency))

    def predict_s(self, model: str, canvas: CanvasShape, batch: int) -> float:
        """Seconds that a batch of this shape keeps its device."""
        key = (model, canvas, batch)
        known = self._shapes.get(key)
        if known is not None:
            return known.run_s * self._pace
        predicted_s = self._interpolated_s.get(key)
        if predicted_s is None:
            predicted_s = self._interpolated_s[key] = self._work_out_s(model, canvas, batch)
        return predicted_s * self._pace

    def spread_s(self, model: str, canvas: CanvasShape, batch: int) -> float:
        """Mean distance of a single batch's seconds from the prediction."""
        known = self._shapes.get((model, canvas, batch))
        if known is None:
            return ASSUMED_SPREAD_FRACTION * self.predict_s(model, canvas, batch)
        return known.spread_s * self._pace

    def is_measured(self, model: str, canvas: CanvasShape, batch: int) -> bool:
        """Whether this very shape has been timed."""
        return (model, canvas, batch) in self._shapes

    def measured_s(self, model: str, canvas: CanvasShape, batch: int) -> float | None:
        """What `predict_s` says of a shape that has been timed; None for any other."""
        known = self._shapes.get((model, canvas, batch))
        return None if known is None else known.run_s * self._pace

    def observe(self, model: str, canvas: CanvasShape, batch: int, took_s: float) -> None:
        """A batch took so long on its device."""
        took_s = max(took_s, MIN_S)
        pace = self._pace
        known = self._shapes.get((model, canvas, batch))
        if known is None:
            own_s = took_s / pace
            self._learn(model, canvas, batch, _Estimate(own_s, ASSUMED_SPREAD_FRACTION * own_s, 1))
        else:
            ratio = took_s / (known.run_s * pace)
            if not 1 / MAX_PACE_STEP <= ratio <= MAX_PACE_STEP:
                ratio = MAX_PACE_STEP if ratio > 1 else 1 / MAX_PACE_STEP
            known.move_towards(took_s / pace)
            pace *= 1 + PACE_LEARNING_RATE * (ratio - 1)
            pace += PACE_RETURN_RATE * (1 - pace)
            self._pace = min(MAX_PACE, max(1 / MAX_PACE, pace))
        self._num_observed += 1
        if self._num_observed % REFRESH_OBSERVATIONS == 0:
            self._interpolated_s.clear()

    def entries(self) -> dict[LatencyKey, Latency]:
        """All that is known, at the present pace, to be saved in a `LatencyTable`."""
        pace = self._pace
        return {
            LatencyKey(*key): Latency(known.run_s * pace, known.spread_s * pace, known.num_samples)
            for key, known in self._shapes.items()
        }

    def _learn(self, model: str, canvas: CanvasShape, batch: int, known: _Estimate) -> None:
        """A shape is known from now on."""
        self._shapes[model, canvas, batch] = known
        self._of_model.setdefault(model, {})[canvas, batch] = known
        self._interpolated_s.clear()

    def _work_out_s(self, model: str, canvas: CanvasShape, batch: int) -> float:
        """Interpolate a shape that was not measured."""
        known = self._of_model.get(model)
        if not known:
            return ASSUMED_S_PER_PX * canvas.num_px * batch
        of_canvas = [(size, shape.run_s) for (its, size), shape in known.items() if its == canvas]
        if not of_canvas:
            of_canvas = [
                (
                    size,
                    _interpolated(
                        _means((its.num_px, shape.run_s) for (its, n), shape in known.items() if n == size),
                        canvas.num_px,
                    ),
                )
                for size in {size for _, size in known}
            ]
        return _interpolated(_means(of_canvas), batch)


class _Estimate:
    """What is known of one shape at a pace of 1; see `Latency` for the attributes."""

    __slots__ = ("num_samples", "run_s", "spread_s")

    def __init__(self, run_s: float, spread_s: float, num_samples: int) -> None:
        self.run_s = run_s
        self.spread_s = spread_s
        self.num_samples = num_samples

    def move_towards(self, took_s: float) -> None:
        """Take one more observation into account."""
        distance_s = took_s - self.run_s
        reach_s = OUTLIER_SPREADS * self.spread_s
        if distance_s > reach_s:
            distance_s = reach_s
        elif distance_s < -reach_s:
            distance_s = -reach_s
        self.run_s += LEARNING_RATE * distance_s
        spread_s = self.spread_s + LEARNING_RATE * (abs(distance_s) - self.spread_s)
        self.spread_s = max(spread_s, MIN_SPREAD_FRACTION * self.run_s)
        self.num_samples += 1


def _means(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Points in ascending order, equal places averaged: two canvases may have the same number of pixels."""
    at: dict[int, list[float]] = {}
    for place, value in points:
        at.setdefault(place, []).append(value)
    return [(place, sum(values) / len(values)) for place, values in sorted(at.items())]


def _interpolated(points: Sequence[tuple[int, float]], place: int) -> float:
    """Linear between the neighbours of `place`; below the first and above the last point in proportion."""
    index = bisect_left(points, place, key=lambda point: point[0])
    if index == len(points):
        return points[-1][1] * place / points[-1][0]
    if points[index][0] == place:
        return points[index][1]
    if index == 0:
        return points[0][1] * place / points[0][0]
    (low, low_s), (high, high_s) = points[index - 1], points[index]
    return low_s + (high_s - low_s) * (place - low) / (high - low)
