"""Alert rules of Prometheus, each with what to do when it fires. Values only; metrics come from the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from dashboard import CRITICAL_BOUND
from panels import CRITICAL, NOT_ASKED, named
from serve_app import metric_catalog as m

FAILED = named(m.FRAMES_ENDED, 'outcome="failed"')
ENDED_CRITICAL = named(m.FRAMES_ENDED, CRITICAL, NOT_ASKED)
IN_TIME_CRITICAL = named(m.LATENCY, CRITICAL, f'le="{CRITICAL_BOUND:g}"', part="bucket")


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule.

    Attributes:
        name: of the alert.
        severity: critical (wake somebody), warning (today), info (this week).
        expression: PromQL; each of its series is an alert.
        lasts: how long it must hold.
        summary: one line; `{{ $labels.pool }}` and the like are filled in.
        runbook: what it means, where to look, what to do.
    """

    name: str
    severity: str
    expression: str
    lasts: str
    summary: str
    runbook: str


ALERTS = (
    Alert(
        "FramelaneCriticalFramesLate", "critical",
        f"sum(rate({IN_TIME_CRITICAL}[5m]))\n/ sum(rate({ENDED_CRITICAL}[5m])) < 0.99",
        "2m",
        f"{{{{ $value | humanizePercentage }}}} of the critical frames were answered within {CRITICAL_BOUND:g} s",
        "More than one critical frame in a hundred was late or not answered. If slo_s.critical of your plan is another "
        f'one, put the bound next to it in the place of le="{CRITICAL_BOUND:g}". Look at ‘The critical promise’ on '
        "the dashboard. Waiting of critical frames near the network’s time of a large canvas: lower "
        "scheduling.max_chunk_s. Share of its time that a replica’s network runs near 1 and more critical frames than "
        "before: more replicas. Transfer high: pixels come from another machine. For single frames: framelane report "
        "on the frame log names the slowest with what was ahead of them.",
    ),
    Alert(
        "FramelaneFramesFailed", "critical",
        # A counter that begins with its first event has not grown, so new series count as well.
        f"sum(increase({FAILED}[5m])) > 0\nor sum({FAILED} unless {FAILED} offset 5m) > 0",
        "1m",
        "Frames failed: a replica tried and could not, or their pixels were gone",
        "The log of the router has a line for each with frame_id, camera, pool and engine_replica: an error is ours, a "
        "warning the sender’s (pixels gone with their process, or not the size that was announced). Many at once with "
        "‘Lost batches’: replicas die; see FramelaneBatchesLost.",
    ),
    Alert(
        "FramelaneBatchesLost", "warning",
        f"sum by (pool, cause) (increase({named(m.BATCHES_LOST)}[5m])) > 0",
        "0m",
        "Pool {{ $labels.pool }}: batches without an answer ({{ $labels.cause }})",
        "Replicas died, or their calls raised. Their frames went elsewhere if there was time. Read the replica’s log "
        "(cause failed) and the machine’s (cause died: out of memory, a lost device); framelane status says which "
        "replicas are ready and what Serve says of the others.",
    ),
    Alert(
        "FramelanePoolWithoutReplicas", "critical",
        f"max by (pool) ({named(m.REPLICAS)}) == 0\nand on (pool) sum by (pool) ({named(m.WAITING)}) > 0",
        "1m",
        "Pool {{ $labels.pool }} has no ready replica while frames wait for it",
        "Nothing of this pool is served. framelane status shows Serve’s reason: no machine with room or the labels, an "
        "engine that does not build, a device without memory. A pool of 0 to N replicas starts its first one by "
        "itself; if this lasts longer than a start, the same reasons hold.",
    ),
    Alert(
        "FramelaneReplicaMissing", "warning",
        f"max by (pool) ({named(m.REPLICAS)}) < max by (pool) (max_over_time({named(m.REPLICAS)}[30m]))\n"
        f"and on (pool) sum by (pool) ({named(m.WAITING_DEVICE)}) > max by (pool) ({named(m.REPLICAS)})",
        "5m",
        "Pool {{ $labels.pool }} has fewer ready replicas than before, and more than a second of work waits for each",
        "A replica is gone, unhealthy, slow beside its peers or without memory: framelane status names it with the "
        "reason (unhealthy, trouble). Serve replaces dead ones where there is room. In a pool that scales by load this "
        "fires only when it shrank too early: raise autoscaling.down_after_s.",
    ),
    Alert(
        "FramelaneQueueBacklog", "warning",
        f"sum by (pool) ({named(m.WAITING_DEVICE)})\n/ (max by (pool) ({named(m.REPLICAS)}) > 0) > 5",
        "5m",
        "Pool {{ $labels.pool }}: {{ $value | humanizeDuration }} of work waits for each replica",
        "Frames come faster than they are served; what cannot be in time expires or is refused. More replicas "
        "(max_replicas), a ladder, larger batches on GPUs, fewer frames a second. Deferred and durable frames may wait "
        "by design: see by class under ‘Queues and batches’.",
    ),
    Alert(
        "FramelaneMemoryCritical", "critical",
        f"max by (pool) ({named(m.MEMORY_LEVEL)}) >= 2",
        "3m",
        "Pool {{ $labels.pool }}: memory level {{ $value }} (2 critical, 3 shed)",
        "All devices of the pool are nearly full: normal frames run on the last rung, at 3 they are refused. Who uses "
        "the memory? A GPU’s other tenants count, and on a CPU the machine’s. Fewer buckets or smaller batches in the "
        "pool, a lighter model, more memory; docs/cluster.md, ‘Memory’.",
    ),
    Alert(
        "FramelaneOutOfMemory", "warning",
        f"sum by (pool, bucket) (increase({named(m.BATCHES_OUT_OF_MEMORY)}[10m])) > 0",
        "0m",
        "Pool {{ $labels.pool }}, bucket {{ $labels.bucket }}: the device had no memory for a batch",
        "The frames went again in smaller batches. If it comes again: smaller buckets.batches for this bucket, or "
        "fewer buckets in the pool.",
    ),
    Alert(
        "FramelaneLadderLong", "info",
        f"max by (pool) ({named(m.RUNG)}) > 0",
        "15m",
        "Pool {{ $labels.pool }} has served noncritical frames from rung {{ $value }} on for a quarter of an hour",
        "The ladder is for peaks: for long it hides that replicas are missing. More replicas, or a plan for this "
        "traffic: framelane plan on the frame log.",
    ),
    Alert(
        "FramelaneDeviceThrottled", "info",
        f"max by (pool) ({named(m.THROTTLED)}) > 0",
        "10m",
        "Pool {{ $labels.pool }}: {{ $value }} replicas say that something slows their device down",
        "Cooling, the power limit, on a CPU the quota of its control group. framelane status names the reason.",
    ),
    Alert(
        "FramelaneRecordsLost", "warning",
        f"sum(increase({named(m.RECORDS_LOST)}[10m])) > 0",
        "0m",
        "The frame log misses records of {{ $value | humanize }} frames",
        "Frames are served, their records are not written: the disk of frame_log is full, or the file was taken away.",
    ),
    Alert(
        "FramelaneSpoolClosed", "critical",
        f"min({named(m.SPOOL_OPEN)}) == 0",
        "2m",
        "The spool takes no durable frames: its store cannot be reached",
        "Its disk, or Redis: framelane status says what it was told. What lies there is kept, and answered when the "
        "store is back; callers are refused until then.",
    ),
    Alert(
        "FramelaneSpoolFull", "warning",
        f"max({named(m.SPOOL_USED)}) > 0.9",
        "10m",
        "The spool is {{ $value | humanizePercentage }} full",
        "At 100 % durable frames are refused. Pending ones grow: more replicas. Results take the room: a shorter "
        "spool.result_ttl_s. Else a larger spool.max_bytes.",
    ),
    Alert(
        "FramelaneSpoolAside", "warning",
        f"sum({named(m.SPOOL_ASIDE)}) > 0",
        "5m",
        "{{ $value }} durable frames were set aside",
        "Records that could not be read, or that nobody could answer. framelane spool lists and drops them.",
    ),
    Alert(
        "FramelaneNoMetrics", "critical",
        f"absent({named(m.REPLICAS)})",
        "2m",
        "No metrics of Framelane come in",
        "No router runs, or Prometheus cannot reach the port of Ray’s agent on its machine (framelane status shows "
        "ports; framelane up --metrics-port 9100 fixes one). In a new scrape configuration: does its relabelling keep "
        "ray_framelane_.*? While this fires no other alert can.",
    ),
)  # fmt: skip

HEAD = """\
# Alert rules of Framelane. Written by deploy/grafana/write_files.py from serve_app/metric_catalog.py: change that.
# The deadline of critical frames is the plan's default; see the first rule if yours is another one.
"""


def alerts_yaml() -> str:
    """The rule file of Prometheus."""
    groups = {"groups": [{"name": "framelane", "rules": list(_rules())}]}
    return HEAD + yaml.dump(groups, sort_keys=False, allow_unicode=True, width=118)


def _rules() -> Iterator[dict[str, object]]:
    for alert in ALERTS:
        yield {
            "alert": alert.name,
            "expr": alert.expression,
            "for": alert.lasts,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "runbook": alert.runbook},
        }
