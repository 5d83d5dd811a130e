"""The panels as a Grafana dashboard: what its import reads. Pure."""

from __future__ import annotations

from typing import Any

from panels import GROUPS, Panel, named
from serve_app.metric_catalog import REPLICAS, SECONDS
from serve_app.plan import DEFAULT_CRITICAL_SLO_S

UID = "framelane"
# Of Grafana 10; later ones bring it up to date when they import it.
SCHEMA_VERSION = 39
COLUMNS = 24
PANEL_HEIGHT = 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# The first bound that holds the default deadline.
CRITICAL_BOUND = next(bound for bound in SECONDS if bound >= DEFAULT_CRITICAL_SLO_S)

Json = dict[str, Any]


def dashboard() -> Json:
    """The whole of it, for `json.dumps`."""
    panels: list[Json] = []
    y = 0
    for group in GROUPS:
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": group.title, "collapsed": False, "panels": [],
             "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}}
        )  # fmt: skip
        y, x = y + 1, 0
        for panel in group.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + PANEL_HEIGHT
            place = {"x": x, "y": y, "w": panel.width, "h": PANEL_HEIGHT}
            panels.append({"id": len(panels) + 1, "gridPos": place} | _panel(panel))
            x += panel.width
        y += PANEL_HEIGHT
    return {
        "uid": UID,
        "title": "Framelane",
        "description": "Written by deploy/grafana/write_files.py from serve_app/metric_catalog.py.",
        "tags": ["framelane", "ray"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _variables() -> list[Json]:
    bounds = [f"{bound:g}" for bound in SECONDS]
    query = f"label_values({named(REPLICAS)}, pool)"
    return [
        {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus", "refresh": 1},
        {"name": "pool", "label": "Pool", "type": "query", "datasource": SOURCE, "definition": query,
         "query": {"query": query, "refId": "pools"}, "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*",
         "sort": 1, "current": {"text": ["All"], "value": ["$__all"]}},
        {"name": "critical_deadline", "label": "Critical deadline, s", "type": "custom", "query": ",".join(bounds),
         "options": [{"text": bound, "value": bound, "selected": bound == f"{CRITICAL_BOUND:g}"} for bound in bounds],
         "current": {"text": f"{CRITICAL_BOUND:g}", "value": f"{CRITICAL_BOUND:g}"}},
    ]  # fmt: skip


def _panel(panel: Panel) -> Json:
    defaults: Json = {"unit": panel.unit, "min": 0}
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.levels:
        steps = [{"value": value, "color": colour} for value, colour in panel.levels]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": expression,
            "legendFormat": legend,
            "range": True,
        }
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    common = {"title": panel.title, "description": panel.about, "datasource": SOURCE, "targets": targets}
    if panel.is_number:
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
        return common | {"type": "stat", "options": options, "fieldConfig": {"defaults": defaults, "overrides": []}}
    defaults["custom"] = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 60 if panel.is_stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return common | {"type": "timeseries", "options": options, "fieldConfig": {"defaults": defaults, "overrides": []}}
