"""The spool at a glance."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """What a spool says of itself.

    Attributes:
        place: the folder, or the address of Redis, without its password.
        node: the machine that it runs on.
        problem: why it takes no frames now; None: it does.
        num_pending: frames without a result.
        num_in_flight: of these, how many are at the service now.
        num_done: results that are kept.
        num_aside: records that were set aside.
        num_bytes, max_bytes: what lies there, and what may.
        oldest_age_s: of the pending frames; None: none is pending.
        warnings: what people should know, such as a damaged file that was put away.
    """

    place: str
    node: str
    problem: str | None
    num_pending: int = 0
    num_in_flight: int = 0
    num_done: int = 0
    num_aside: int = 0
    num_bytes: int = 0
    max_bytes: int = 0
    oldest_age_s: float | None = None
    warnings: tuple[str, ...] = ()
