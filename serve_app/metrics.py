"""What a router tells Prometheus of its frames, batches and pools: turns results into counts of the catalog.

It costs a few µs a frame: `bench/metrics_cost.py`. It knows no Ray and reads no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from serve_app import metric_catalog as catalog
from serve_app.batching import Batch
from serve_app.errors import InvalidFrameError, TooManyTicketsError
from serve_app.frames import Priority
from serve_app.lane_key import LaneClass
from serve_app.metric_book import MetricBook, MetricSink, named
from serve_app.metric_catalog import Metric
from serve_app.plan import Plan
from serve_app.pool_load import PoolLoad
from serve_app.results import BatchReply, FrameResult, ReplicaReport
from serve_app.verdicts import Outcome, RejectCause

# Ray exports every ten seconds: a histogram's two dozen records are worth sparing in between.
FLUSH_INTERVAL_S = 5.0
# Gauges last for two of Ray's export intervals, which may be set to a second.
GAUGE_INTERVAL_S = 1.0

FINISHED, REJECTED = Outcome.FINISHED, Outcome.REJECTED
PRIORITIES = frozenset(priority.value for priority in Priority)
CLASSES = tuple(lane_class.name.lower() for lane_class in LaneClass)
# What stands where a client said something that is none of the allowed words.
OTHER = "other"
NONE = ""


class RouterMetrics:
    """Counts what a router does, and hands the counts to a sink every few seconds."""

    def __init__(self, plan: Plan, sink: MetricSink) -> None:
        """Take the plan, whose names are the labels, and where the numbers go."""
        self._sink = sink
        self._book = MetricBook()
        self._largest = {bucket.name: bucket.batches[-1] for bucket in plan.buckets}
        self._flushed_s = self._gauged_s = -math.inf
        self._num_records_lost = 0
        for labels in [(priority.value, cause.value) for priority in Priority for cause in RejectCause]:
            self._book.count(catalog.FRAMES_REJECTED, labels, 0)
        for pool in plan.pools:
            for cause in ("died", "failed"):
                self._book.count(catalog.BATCHES_LOST, (pool.name, cause), 0)
        for bucket in plan.buckets:
            self._book.count(catalog.BATCHES_OUT_OF_MEMORY, (bucket.pool, bucket.name), 0)
        self._book.count(catalog.RECORDS_LOST, (), 0)

    def frame_ended(self, result: FrameResult) -> None:
        """A frame has ended, in whatever way."""
        book, outcome, bucket = self._book, result.outcome, result.bucket or NONE
        # A refused frame carries whatever its client said.
        priority = result.priority if result.outcome is not REJECTED else _known(result.priority)
        verdict = result.verdict.kind.value if result.verdict is not None else NONE
        pool = result.pool or NONE
        book.count(
            catalog.FRAMES_ENDED, (pool, bucket, result.model or NONE, priority, verdict, outcome.value)
        )  # fmt: skip
        if outcome is FINISHED:
            lane, times = (priority, bucket), result.times
            book.observe(catalog.LATENCY, lane, times.total_s)
            book.observe(catalog.QUEUE, lane, times.queue_s)
            book.observe(catalog.TRANSFER, lane, max(0.0, times.transfer_s))
            book.observe(catalog.PADDING, (bucket,), result.padding_fraction)
            if result.rung:
                book.count(catalog.FRAMES_DEGRADED, (pool, priority, str(result.rung)))
        elif outcome is REJECTED:
            book.count(catalog.FRAMES_REJECTED, (priority, refusal_cause(result).value))

    def batch_answered(self, batch: Batch, reply: BatchReply) -> None:
        """A replica has answered a batch."""
        book, lane = self._book, (batch.pool, batch.bucket)
        num_frames = len(batch.pieces)
        if not reply.infer_s:  # none of its frames could be read, or the engine failed: it says nothing of batches
            book.observe(catalog.BATCH_STAGE, (*lane, batch.model, "fetch"), reply.fetch_s)
            return
        book.observe(catalog.BATCH_FRAMES, lane, num_frames)
        book.observe(catalog.BATCH_FILL, lane, num_frames / self._largest[batch.bucket])
        for stage, seconds in (
            ("fetch", reply.fetch_s), ("preprocess", reply.preprocess_s), ("staged", reply.staged_s),
            ("infer", reply.infer_s), ("postprocess", reply.postprocess_s),
        ):  # fmt: skip
            book.observe(catalog.BATCH_STAGE, (*lane, batch.model, stage), max(0.0, seconds))

    def batch_lost(self, batch: Batch, *, has_died: bool) -> None:
        """A batch has no answer: its replica has died, or the call raised."""
        self._book.count(catalog.BATCHES_LOST, (batch.pool, "died" if has_died else "failed"))

    def out_of_memory(self, batch: Batch) -> None:
        """A device had no memory for a batch."""
        self._book.count(catalog.BATCHES_OUT_OF_MEMORY, (batch.pool, batch.bucket))

    def tick(
        self,
        now_s: float,
        loads: Mapping[str, PoolLoad],
        reports: Mapping[str, Sequence[ReplicaReport]],
        *,
        num_in_flight: int,
        num_records_lost: int,
    ) -> None:
        """Look at the pools, and hand on what has come; to be called about once a second."""
        if now_s - self._gauged_s >= GAUGE_INTERVAL_S:
            self._gauged_s = now_s
            self._set(catalog.IN_FLIGHT, (), num_in_flight)
            for pool, load in loads.items():
                self._look_at(pool, load)
                self._look_at_devices(pool, reports.get(pool, ()))
        if now_s - self._flushed_s >= FLUSH_INTERVAL_S:
            self._flushed_s = now_s
            self._book.count(catalog.RECORDS_LOST, (), num_records_lost - self._num_records_lost)
            self._num_records_lost = num_records_lost
            self._book.flush(self._sink)

    def _look_at(self, pool: str, load: PoolLoad) -> None:
        for lane_class, num_waiting in zip(CLASSES, load.waiting, strict=True):
            self._set(catalog.WAITING, (pool, lane_class), num_waiting)
        for metric, value in (
            (catalog.WAITING_DEVICE, load.backlog_s), (catalog.RUNNING, load.num_running), (catalog.RUNG, load.rung),
            (catalog.MEMORY_LEVEL, int(load.memory)), (catalog.REPLICAS, load.num_replicas),
            (catalog.CREDITS, load.num_credits),
        ):  # fmt: skip
            self._set(metric, (pool,), value)

    def _look_at_devices(self, pool: str, reports: Sequence[ReplicaReport]) -> None:
        devices = [report.device for report in reports]
        used = [each.used_bytes / each.total_bytes for each in devices if each.used_bytes and each.total_bytes]
        warm = [each.temperature_c for each in devices if each.temperature_c is not None]
        if used:
            self._set(catalog.MEMORY_USED, (pool,), max(used))
        if warm:
            self._set(catalog.TEMPERATURE, (pool,), max(warm))
        self._set(catalog.THROTTLED, (pool,), sum(bool(each.throttle_reasons) for each in devices))

    def _set(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._sink.set(metric.name, named(metric, labels), value)


def _known(priority: object) -> str:
    return priority if isinstance(priority, str) and priority in PRIORITIES else OTHER


def refusal_cause(result: FrameResult) -> RejectCause:
    """Why a frame was refused, as one of a few words."""
    if result.verdict is not None:
        return result.verdict.cause or RejectCause.OTHER
    if isinstance(result.error, InvalidFrameError):
        return RejectCause.INVALID
    return RejectCause.TICKETS if isinstance(result.error, TooManyTicketsError) else RejectCause.OTHER
