"""How fast something grows: a straight line through samples, with its error, and whether that is flat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# A first part of a run is no sample: caches fill, arenas grow to their size.
WARM_UP_FRACTION = 0.25
# Twice the error of a slope: what lies within may be chance, 19 times in 20 if samples scatter independently.
NUM_ERRORS = 2.0


@dataclass(frozen=True, slots=True)
class Slope:
    """A least-squares line.

    Attributes:
        mean: of the samples.
        per_s: units a second.
        error_per_s: its standard error.
        num_samples: how many, without the warm-up.
    """

    mean: float
    per_s: float
    error_per_s: float
    num_samples: int

    def is_flat(self, max_per_s: float) -> bool:
        """Whether it grows by no more than this, or by no more than chance explains; shrinking is flat."""
        return self.per_s <= max(max_per_s, NUM_ERRORS * self.error_per_s)


def slope_of(samples: Sequence[tuple[float, float]], warm_up_fraction: float = WARM_UP_FRACTION) -> Slope:
    """The slope of samples (at_s, value) after the warm-up.

    Raises:
        ValueError: fewer than three are left, or all were taken at one moment.
    """
    begin_s = samples[0][0] + warm_up_fraction * (samples[-1][0] - samples[0][0]) if samples else 0.0
    kept = [(at_s, value) for at_s, value in samples if at_s >= begin_s]
    if len(kept) < 3 or kept[0][0] == kept[-1][0]:
        raise ValueError(f"samples: got {len(kept)} after the warm-up, allowed are three or more moments; run longer")
    mean_s = math.fsum(at_s for at_s, _ in kept) / len(kept)
    mean = math.fsum(value for _, value in kept) / len(kept)
    spread = math.fsum((at_s - mean_s) ** 2 for at_s, _ in kept)
    per_s = math.fsum((at_s - mean_s) * (value - mean) for at_s, value in kept) / spread
    left = math.fsum((value - mean - per_s * (at_s - mean_s)) ** 2 for at_s, value in kept)
    return Slope(mean, per_s, math.sqrt(left / (len(kept) - 2) / spread), len(kept))
