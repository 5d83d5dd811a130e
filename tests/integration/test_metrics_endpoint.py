"""Metrics as Prometheus gets them from a node, and logs as a collector reads them, of the real service."""

from __future__ import annotations

import json
import time
import urllib.request
import uuid
from collections import Counter
from pathlib import Path

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from framelane_inspection.scenes import draw_scene
from serve_app.frames import FrameMeta
from serve_app.metric_catalog import CATALOG, MetricKind

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# The router hands on every five seconds, the tests' Ray exports every second.
EXPORTED_S = 40.0
# What Ray and Serve put beside our own labels: of the process and its machine, as many as there are routers.
THEIRS = {
    "Component", "NodeAddress", "SessionName", "Version", "WorkerId", "application", "deployment", "replica",
    "otel_scope_name", "otel_scope_version", "otel_scope_schema_url",
}  # fmt: skip


def meta_of(size_hw, **changes):
    """What a client would say of such a frame."""
    values = {"frame_id": uuid.uuid4().hex, "camera": "metrics", "size_hw": size_hw, "priority": "normal"}
    return FrameMeta(**(values | changes))


def families():
    """Ours, by name, as a scrape of this node's endpoint gives them."""
    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        content = answer.read().decode()
    # The parser takes `_total` off a counter's name.
    return {
        family.name: family
        for family in text_string_to_metric_families(content)
        if family.name.startswith("ray_framelane_")
    }


def series(found, name, *labels):
    """The values of a counter or gauge, by some of its labels."""
    values = Counter()
    for sample in found[name].samples if name in found else ():
        values[tuple(sample.labels[label] for label in labels)] += sample.value
    return +values


def exported_when(is_there):
    """The first scrape of which this holds; the last one if it never does."""
    give_up_s = time.monotonic() + EXPORTED_S
    while not is_there(found := families()) and time.monotonic() < give_up_s:
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def scraped(service):
    """Frames of mixed outcomes, then a scrape that has all that ended so far, with the service's own count."""
    handle, scene_hwc = service.client._handle, draw_scene((480, 640), seed=3).image_hwc
    service.client.detect_many([scene_hwc] * 9, camera="metrics")
    service.client.detect_many([scene_hwc] * 3, camera="full-metrics", priority="critical")
    submitted = [
        meta_of((100, 100)),  # of another size: fails at the replica
        meta_of((480, 640), priority='urgent"\n'),
        meta_of((480, 640), camera=""),
        meta_of((480, 640), slo_s=1e-9),
        meta_of((1000, 1000), camera="strict-metrics"),
    ]
    for meta in submitted:
        handle.submit.remote(meta, [ray.put(scene_hwc)]).result()
    service.assert_conserved()
    status = service.client.status()

    def has_all(found):
        return series(found, "ray_framelane_ended_frames", "outcome").total() >= sum(status.outcomes.values())

    return exported_when(has_all), status, service.records(), submitted[0].frame_id


def test_the_counts_are_exactly_those_of_the_status_and_of_the_frame_log(scraped):
    """Frame by frame: outcome, verdict, priority, and where it was served."""
    found, status, records, _ = scraped

    assert {label: int(n) for (label,), n in series(found, "ray_framelane_ended_frames", "outcome").items()} == dict(
        status.outcomes
    )
    verdicts = series(found, "ray_framelane_ended_frames", "verdict")
    assert {label: int(n) for (label,), n in verdicts.items() if label} == dict(status.verdicts)
    keys = ("pool", "bucket", "model", "priority", "verdict", "outcome")
    logged = Counter(tuple(record[key] or "" for key in keys) for record in records)
    known = Counter()
    for labels, number in logged.items():
        priority = labels[3] if labels[3] in ("critical", "normal") else "other"
        known[(*labels[:3], priority, *labels[4:])] += number
    assert series(found, "ray_framelane_ended_frames", *keys) == known


def test_the_sums_of_times_are_exactly_those_of_the_frame_log(scraped):
    """Ray's own histogram would put the middle of each class here."""
    found, _, records, _ = scraped
    finished = [record for record in records if record["outcome"] == "finished"]
    for name, key in (("latency", "total_ms"), ("queue", "queue_ms"), ("transfer", "transfer_ms")):
        of_lane = Counter()
        for record in finished:
            of_lane[record["priority"], record["bucket"]] += record[key] / 1000
        sums = series(found, f"ray_framelane_frame_{name}_seconds_sum", "priority", "bucket")
        assert sums == pytest.approx(of_lane, rel=1e-3, abs=1e-3)
        counts = series(found, f"ray_framelane_frame_{name}_seconds_count", "priority", "bucket")
        assert counts == Counter((record["priority"], record["bucket"]) for record in finished)


def test_the_classes_of_a_histogram_grow_up_to_its_count(scraped):
    """What `histogram_quantile` needs: all bounds, cumulative."""
    found, _, _, _ = scraped
    for metric in CATALOG:
        if metric.kind is not MetricKind.HISTOGRAM:
            continue
        counts = series(found, f"ray_{metric.name}_count", *metric.labels)
        assert counts, metric.name
        by_bound = {}
        for sample in found[f"ray_{metric.name}_bucket"].samples:
            labels = tuple(sample.labels[label] for label in metric.labels)
            by_bound.setdefault(labels, {})[float(sample.labels["le"])] = sample.value
        for labels, total in counts.items():
            bounds = sorted(by_bound[labels])
            assert bounds == [*metric.bounds, float("inf")]
            values = [by_bound[labels][bound] for bound in bounds]
            assert values == sorted(values)
            assert values[-1] == total


def test_rejections_are_counted_by_cause(scraped):
    """As many as were refused in all, by words of a closed set."""
    found, status, _, _ = scraped
    causes = series(found, "ray_framelane_rejected_frames", "cause")

    assert causes.total() == status.outcomes["rejected"]
    assert causes["oversize",] >= 1
    assert causes["invalid",] >= 2


def test_names_types_and_labels_are_those_of_the_catalog(scraped):
    """Nothing else of ours is exported; every label is the catalog's or Ray's, and its values are the plan's."""
    found, _, _, _ = scraped
    expected = {
        name.removesuffix("_total"): metric for metric in CATALOG for name in metric.exported()
    }  # fmt: skip
    optional = {"ray_framelane_device_temperature_celsius", "ray_framelane_degraded_frames"}
    assert set(found) | optional == set(expected) | optional
    buckets = {"", "vga", "tall", "wide", "full"}
    for name, family in found.items():
        metric = expected[name]
        assert family.type == ("gauge" if metric.kind is MetricKind.GAUGE else "counter")
        assert family.documentation.replace("\\n", "\n") == metric.tells
        for sample in family.samples:
            own = set(sample.labels) - THEIRS
            assert own == {*metric.labels, *(("le",) if name.endswith("_bucket") else ())}, name
            assert sample.labels.get("bucket", "") in buckets
            assert sample.labels.get("model", "") in {"", "light", "full"}
            assert sample.labels.get("priority", "normal") in {"critical", "normal", "other"}
    assert series(found, "ray_framelane_ready_replicas", "pool") == {("cpu",): 1}


def test_a_failed_frame_is_a_json_line_with_its_id(scraped):
    """In the file of the router's replica, with the fields that a collector filters by, and nothing of good frames."""
    _, _, records, frame_id = scraped
    logs = Path(ray._private.worker._global_node.get_logs_dir_path()) / "serve"
    (path,) = logs.glob("replica_*_router_*.log")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (line,) = [line for line in lines if line.get("frame_id") == frame_id]

    assert (line["levelname"], line["camera"], line["outcome"]) == ("WARNING", "metrics", "failed")
    assert (line["pool"], line["deployment"]) == ("cpu", "framelane_router")
    assert "announced were 100×100" in line["message"]
    assert line["engine_replica"].startswith("cpu-")
    finished = {record["frame_id"] for record in records if record["outcome"] == "finished"}
    assert not finished & {line.get("frame_id") for line in lines}
    assert any(line.get("num_frames") and line["cause"] for line in lines)
