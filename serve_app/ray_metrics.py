"""The metrics of a router or spool in Ray, whose agent on each node exports them; to be made inside its replica."""

from __future__ import annotations

from collections.abc import Iterable

from ray.serve.metrics import Counter, Gauge

from serve_app.metric_book import counters_of
from serve_app.metric_catalog import CATALOG, Metric, MetricKind


class RayMetrics:
    """A `MetricSink`. Serve adds the labels `application`, `deployment` and `replica`, the agent those of the node."""

    def __init__(self, catalog: Iterable[Metric] = CATALOG) -> None:
        """Declare every metric of a catalog; Ray's annotation of `tag_keys` means tuples of any length."""
        metrics = tuple(catalog)
        self._counters = {
            name: Counter(name, metric.tells, tag_keys=labels)  # type: ignore[arg-type]
            for metric in metrics
            for name, labels in counters_of(metric)
        }
        self._gauges = {
            metric.name: Gauge(metric.name, metric.tells, tag_keys=metric.labels)  # type: ignore[arg-type]
            for metric in metrics
            if metric.kind is MetricKind.GAUGE
        }

    def add(self, name: str, labels: dict[str, str], amount: float) -> None:
        """Let a counter grow by an amount; 0 makes it known."""
        if amount > 0:
            self._counters[name].inc(amount, tags=labels)
        else:
            # `inc` refuses 0, although Ray exports a counter of 0 like any other.
            self._counters[name]._record(0.0, tags=labels)  # noqa: SLF001

    def set(self, name: str, labels: dict[str, str], value: float) -> None:
        """Say what a gauge is now."""
        self._gauges[name].set(value, tags=labels)
