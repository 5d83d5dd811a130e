"""Every metric of routers and spool: its name, kind and labels, what it tells, what to turn when it looks bad.

Labels take the plan's names and closed sets of words, nothing that a client sends: so the number of series follows from
the plan. `docs/cluster.md` has the same table, and a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# Half a second is the deadline of many lines and a second what people call live: finest there, and up to what a durable
# frame may wait. Sixteen of them cost a flush as many records.
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
# Batch ladders are powers of two.
FRAMES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 0.9, 1.0)


class MetricKind(Enum):
    """How a metric behaves."""

    COUNTER = "counter"
    """Only grows; look at its rate."""
    GAUGE = "gauge"
    """What was true at the last look."""
    HISTOGRAM = "histogram"
    """Counters of how many values were at most `le`, of all of them, and of their sum."""


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric; the same only as itself, since books look it up for every frame.

    Attributes:
        name: ends in its unit; Ray puts `ray_` before it and `_total` behind a counter.
        kind: how it behaves.
        labels: their names, in the order in which values are given.
        tells: what one unit of it means, and where an interval starts and ends.
        turn: which knob it is about.
        bounds: upper bounds of a histogram's classes, growing; empty for other kinds.
    """

    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    tells: str
    turn: str
    bounds: tuple[float, ...] = ()

    def exported(self) -> tuple[str, ...]:
        """The names that an endpoint shows for it."""
        if self.kind is MetricKind.GAUGE:
            return (f"ray_{self.name}",)
        if self.kind is MetricKind.COUNTER:
            return (f"ray_{self.name}_total",)
        return tuple(f"ray_{self.name}_{part}_total" for part in ("bucket", "count", "sum"))


_COUNTER, _GAUGE, _HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM
_LANE = ("pool", "bucket")

FRAMES_ENDED = Metric(
    "framelane_ended_frames", _COUNTER, ("pool", "bucket", "model", "priority", "verdict", "outcome"),
    "frames that have ended, each once; pool, bucket and model are empty for a frame that no replica was chosen for",
    "outcomes other than finished: replicas, or a ladder",
)  # fmt: skip
FRAMES_REJECTED = Metric(
    "framelane_rejected_frames", _COUNTER, ("priority", "cause"),
    "frames that were refused at arrival, by why",
    "frames, bytes: limits; late: replicas, or a ladder; memory: memory, a lighter model; oversize: cameras.oversize",
)  # fmt: skip
FRAMES_DEGRADED = Metric(
    "framelane_degraded_frames", _COUNTER, ("pool", "priority", "rung"),
    "frames that finished below their own rung of the ladder",
    "replicas; ladder",
)  # fmt: skip
LATENCY = Metric(
    "framelane_frame_latency_seconds", _HISTOGRAM, ("priority", "bucket"),
    "finished frames: from the router's receipt of the frame to its answer",
    "against slo_s: replicas, a ladder",
    SECONDS,
)  # fmt: skip
QUEUE = Metric(
    "framelane_frame_queue_seconds", _HISTOGRAM, ("priority", "bucket"),
    "finished frames: from the router's receipt to the batch's call, and staged at the replica behind another batch",
    "replicas; scheduling.defer_above_px, max_chunk_s",
    SECONDS,
)  # fmt: skip
TRANSFER = Metric(
    "framelane_frame_transfer_seconds", _HISTOGRAM, ("priority", "bucket"),
    "finished frames: the call to the replica and back, fetching the pixels included, its work on them not",
    "where cameras enter: on the machine of the replicas it is least",
    SECONDS,
)  # fmt: skip
PADDING = Metric(
    "framelane_frame_padding_ratio", _HISTOGRAM, ("bucket",),
    "finished frames: share of the canvas that showed no frame",
    "canvases: framelane plan --check",
    SHARES,
)  # fmt: skip
BATCH_FRAMES = Metric(
    "framelane_batch_frames", _HISTOGRAM, _LANE,
    "batches that ran: frames, or tiles of them, in one",
    "buckets.batches; more cameras of one size",
    FRAMES,
)  # fmt: skip
BATCH_FILL = Metric(
    "framelane_batch_fill_ratio", _HISTOGRAM, _LANE,
    "batches that ran: frames in it, as a share of the bucket's largest warmed batch",
    "buckets.batches: steps that are never filled cost memory",
    SHARES,
)  # fmt: skip
BATCH_STAGE = Metric(
    "framelane_batch_stage_seconds", _HISTOGRAM, (*_LANE, "model", "stage"),
    "batches that ran (fetch: all), on the replica's clock: fetch (call received to all pixels here), preprocess (to "
    "all placed), staged (to the device being free), infer (the network), postprocess (its output to boxes)",
    "infer: the model, its canvas, the device; preprocess: the replica's cpus; fetch: where cameras enter",
    SECONDS,
)  # fmt: skip
BATCHES_LOST = Metric(
    "framelane_lost_batches", _COUNTER, ("pool", "cause"),
    "batches without an answer: died (their replica was gone), failed (the call raised)",
    "the logs of the replica",
)  # fmt: skip
BATCHES_OUT_OF_MEMORY = Metric(
    "framelane_out_of_memory_batches", _COUNTER, _LANE,
    "batches that their device had no memory for; their frames go again in smaller ones",
    "buckets.batches, memory; a smaller canvas",
)  # fmt: skip
RECORDS_LOST = Metric(
    "framelane_lost_records", _COUNTER, (),
    "frames whose record could not be written to the frame log",
    "the disk of frame_log",
)  # fmt: skip
IN_FLIGHT = Metric(
    "framelane_in_flight_frames", _GAUGE, (),
    "frames that wait or run; of several routers the sum counts",
    "limits.max_waiting_frames",
)  # fmt: skip
WAITING = Metric(
    "framelane_waiting_frames", _GAUGE, ("pool", "class"),
    "frames, or tiles of them, in the lanes of a class (critical, normal, deferred); of several routers the sum counts",
    "replicas",
)  # fmt: skip
WAITING_DEVICE = Metric(
    "framelane_waiting_device_seconds", _GAUGE, ("pool",),
    "predicted device seconds of all that waits; of several routers the sum counts",
    "replicas, max_replicas; autoscaling.max_wait_s",
)  # fmt: skip
RUNNING = Metric(
    "framelane_running_batches", _GAUGE, ("pool",),
    "batches at the replicas; of several routers the sum counts",
    "–",
)  # fmt: skip
RUNG = Metric(
    "framelane_ladder_rung", _GAUGE, ("pool",),
    "the first rung that noncritical frames may take now, 0 is their own; of several routers the largest counts",
    "above 0 for long: replicas",
)  # fmt: skip
MEMORY_LEVEL = Metric(
    "framelane_memory_level", _GAUGE, ("pool",),
    "0 normal, 1 high, 2 critical, 3 shed; of several routers the largest counts",
    "memory; buckets.batches; fewer buckets in the pool",
)  # fmt: skip
REPLICAS = Metric(
    "framelane_ready_replicas", _GAUGE, ("pool",),
    "replicas that answered their report; every router counts all of them: the largest counts",
    "below replicas for long: the logs of the replica",
)  # fmt: skip
CREDITS = Metric(
    "framelane_free_credits", _GAUGE, ("pool",),
    "noncritical batches that the router may still send now; of several routers the sum counts",
    "0 with waiting frames: replicas",
)  # fmt: skip
MEMORY_USED = Metric(
    "framelane_device_memory_used_ratio", _GAUGE, ("pool",),
    "used share of the fullest device's memory; of several routers the largest counts",
    "memory; buckets.batches; fewer buckets in the pool",
)  # fmt: skip
TEMPERATURE = Metric(
    "framelane_device_temperature_celsius", _GAUGE, ("pool",),
    "of the warmest device; of several routers the largest counts",
    "the machine's cooling",
)  # fmt: skip
THROTTLED = Metric(
    "framelane_throttled_replicas", _GAUGE, ("pool",),
    "replicas whose device says that something slows it down; of several routers the largest counts",
    "cooling, power limit; on a CPU its quota",
)  # fmt: skip

# What every router has.
CATALOG = (
    FRAMES_ENDED, FRAMES_REJECTED, FRAMES_DEGRADED, LATENCY, QUEUE, TRANSFER, PADDING, BATCH_FRAMES, BATCH_FILL,
    BATCH_STAGE, BATCHES_LOST, BATCHES_OUT_OF_MEMORY, RECORDS_LOST, IN_FLIGHT, WAITING, WAITING_DEVICE, RUNNING, RUNG,
    MEMORY_LEVEL, REPLICAS, CREDITS, MEMORY_USED, TEMPERATURE, THROTTLED,
)  # fmt: skip

SPOOL_OPEN = Metric(
    "framelane_spool_open_stores", _GAUGE, (),
    "1 while the spool takes durable frames, 0 while its store cannot be reached",
    "the log of the spool; its disk, or Redis",
)  # fmt: skip
SPOOL_PENDING = Metric(
    "framelane_spool_pending_frames", _GAUGE, (),
    "durable frames that have no result yet",
    "growing for long: replicas",
)  # fmt: skip
SPOOL_OLDEST = Metric(
    "framelane_spool_oldest_seconds", _GAUGE, (),
    "age of the oldest of them; 0 if there is none",
    "near spool.max_age_s: replicas",
)  # fmt: skip
SPOOL_USED = Metric(
    "framelane_spool_used_ratio", _GAUGE, (),
    "used share of spool.max_bytes",
    "spool.max_bytes, result_ttl_s, jpeg_quality; replicas",
)  # fmt: skip
SPOOL_ASIDE = Metric(
    "framelane_spool_aside_frames", _GAUGE, (),
    "records that could not be read, or whose frame nobody could answer, and were set aside",
    "framelane spool",
)  # fmt: skip

# What the spool has, where the plan has durable cameras.
SPOOL_CATALOG = (SPOOL_OPEN, SPOOL_PENDING, SPOOL_OLDEST, SPOOL_USED, SPOOL_ASIDE)
