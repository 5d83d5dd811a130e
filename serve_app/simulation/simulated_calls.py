"""What batches of a simulation take beside their device."""

from __future__ import annotations

import math
from dataclasses import dataclass

from serve_app.errors import InvalidPlanError
from serve_app.pool_queue import ASSUMED_AROUND_S, SHARE_BEFORE

# Most of what a call takes beside the engine is the way there, fetching and placing; the answer is small.
DEFAULT_BEFORE_S = SHARE_BEFORE * ASSUMED_AROUND_S
DEFAULT_AFTER_S = (1 - SHARE_BEFORE) * ASSUMED_AROUND_S
# Ray tells callers of a dead actor within a second; a new replica loads and warms its engines.
DEFAULT_DETECT_S = 1.0
DEFAULT_RESTART_S = 20.0
# A batch that hangs for ten seconds is stuck, and three health checks later, two seconds apart, its replica is ended.
DEFAULT_STUCK_S = 17.0


@dataclass(frozen=True, slots=True)
class SimulatedCalls:
    """What a batch takes beside its device, and how failures go on.

    Attributes:
        before_s: from the router's decision until the batch can run: the call, fetching, placing; the device may run
            another one meanwhile.
        after_s: from the end of its run to the router.
        detect_s: from a replica's death until the router knows; what was sent to it meanwhile is lost as well.
        restart_s: from then until a new replica is ready in its place.
        stuck_s: from the moment at which a replica hangs until it is ended.
        tick_s: the router decides once for all that happens within so long, as one turn of a busy event loop does;
            0: after each event.
    """

    before_s: float = DEFAULT_BEFORE_S
    after_s: float = DEFAULT_AFTER_S
    detect_s: float = DEFAULT_DETECT_S
    restart_s: float = DEFAULT_RESTART_S
    tick_s: float = 0.0
    stuck_s: float = DEFAULT_STUCK_S

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 <= (value_s := getattr(self, name)) < math.inf:
                raise InvalidPlanError(f"{name}: got {value_s}, allowed are seconds of 0 or more")
