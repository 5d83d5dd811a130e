"""The dashboard and the alert rules: made from the catalog, and asking for nothing that it does not have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml
from promql_selectors import selectors
from pydantic import BaseModel, ConfigDict, Field

from alerts import ALERTS
from dashboard import COLUMNS, CRITICAL_BOUND, dashboard
from panels import GROUPS
from serve_app.metric_book import counters_of
from serve_app.metric_catalog import CATALOG, SECONDS, SPOOL_CATALOG, MetricKind
from write_files import FOLDER, contents

METRICS = (*CATALOG, *SPOOL_CATALOG)
# By exported name: the labels that its series have. Serve adds the replica, which is the router's here.
LABELS = {
    f"ray_{name}_total": {*labels, "replica"} for metric in METRICS for name, labels in counters_of(metric)
} | {f"ray_{m.name}": {*m.labels, "replica"} for m in METRICS if m.kind is MetricKind.GAUGE}  # fmt: skip
PANELS = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
QUERIES = {
    f"{panel['title']} {panel['id']}{target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
} | {alert.name: alert.expression for alert in ALERTS}
TESTS = Path(__file__).parent / "alert_rules.test.yaml"
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool; on Debian: apt-get install prometheus"
)


@pytest.mark.parametrize("name", contents())
def test_the_files_are_what_the_generator_writes(name):
    """After a change of the catalog: python deploy/grafana/write_files.py."""
    assert (FOLDER / name).read_text(encoding="utf-8") == contents()[name]


@pytest.mark.parametrize("expression", QUERIES.values(), ids=QUERIES)
def test_a_query_asks_for_metrics_and_labels_of_the_catalog(expression):
    """Parsed by Prometheus's own grammar; a bound of a histogram is one that is there."""
    found = selectors(expression)

    assert found
    for name, matchers, grouped_by in found:
        assert name in LABELS, name
        assert set(matchers) | grouped_by <= LABELS[name], name
        if "le" in matchers:
            assert matchers["le"] in {f"{bound:g}" for bound in SECONDS}


@pytest.mark.parametrize("expression", ["sum(rate(x[5m])", "", "sum by (le) rate(x)"])
def test_what_is_no_promql_is_noticed(expression):
    """Else the test above proves nothing."""
    with pytest.raises(ValueError, match=r".+"):
        selectors(expression)


def test_selectors_are_found_wherever_they_stand():
    """In calls, under operators, in parentheses, with offsets."""
    found = selectors('a > 1 or sum by (p) (rate(b{x="1"}[5m])) / (absent(c offset 5m) unless -d)')

    assert [(each.name, each.matchers, set(each.grouped_by)) for each in found] == [
        ("a", {}, set()), ("b", {"x": "1"}, {"p"}), ("c", {}, set()), ("d", {}, set()),
    ]  # fmt: skip


def test_the_dashboard_shows_every_metric():
    """A metric that nobody sees is one too many, or a panel too few."""
    shown = {each.name for panel in PANELS for target in panel["targets"] for each in selectors(target["expr"])}

    for metric in METRICS:
        assert shown & set(metric.exported()), metric.name


def test_panels_stand_beside_each_other_and_say_what_they_show():
    """No two on one place, none beyond the edge, each with a text, a unit and a legend."""
    board = dashboard()
    taken = Counter()
    for panel in board["panels"]:
        x, y, width, height = (panel["gridPos"][key] for key in "xywh")
        assert x + width <= COLUMNS
        taken.update((column, row) for column in range(x, x + width) for row in range(y, y + height))
    assert set(taken.values()) == {1}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert [panel["title"] for panel in board["panels"] if panel["type"] == "row"] == [group.title for group in GROUPS]
    for panel in PANELS:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["legendFormat"] for target in panel["targets"])


def test_the_dashboard_names_its_variables_and_no_host():
    """What a query refers to is there; its source is asked for at import."""
    text = json.dumps(dashboard())
    names = {variable["name"] for variable in dashboard()["templating"]["list"]}

    assert set(re.findall(r"\$\{?([a-z_]+)\}?", text)) - {"__rate_interval", "__all", "_"} <= names | {
        "__rate_interval"
    }
    assert "://" not in text


class Rule(BaseModel):
    """An alert rule, as Prometheus reads it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    alert: str = Field(pattern=r"^Framelane[A-Za-z]+$")
    expr: str
    lasts: str = Field(alias="for", pattern=r"^\d+[smh]$")
    labels: dict[str, str]
    annotations: dict[str, str]


def test_the_rule_file_has_the_form_of_one():
    """Groups of rules, each with a severity, a summary and a runbook that says where to look."""
    content = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))
    assert list(content) == ["groups"]
    (group,) = content["groups"]
    assert set(group) == {"name", "rules"}
    rules = [Rule.model_validate(rule) for rule in group["rules"]]

    assert len({rule.alert for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule.labels) == {"severity"}
        assert rule.labels["severity"] in {"critical", "warning", "info"}
        assert set(rule.annotations) == {"summary", "runbook"}
        assert len(rule.annotations["runbook"]) > 80
        grouped = {label for each in selectors(rule.expr) for label in each.grouped_by}
        assert set(re.findall(r"\$labels\.(\w+)", rule.annotations["summary"])) <= grouped


def test_the_promise_is_the_plans_default():
    """The bound of the first rule is the one at the default deadline."""
    assert CRITICAL_BOUND == 0.25
    assert 'le="0.25"' in ALERTS[0].expression


def test_the_scrape_example_keeps_what_the_queries_ask_for():
    """Its relabelling drops no metric and no label of them."""
    (job,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    keep, drop = job["metric_relabel_configs"]

    assert keep["action"] == "keep"
    assert drop["action"] == "labeldrop"
    for expression in QUERIES.values():
        for name, matchers, grouped_by in selectors(expression):
            assert re.fullmatch(keep["regex"], name)
            assert not [label for label in {*matchers, *grouped_by} if re.fullmatch(drop["regex"], label)]


@promtool
@pytest.mark.parametrize(
    "command", [["check", "rules", "alerts.yaml"], ["check", "config", "prometheus.yml"]], ids=" ".join
)
def test_prometheus_accepts_the_files(command):
    """Its own tool says so."""
    ran = subprocess.run(["promtool", *command], cwd=FOLDER, check=False, capture_output=True, text=True, timeout=60)

    assert ran.returncode == 0, ran.stdout + ran.stderr


@promtool
def test_the_alerts_fire_when_they_should_and_only_then():
    """Series of trouble and of peace, played to Prometheus's own engine."""
    ran = subprocess.run(
        ["promtool", "test", "rules", str(TESTS)], check=False, capture_output=True, text=True, timeout=60
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
