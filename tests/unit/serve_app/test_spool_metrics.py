"""What the spool tells Prometheus."""

from __future__ import annotations

from metric_samples import RecordingSink

from serve_app.metric_catalog import SPOOL_CATALOG
from serve_app.spool.spool_metrics import tell_spool
from serve_app.spool.spool_status import SpoolStatus


def told(status):
    """The gauges that it sets, each without labels."""
    sink = RecordingSink()
    tell_spool(status, sink)
    assert not sink.totals
    assert all(labels == () for _, labels in sink.gauges)
    return {name.removeprefix("framelane_spool_"): value for (name, _), value in sink.gauges.items()}


def test_an_open_spool_tells_all_its_gauges():
    """Those of the catalog, each."""
    gauges = told(SpoolStatus("/spool", "node", None, 7, 2, 100, 3, 250, 1000, 12.5))

    assert gauges == {
        "open_stores": 1,
        "pending_frames": 7,
        "oldest_seconds": 12.5,
        "used_ratio": 0.25,
        "aside_frames": 3,
    }
    assert {f"framelane_spool_{name}" for name in gauges} == {metric.name for metric in SPOOL_CATALOG}


def test_an_empty_spool_has_no_oldest_frame():
    """Its age is 0, not the last one's."""
    assert told(SpoolStatus("/spool", "node", None, max_bytes=10))["oldest_seconds"] == 0


def test_a_store_that_is_away_tells_nothing_but_that():
    """Its numbers are not known: zeros would look like an empty spool."""
    assert told(SpoolStatus("/spool", "node", "the disk is gone")) == {"open_stores": 0}
