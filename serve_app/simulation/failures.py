"""What may befall a replica in a simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from serve_app.errors import InvalidPlanError
from serve_app.plan import Plan

DEFAULT_SLOW_FACTOR = 10.0


class FailureKind(Enum):
    """What befalls a replica."""

    DIES = "die"
    """Its calls fail after `SimulatedCalls.detect_s`; it is replaced."""
    HANGS = "hang"
    """It answers nothing any more, and is replaced once its health checks have failed."""
    SLOW = "slow"
    """Its batches take several times as long, to the end of the trace."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What befalls one replica of a pool at a moment of the trace; None: of the first pool.

    `factor`: for a slow one, how many times as long its batches take.
    """

    at_s: float
    pool: str | None = None
    kind: FailureKind = FailureKind.DIES
    factor: float = DEFAULT_SLOW_FACTOR


def pool_of(failure: Failure, plan: Plan) -> str:
    """The pool that a failure befalls.

    Raises:
        InvalidPlanError: the plan has no such pool; or a moment or a factor that cannot be.
    """
    names = [pool.name for pool in plan.pools]
    if failure.pool is not None and failure.pool not in names:
        raise InvalidPlanError(
            f"failure: pool: got {failure.pool!r}, allowed are those of the plan: {', '.join(names)}"
        )
    if not 1 <= failure.factor < math.inf:
        raise InvalidPlanError(f"failure: got {failure.factor:g} times slower, allowed is 1 or more")
    if not 0 <= failure.at_s < math.inf:
        raise InvalidPlanError(f"failure: got {failure.at_s} s, allowed are seconds of 0 or more")
    return failure.pool or names[0]
