"""The table of `docs/tuning.md` that is made from the catalogue of metrics."""

from __future__ import annotations

from serve_app.metric_catalog import CATALOG, Metric

BEGIN, END = "<!-- from metric_catalog.py -->", "<!-- end -->"
TABLE_HEAD = ["| metric | tells | what to turn |", "|---|---|---|"]


def page(old: str) -> str:
    """The page with its table made anew; all around the marks stays."""
    before, _, rest = old.partition(BEGIN)
    after = rest.partition(END)[2]
    return "\n".join([before + BEGIN, "", *TABLE_HEAD, *map(_row, CATALOG), "", END + after])


def _row(metric: Metric) -> str:
    return f"| `{metric.name}` | {metric.tells} | {metric.turn} |"
