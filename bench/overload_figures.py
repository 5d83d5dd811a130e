"""What became of each frame of a trace, and the figures of a whole run; for real runs and simulated ones alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from overload_trace import CRITICAL, NORMAL

FINISHED = "finished"
# The kind of a verdict that lets a frame in on a lower rung.
DEGRADED = "degrade"
# Its deadline had passed when the client came to send it: the client itself was late.
EXPIRED_AT_CLIENT = "expired_at_client"
# The call raised.
ERROR = "error"
# No answer when measuring stopped, from a service that promises one for every frame ...
LOST = "lost"
# ... and from one that promises none.
UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one frame; all times on the client's clock.

    Attributes:
        camera, priority, slo_s: as in the trace.
        at_s: when it was due, from the trace's begin.
        send_late_s: how much later it was sent.
        outcome: the service's word for it, or one of this module's.
        latency_s: from when it was due to its answer, whatever that was; None without one.
        model, canvas: what it was computed with; None if it was not.
        batch_size: with how many others; 0 if it was not computed.
        verdict: the kind of what admission decided; None if nothing was.
        rung: how far down the ladder it was served; 0 is the top; None if the service does not say.
        error: what the call raised.
        router_s: how long it was with the router; None if the service does not say.
        way_s: of that, its batch's way to the device and back, fetching and placing included; likewise.
        run_s: of that, its batch's time on the device; likewise. Neither is told of a frame that ran as tiles.
    """

    camera: str
    priority: str
    slo_s: float
    at_s: float
    send_late_s: float
    outcome: str
    latency_s: float | None = None
    model: str | None = None
    canvas: str | None = None
    batch_size: int = 0
    verdict: str | None = None
    rung: int | None = None
    error: str | None = None
    router_s: float | None = None
    way_s: float | None = None
    run_s: float | None = None

    @property
    def is_degraded(self) -> bool:
        """Whether it was served below the top of the ladder."""
        return bool(self.rung) or self.verdict == DEGRADED

    @property
    def is_good(self) -> bool:
        """Whether it was answered with boxes within its deadline."""
        return self.outcome == FINISHED and self.latency_s is not None and self.latency_s <= self.slo_s


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in seconds, by nearest rank, over finished frames, late ones included; None if none finished."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """One run.

    Attributes:
        seconds: the trace's length.
        num_offered: frames of the trace.
        num_good: finished within their deadline.
        num_critical: critical frames of the trace.
        critical_in_time_fraction: of all critical frames offered; None if there were none.
        num_critical_lost: critical frames without an outcome when measuring stopped.
        critical, normal: latency of the finished frames of each priority.
        lower_rung_fraction: of the finished frames, served below the top of the ladder.
        outcomes: frames by outcome.
        mean_batch: frames a batch, over finished frames; None if none says.
        send_late_p99_s: how late the client sent; above some ms the client was the bottleneck.
    """

    seconds: float
    num_offered: int
    num_good: int
    num_critical: int
    critical_in_time_fraction: float | None
    num_critical_lost: int
    critical: Latency
    normal: Latency
    lower_rung_fraction: float
    outcomes: dict[str, int]
    mean_batch: float | None
    send_late_p99_s: float | None

    @property
    def offered_hz(self) -> float:
        """Frames offered a second of trace."""
        return self.num_offered / self.seconds

    @property
    def good_hz(self) -> float:
        """Frames finished within their deadline a second of trace."""
        return self.num_good / self.seconds


def figures_of(records: Sequence[Record], seconds: float) -> Figures:
    """The figures of a run: one record for each frame of a trace of so many seconds."""
    finished = [record for record in records if record.outcome == FINISHED]
    critical = [record for record in records if record.priority == CRITICAL]
    good = [record for record in records if record.is_good]
    num_batches = sum(1 / record.batch_size for record in finished if record.batch_size)
    num_critical_good = sum(record.is_good for record in critical)
    num_lower = sum(record.is_degraded for record in finished)
    return Figures(
        seconds=seconds,
        num_offered=len(records),
        num_good=len(good),
        num_critical=len(critical),
        critical_in_time_fraction=num_critical_good / len(critical) if critical else None,
        num_critical_lost=sum(record.outcome in {LOST, UNANSWERED} for record in critical),
        critical=_latency(finished, CRITICAL),
        normal=_latency(finished, NORMAL),
        lower_rung_fraction=num_lower / len(finished) if finished else 0.0,
        outcomes=dict(Counter(record.outcome for record in records).most_common()),
        mean_batch=sum(record.batch_size > 0 for record in finished) / num_batches if num_batches else None,
        send_late_p99_s=percentile((record.send_late_s for record in records), 0.99),
    )


def percentile(values: Iterable[float], fraction: float) -> float | None:
    """The smallest value that at least this fraction of the values does not exceed; None of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)] if ordered else None


def _latency(finished: Iterable[Record], priority: str) -> Latency:
    latencies_s = [r.latency_s for r in finished if r.priority == priority and r.latency_s is not None]
    return Latency(*(percentile(latencies_s, fraction) for fraction in (0.50, 0.95, 0.99)))
