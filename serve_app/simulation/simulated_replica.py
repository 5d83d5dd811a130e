"""A replica of the simulation: one device that runs a batch at a time, and what a batch really takes there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from engines.spec import CanvasShape
from serve_app.batching import Batch
from serve_app.device_turns import DeviceTurns
from serve_app.latency import LatencyModel

# `LatencyModel` counts a spread as the mean distance from the mean, of which a normal distribution's sigma is so many.
SIGMAS_PER_SPREAD = math.sqrt(math.pi / 2)
# No batch takes less than this share of its mean: the work itself does not scatter, only what disturbs it.
MIN_RUN_FRACTION = 0.5

# Draws from a normal distribution of this mean and sigma, such as `random.Random(seed).gauss`.
Gauss = Callable[[float, float], float]


class Job:
    """A batch on its way.

    Attributes:
        batch: the batch.
        replica: where it was sent.
        row: its place in the record.
        run_s: what it takes; known when it starts.
        before_s, after_s: its way to the device and back.
        has_run: whether only its answer is on the way.
        is_lost: whether its replica died before it had run.
    """

    __slots__ = ("after_s", "batch", "before_s", "has_run", "is_lost", "replica", "row", "run_s")

    def __init__(self, batch: Batch, replica: SimulatedReplica, row: int, before_s: float, after_s: float) -> None:
        self.batch = batch
        self.replica = replica
        self.row = row
        self.run_s = 0.0
        self.before_s = before_s
        self.after_s = after_s
        self.has_run = False
        self.is_lost = not replica.is_alive


class SimulatedReplica:
    """One replica.

    Attributes:
        name, pool: as the scheduler knows it.
        is_alive: whether it works, whatever the router knows.
        factor: how many times as long its batches take.
        turns: batches that are ready for the device, in the order in which the real replica takes them.
        running: the batch on the device.
        jobs: all batches that were sent and not answered, by id.
    """

    __slots__ = ("factor", "is_alive", "jobs", "name", "pool", "running", "turns")

    def __init__(self, name: str, pool: str, max_starve_s: float) -> None:
        self.name = name
        self.pool = pool
        self.is_alive = True
        self.factor = 1.0
        self.turns: DeviceTurns[Job] = DeviceTurns(max_starve_s)
        self.running: Job | None = None
        self.jobs: dict[int, Job] = {}


class BatchTimes(Protocol):
    """What batches really take."""

    def way_s(self, batch: Batch, now_s: float) -> tuple[float, float]:
        """Seconds from the router's decision, which is now, until a batch can run, and from its end to the router."""

    def run_s(self, batch: Batch, now_s: float) -> float:
        """Seconds on the device of a batch that comes there now; asked after its `way_s`."""


class DeviceTimes:
    """Draws how long a batch runs; its way always takes the same."""

    def __init__(self, truth: LatencyModel, gauss: Gauss, before_s: float, after_s: float) -> None:
        """Take means and spreads, where lots come from, and the way; a spread of 0 draws none."""
        self._truth = truth
        self._gauss = gauss
        self._way_s = before_s, after_s
        self._known: dict[tuple[str, CanvasShape, int], tuple[float, float]] = {}

    def way_s(self, batch: Batch, now_s: float) -> tuple[float, float]:  # noqa: ARG002 - always the same
        """See `BatchTimes.way_s`."""
        return self._way_s

    def run_s(self, batch: Batch, now_s: float) -> float:  # noqa: ARG002 - the same at any time
        """Normal around the mean, at least `MIN_RUN_FRACTION` of it."""
        key = (batch.model, batch.canvas, len(batch.pieces))
        known = self._known.get(key)
        if known is None:
            known = self._truth.predict_s(*key), SIGMAS_PER_SPREAD * self._truth.spread_s(*key)
            self._known[key] = known
        mean_s, sigma_s = known
        return max(MIN_RUN_FRACTION * mean_s, self._gauss(mean_s, sigma_s)) if sigma_s else mean_s
