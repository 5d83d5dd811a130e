"""What the spool tells Prometheus. It knows no Ray and reads no clock."""

from __future__ import annotations

from serve_app import metric_catalog as catalog
from serve_app.metric_book import MetricSink
from serve_app.spool.spool_status import SpoolStatus


def tell_spool(status: SpoolStatus, sink: MetricSink) -> None:
    """Say what the spool is now; of a store that is away only that it is."""
    sink.set(catalog.SPOOL_OPEN.name, {}, 0.0 if status.problem is not None else 1.0)
    if status.problem is not None:
        return
    for metric, value in (
        (catalog.SPOOL_PENDING, status.num_pending),
        (catalog.SPOOL_OLDEST, status.oldest_age_s or 0.0),
        (catalog.SPOOL_USED, status.num_bytes / status.max_bytes if status.max_bytes else 0.0),
        (catalog.SPOOL_ASIDE, status.num_aside),
    ):
        sink.set(metric.name, {}, value)
