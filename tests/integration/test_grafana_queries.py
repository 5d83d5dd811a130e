"""Every query of the dashboard and of the alert rules, against the metrics endpoint of a service that runs."""

from __future__ import annotations

import sys
import time
import urllib.request
from pathlib import Path

import pytest
import ray
import yaml
from prometheus_client.parser import text_string_to_metric_families

from framelane_inspection.scenes import draw_scene

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "deploy" / "grafana"), str(ROOT / "tests" / "unit" / "deploy")]

from promql_selectors import selectors  # noqa: E402

from dashboard import dashboard  # noqa: E402 (found by the path above)

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# The router hands on every five seconds, the tests' Ray exports every second.
EXPORTED_S = 40.0
# Not there without a thermometer, without degraded frames, and without durable cameras.
ABSENT_HERE = (
    "ray_framelane_device_temperature_celsius",
    "ray_framelane_degraded_frames_total",
    "ray_framelane_spool_",
)
QUERIES = [
    (panel["title"], target["expr"])
    for panel in dashboard()["panels"]
    if panel["type"] != "row"
    for target in panel["targets"]
] + [
    (rule["alert"], rule["expr"])
    for group in yaml.safe_load((ROOT / "deploy" / "grafana" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]


def exported():
    """The labels of every exported name, as a scrape of this node gives them."""
    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        content = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(content):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.fixture(scope="module")
def scraped(service):
    """A scrape after frames of both priorities."""
    scene_hwc = draw_scene((480, 640), seed=5).image_hwc
    service.client.detect_many([scene_hwc] * 3, camera="grafana")
    service.client.detect_many([scene_hwc] * 3, camera="grafana", priority="critical")
    give_up_s = time.monotonic() + EXPORTED_S
    while time.monotonic() < give_up_s:
        found = exported()
        counted = found.get("ray_framelane_frame_latency_seconds_bucket_total", [])
        if any(labels["priority"] == "critical" for labels in counted):
            break
        time.sleep(0.5)
    return found


@pytest.mark.parametrize(("title", "expression"), QUERIES, ids=[f"{i} {title}" for i, (title, _) in enumerate(QUERIES)])
def test_a_query_finds_its_metric_with_all_its_labels(scraped, title, expression):
    """Names and labels as the endpoint has them, for every selector; values where they do not depend on luck."""
    for name, matchers, grouped_by in selectors(expression):
        if name.startswith(ABSENT_HERE):
            assert name not in scraped or name.startswith(ABSENT_HERE[:2])
            continue
        assert name in scraped, f"{title}: {name} is not exported"
        for labels in scraped[name]:
            assert {*matchers, *grouped_by} <= set(labels), f"{title}: {name} has {sorted(labels)}"
        if "le" in matchers:
            assert matchers["le"] in {labels["le"] for labels in scraped[name]}
        for label in ("priority", "stage", "pool"):
            if matchers.get(label, ".*") != ".*":
                assert matchers[label] in {labels[label] for labels in scraped[name]}
