"""What the dashboard shows: panels in groups, each with its queries. Values only; metrics come from the catalog."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app import metric_catalog as m
from serve_app.metric_catalog import Metric

# Grafana puts the scrape interval's least sensible window here.
WINDOW = "$__rate_interval"
POOL = 'pool=~"$pool"'
NOT_ASKED = 'outcome!~"superseded|cancelled"'
"""Frames that a newer one replaced, or whose caller gave up, are not late."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing.

    Attributes:
        title: what it shows.
        about: how to read it, and what to turn.
        unit: Grafana's id of one.
        queries: PromQL beside the legend of its series.
        is_stacked: whether series add up.
        most: where the axis ends; None: where the values do.
        is_number: one large number instead of curves.
        width: of the 24 columns.
        levels: values from which on a colour holds, ascending.
    """

    title: str
    about: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    is_stacked: bool = False
    most: float | None = None
    is_number: bool = False
    width: int = 8
    levels: tuple[tuple[float | None, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Panels that answer one question."""

    title: str
    panels: tuple[Panel, ...]


def named(metric: Metric, *matchers: str, part: str = "") -> str:
    """A selector: the exported name of a metric, or of a histogram's part, with its matchers."""
    names = {name.removesuffix("_total").rpartition("_")[2]: name for name in metric.exported()}
    name = names[part] if part else metric.exported()[0]
    return f"{name}{{{', '.join(matchers)}}}" if matchers else name


def rates(metric: Metric, by: str, *matchers: str, part: str = "") -> str:
    """Growth a second, summed over routers."""
    return f"sum by ({by}) (rate({named(metric, *matchers, part=part)}[{WINDOW}]))"


def quantile(share: float, metric: Metric, by: str, *matchers: str) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share}, {rates(metric, f'le, {by}', *matchers, part='bucket')})"


def mean(metric: Metric, by: str, *matchers: str) -> str:
    """The mean of a histogram."""
    return f"{rates(metric, by, *matchers, part='sum')} / {rates(metric, by, *matchers, part='count')}"


def largest(metric: Metric, *matchers: str) -> str:
    """A gauge that every router has: the largest counts."""
    return f"max by (pool) ({named(metric, POOL, *matchers)})"


def added(metric: Metric, by: str, *matchers: str) -> str:
    """A gauge of which every router has its part."""
    return f"sum by ({by}) ({named(metric, *matchers)})"


CRITICAL = 'priority="critical"'
CHOSEN = 'le="$critical_deadline"'
FINISHED = 'outcome="finished"'
INFER = 'stage="infer"'


def ratio(part: str, whole: str) -> str:
    """One rate in another."""
    return f"sum(rate({part}[{WINDOW}]))\n/ sum(rate({whole}[{WINDOW}]))"


IN_TIME = ratio(named(m.LATENCY, CRITICAL, CHOSEN, part="bucket"), named(m.FRAMES_ENDED, CRITICAL, NOT_ASKED))
GOOD_FROM_99 = ((None, "red"), (0.99, "orange"), (0.999, "green"))
GOOD_FROM_ONE = ((None, "red"), (1.0, "green"))
BAD_FROM_ONE = ((None, "green"), (1.0, "red"))

FLEET = Group(
    "Fleet",
    (
        Panel("Frames in a second", m.FRAMES_ENDED.tells, "reqps",
              ((f"sum(rate({named(m.FRAMES_ENDED)}[{WINDOW}]))", "all"),), is_number=True, width=4),
        Panel("Finished", "Share of the ended frames that were answered.", "percentunit",
              ((ratio(named(m.FRAMES_ENDED, FINISHED), named(m.FRAMES_ENDED)), "finished"),),
              is_number=True, width=4, levels=GOOD_FROM_99),
        Panel("How frames ended", f"{m.FRAMES_ENDED.tells}. Turn: {m.FRAMES_ENDED.turn}.", "reqps",
              ((rates(m.FRAMES_ENDED, "outcome"), "{{outcome}}"),), is_stacked=True),
        Panel("Latency by class", f"{m.LATENCY.tells}. Turn: {m.LATENCY.turn}.", "s",
              tuple((quantile(share, m.LATENCY, "priority"), f"p{share * 100:g} {{{{priority}}}}")
                    for share in (0.5, 0.95, 0.99))),
        Panel("Refused, by cause", f"{m.FRAMES_REJECTED.tells}. Turn: {m.FRAMES_REJECTED.turn}.", "reqps",
              ((rates(m.FRAMES_REJECTED, "cause"), "{{cause}}"),), is_stacked=True),
        Panel("Padding by bucket", f"{m.PADDING.tells}. Turn: {m.PADDING.turn}.", "percentunit",
              ((mean(m.PADDING, "bucket"), "{{bucket}}"),)),
        Panel("Transfer, p95 by bucket", f"{m.TRANSFER.tells}. Turn: {m.TRANSFER.turn}.", "s",
              ((quantile(0.95, m.TRANSFER, "bucket"), "{{bucket}}"),)),
    ),
)  # fmt: skip
PROMISE = Group(
    "The critical promise",
    (
        Panel("Critical frames in time", "Answered within the deadline chosen above, of those that ended. Choose the "
              "plan’s slo_s.critical, or the bound next to it.", "percentunit", ((IN_TIME, "in time"),),
              is_number=True, width=4, levels=GOOD_FROM_99),
        Panel("Critical frames in time", "The same over time.", "percentunit", ((IN_TIME, "in time"),),
              width=10, most=1.0),
        Panel("Latency of critical frames", f"{m.LATENCY.tells}. Turn: scheduling.max_chunk_s, replicas.", "s",
              tuple((quantile(share, m.LATENCY, "bucket", CRITICAL), f"p{share * 100:g} {{{{bucket}}}}")
                    for share in (0.5, 0.99)), width=10),
        Panel("Critical frames that did not finish", "By outcome. Each of them is a broken promise.", "reqps",
              ((rates(m.FRAMES_ENDED, "outcome", CRITICAL, 'outcome!="finished"'), "{{outcome}}"),), is_stacked=True),
        Panel("Waiting of critical frames, p99", f"{m.QUEUE.tells}. Turn: {m.QUEUE.turn}.", "s",
              ((quantile(0.99, m.QUEUE, "bucket", CRITICAL), "{{bucket}}"),)),
        Panel("Critical frames on a lower rung", f"{m.FRAMES_DEGRADED.tells}.", "reqps",
              ((rates(m.FRAMES_DEGRADED, "pool, rung", CRITICAL, POOL), "{{pool}} rung {{rung}}"),)),
    ),
)  # fmt: skip
QUEUES = Group(
    "Queues and batches",
    (
        Panel("Waiting frames", f"{m.WAITING.tells}. Turn: {m.WAITING.turn}.", "short",
              ((added(m.WAITING, "pool, class", POOL), "{{pool}} {{class}}"),), is_stacked=True),
        Panel("Waiting work", f"{m.WAITING_DEVICE.tells}. Turn: {m.WAITING_DEVICE.turn}.", "s",
              ((added(m.WAITING_DEVICE, "pool", POOL), "{{pool}}"),)),
        Panel("Waiting, p95 by class", f"{m.QUEUE.tells}. Turn: {m.QUEUE.turn}.", "s",
              ((quantile(0.95, m.QUEUE, "priority"), "{{priority}}"),)),
        Panel("Frames a batch", f"{m.BATCH_FRAMES.tells}. Turn: {m.BATCH_FRAMES.turn}.", "short",
              ((mean(m.BATCH_FRAMES, "pool, bucket", POOL), "{{pool}} {{bucket}}"),)),
        Panel("Batches filled", f"{m.BATCH_FILL.tells}. Turn: {m.BATCH_FILL.turn}.", "percentunit",
              ((mean(m.BATCH_FILL, "pool, bucket", POOL), "{{pool}} {{bucket}}"),), most=1.0),
        Panel("Free credits and running batches", f"{m.CREDITS.tells}. {m.RUNNING.tells}.", "short",
              ((added(m.CREDITS, "pool", POOL), "{{pool}} free"),
               (added(m.RUNNING, "pool", POOL), "{{pool}} running"))),
    ),
)  # fmt: skip
DEGRADATION = Group(
    "Degradation",
    (
        Panel("Rung of the ladder", f"{m.RUNG.tells}. {m.RUNG.turn}.", "short", ((largest(m.RUNG), "{{pool}}"),)),
        Panel("Frames on a lower rung", f"{m.FRAMES_DEGRADED.tells}. Turn: {m.FRAMES_DEGRADED.turn}.", "reqps",
              ((rates(m.FRAMES_DEGRADED, "pool, rung", POOL), "{{pool}} rung {{rung}}"),), is_stacked=True),
        Panel("Verdicts", "What admission said of the frames that ended; empty: refused unread.", "reqps",
              ((rates(m.FRAMES_ENDED, "verdict"), "{{verdict}}"),), is_stacked=True),
    ),
)  # fmt: skip
MEMORY = Group(
    "Memory",
    (
        Panel("Memory level", f"{m.MEMORY_LEVEL.tells}. Turn: {m.MEMORY_LEVEL.turn}.", "short",
              ((largest(m.MEMORY_LEVEL), "{{pool}}"),), most=3.0,
              levels=((None, "green"), (1.0, "yellow"), (2.0, "orange"), (3.0, "red"))),
        Panel("Fullest device", f"{m.MEMORY_USED.tells}.", "percentunit", ((largest(m.MEMORY_USED), "{{pool}}"),),
              most=1.0),
        Panel("Batches without memory", f"{m.BATCHES_OUT_OF_MEMORY.tells}.", "ops",
              ((rates(m.BATCHES_OUT_OF_MEMORY, "pool, bucket", POOL), "{{pool}} {{bucket}}"),)),
    ),
)  # fmt: skip
REPLICAS = Group(
    "Replicas",
    (
        Panel("Ready replicas", f"{m.REPLICAS.tells}. {m.REPLICAS.turn}.", "short",
              ((largest(m.REPLICAS), "{{pool}}"),)),
        Panel("Share of its time that a replica’s network runs", "Near 1: the pool is full.", "percentunit",
              ((f"{rates(m.BATCH_STAGE, 'pool', INFER, POOL, part='sum')}\n/ {largest(m.REPLICAS)}", "{{pool}}"),),
              most=1.0),
        Panel("Stages of a batch, mean", f"{m.BATCH_STAGE.tells}. Turn: {m.BATCH_STAGE.turn}.", "s",
              ((mean(m.BATCH_STAGE, "pool, stage", POOL), "{{pool}} {{stage}}"),)),
        Panel("The network, p95 by bucket", f"{m.BATCH_STAGE.tells}.", "s",
              ((quantile(0.95, m.BATCH_STAGE, "bucket, model", INFER, POOL), "{{bucket}} {{model}}"),)),
        Panel("Lost batches", f"{m.BATCHES_LOST.tells}. Look at {m.BATCHES_LOST.turn}.", "ops",
              ((rates(m.BATCHES_LOST, "pool, cause", POOL), "{{pool}} {{cause}}"),)),
        Panel("Warmest device, throttled replicas", f"{m.TEMPERATURE.tells}. {m.THROTTLED.tells}.", "short",
              ((largest(m.TEMPERATURE), "{{pool}} °C"), (largest(m.THROTTLED), "{{pool}} throttled"))),
    ),
)  # fmt: skip
ROUTERS = Group(
    "Routers",
    (
        Panel("Frames by router", "Each camera has one router; ended frames a second.", "reqps",
              ((rates(m.FRAMES_ENDED, "replica"), "{{replica}}"),), is_stacked=True),
        Panel("In flight by router", f"{m.IN_FLIGHT.tells}. Turn: {m.IN_FLIGHT.turn}.", "short",
              ((added(m.IN_FLIGHT, "replica"), "{{replica}}"),), is_stacked=True),
        Panel("Lost records", f"{m.RECORDS_LOST.tells}. Look at {m.RECORDS_LOST.turn}.", "ops",
              ((rates(m.RECORDS_LOST, "replica"), "{{replica}}"),)),
    ),
)  # fmt: skip
SPOOL = Group(
    "Spool (durable frames)",
    (
        Panel("Spool", f"{m.SPOOL_OPEN.tells}. Look at {m.SPOOL_OPEN.turn}.", "short",
              ((f"min({named(m.SPOOL_OPEN)})", "open"),), is_number=True, width=4, levels=GOOD_FROM_ONE),
        Panel("Set aside", f"{m.SPOOL_ASIDE.tells}. See {m.SPOOL_ASIDE.turn}.", "short",
              ((f"sum({named(m.SPOOL_ASIDE)})", "aside"),), is_number=True, width=4, levels=BAD_FROM_ONE),
        Panel("Durable frames without a result", f"{m.SPOOL_PENDING.tells}. {m.SPOOL_PENDING.turn}.", "short",
              ((f"sum({named(m.SPOOL_PENDING)})", "pending"),), width=6),
        Panel("Age of the oldest", f"{m.SPOOL_OLDEST.tells}. {m.SPOOL_OLDEST.turn}.", "s",
              ((f"max({named(m.SPOOL_OLDEST)})", "oldest"),), width=5),
        Panel("Used", f"{m.SPOOL_USED.tells}. Turn: {m.SPOOL_USED.turn}.", "percentunit",
              ((f"max({named(m.SPOOL_USED)})", "used"),), width=5, most=1.0),
    ),
)  # fmt: skip

GROUPS = (FLEET, PROMISE, QUEUES, DEGRADATION, MEMORY, REPLICAS, ROUTERS, SPOOL)
