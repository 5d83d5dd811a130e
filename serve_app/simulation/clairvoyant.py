"""What a scaler could do that knows the future: the least replica-seconds that serve a load in time. Pure."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from serve_app.errors import InvalidPlanError

# What one replica does in one step is counted in so many units: work is exact to an eighth of it, and never lost.
UNITS_A_STEP = 8
# A table of states beyond this is too slow; a longer step needs a smaller one.
MAX_STATES = 200_000


def least_replica_s(
    work_s: npt.NDArray[np.float64],
    step_s: float,
    *,
    least: int,
    most: int,
    start_up_s: float,
    max_wait_s: float,
    utilisation: float = 1.0,
) -> float:
    """The least replica-seconds with which all work is done in time, by exact dynamic programming over the steps.

    A replica does `utilisation` device seconds a second. It costs replica-seconds from its start on, so one that is
    started costs `start_up_s` before it works; since the future is known, it is started early enough. It may be given
    up and started again at any step. In time means that what waits after any step could be done within `max_wait_s` by
    the replicas of that moment. Work that even `most` replicas cannot do in time is dropped. The `least` ones that
    stand at the begin have cost nothing to start.

    Args:
        work_s: `(N,)` device seconds that come within each step.
        step_s: length of a step; at most `max_wait_s` makes sense, more gives a bound that is too low.
        least: how many there are at any time.
        most: how many are allowed.
        start_up_s: from the start of a replica until it works.
        max_wait_s: how long work may wait.
        utilisation: share of its time that a replica works.

    Raises:
        InvalidPlanError: numbers that no load can have, or so many replicas that the table of states is too large.
    """
    if not 0 <= least <= most or most < 1 or step_s <= 0 or not 0 < utilisation <= 1 or (work_s < 0).any():
        raise InvalidPlanError(
            f"clairvoyant: got {least} to {most} replicas, steps of {step_s} s, utilisation {utilisation}; allowed are "
            "0 or more, 1 or more at most, steps above 0, a utilisation above 0 and up to 1, and no negative work"
        )
    numbers = np.arange(least, most + 1)
    may_wait = np.floor(numbers * UNITS_A_STEP * max_wait_s / step_s).astype(np.int64)
    num_depths = int(may_wait[-1]) + 1
    if len(numbers) * num_depths > MAX_STATES:
        raise InvalidPlanError(
            f"clairvoyant: got {most} replicas with {max_wait_s:g} s to wait in steps of {step_s:g} s, allowed are "
            f"{MAX_STATES:,} states; take longer steps"
        )
    summed = np.floor(np.concatenate([[0.0], np.cumsum(work_s)]) / (step_s * utilisation) * UNITS_A_STEP + 1e-9)
    coming = np.diff(summed.astype(np.int64))
    depths = np.arange(num_depths)
    is_late = depths[None, :] > may_wait[:, None]
    costs = np.full((len(numbers), num_depths), math.inf)
    costs[0, 0] = 0.0
    for units in coming.tolist():
        costs = _resized(costs, start_up_s)
        costs = _worked(costs, units, numbers, may_wait, step_s)
        costs[is_late] = math.inf
    return float(costs.min())


def _resized(costs: npt.NDArray[np.float64], start_up_s: float) -> npt.NDArray[np.float64]:
    """The least cost of every state once replicas were given up, for nothing, or started, each for `start_up_s`."""
    fewer = np.minimum.accumulate(costs[::-1], axis=0)[::-1]
    rising_s = start_up_s * np.arange(len(costs))[:, None]
    more = np.minimum.accumulate(costs - rising_s, axis=0) + rising_s
    return np.asarray(np.minimum(fewer, more))


def _worked(
    costs: npt.NDArray[np.float64],
    units: int,
    numbers: npt.NDArray[np.int64],
    may_wait: npt.NDArray[np.int64],
    step_s: float,
) -> npt.NDArray[np.float64]:
    """The costs after one step in which so many units came and each number of replicas did its part."""
    num_depths = costs.shape[1]
    after = np.full_like(costs, math.inf)
    for row, number in enumerate(numbers.tolist()):
        shift = units - number * UNITS_A_STEP
        if shift >= 0:
            after[row, shift:] = costs[row, : max(0, num_depths - shift)]
            if row == len(numbers) - 1 and shift > 0:  # even all of them are too few: what is too late is dropped
                lost = costs[row, max(0, num_depths - shift) :].min(initial=math.inf)
                after[row, may_wait[-1]] = min(after[row, may_wait[-1]], lost)
        else:
            kept = max(0, num_depths + shift)
            after[row, :kept] = costs[row, num_depths - kept :]
            after[row, 0] = min(after[row, 0], costs[row, : num_depths - kept].min(initial=math.inf))
        after[row] += number * step_s
    return after
