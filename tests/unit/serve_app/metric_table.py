"""The table of all metrics in docs/cluster.md.

Print it anew: python tests/unit/serve_app/metric_table.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from serve_app.metric_catalog import CATALOG, SPOOL_CATALOG, Metric, MetricKind

DOCS = Path(__file__).parents[3] / "docs" / "cluster.md"
HEAD = ["| metric | type | labels | tells | what to turn |", "|---|---|---|---|---|"]


def table() -> list[str]:
    """Its lines."""
    return [*HEAD, *map(_row, (*CATALOG, *SPOOL_CATALOG))]


def _row(metric: Metric) -> str:
    names = metric.exported()
    shown = names[0]
    if metric.kind is MetricKind.HISTOGRAM:
        shown = f"ray_{metric.name}_{{bucket,count,sum}}_total"
    labels = ", ".join((*metric.labels, *(("le",) if metric.kind is MetricKind.HISTOGRAM else ()))) or "–"
    return f"| `{shown}` | {metric.kind.value} | {labels} | {metric.tells} | {metric.turn} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(table()) + "\n")
