"""What the scheduler answers, as values: what became of an arrival, and what to do now."""

from __future__ import annotations

import math
from typing import NamedTuple

from serve_app.batching import Batch
from serve_app.frames import Frame
from serve_app.route import Route
from serve_app.verdicts import Verdict


class Arrival(NamedTuple):
    """What became of a frame that arrived.

    Attributes:
        verdict: of admission.
        superseded: the older frame whose place it took.
        decide_by_s: when `decide` is due because of it: later than its arrival where nothing can be sent sooner.
    """

    verdict: Verdict
    superseded: Frame | None = None
    decide_by_s: float = -math.inf


class Expired(NamedTuple):
    """A frame that cannot make its deadline any more, and how it would have been served."""

    frame: Frame
    route: Route


class Decisions(NamedTuple):
    """What to do now: batches to send (their credits are taken), frames to answer as expired, and as failed.

    `given_up`: their replicas have fallen silent, and no time or attempt is left.
    """

    batches: tuple[Batch, ...]
    expired: tuple[Expired, ...]
    given_up: tuple[Frame, ...] = ()


NOTHING = Decisions((), ())
