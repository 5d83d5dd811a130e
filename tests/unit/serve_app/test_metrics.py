"""What a router counts for Prometheus: every value once, under labels of the plan only."""

from __future__ import annotations

import dataclasses
import re

import pytest
from metric_samples import BATCH, REPLY, RecordingSink, ended, report
from metric_table import DOCS, HEAD, table
from serve_samples import ladder_plan, sample_plan

from serve_app.errors import FrameFailedError, FrameRejectedError, InvalidFrameError, TooManyTicketsError
from serve_app.metric_book import MetricBook, counters_of
from serve_app.metric_catalog import CATALOG, LATENCY, SECONDS, SPOOL_CATALOG, MetricKind
from serve_app.metrics import FLUSH_INTERVAL_S, GAUGE_INTERVAL_S, RouterMetrics
from serve_app.pressure import MemoryLevel
from serve_app.results import FrameResult
from serve_app.scheduler import PoolLoad
from serve_app.verdicts import Outcome, RejectCause, Verdict, VerdictKind

UNITS = {
    "frames", "seconds", "ratio", "batches", "records", "rung", "level", "replicas", "credits", "celsius",
    "stores",
}  # fmt: skip
LOAD = PoolLoad(2, 6, 3, 0.75, 1, 0.01, waiting=(1, 2, 3), memory=MemoryLevel.HIGH, num_credits=4)


@pytest.fixture
def sink():
    """Keeps what it is told."""
    return RecordingSink()


@pytest.fixture
def metrics(sink):
    """Metrics of the plan with a ladder."""
    return RouterMetrics(ladder_plan(), sink)


def tick(metrics, now_s=100.0, reports=(), num_in_flight=0, num_records_lost=0, load=LOAD):
    """One look at pool `near`, and a flush if it is due."""
    metrics.tick(
        now_s, {"near": load}, {"near": reports}, num_in_flight=num_in_flight, num_records_lost=num_records_lost
    )


def refused(cause=None, error=None, **changes) -> FrameResult:
    """A frame that was not let in."""
    verdict = Verdict(VerdictKind.REJECT, "full: 17 frames", 1.0, cause=cause) if cause is not None else None
    nowhere = dict.fromkeys(("bucket", "pool", "replica", "model", "canvas"))
    return ended(
        outcome=Outcome.REJECTED, verdict=verdict, error=error or FrameRejectedError("no"), **nowhere, **changes
    )


@pytest.mark.parametrize("metric", [*CATALOG, *SPOOL_CATALOG], ids=lambda metric: metric.name)
def test_names_end_in_units_and_texts_say_what_is_meant(metric):
    """One name each; an interval says where it starts and ends, and every metric names a knob."""
    assert re.fullmatch(r"framelane_[a-z_]+", metric.name)
    assert metric.name.rpartition("_")[2] in UNITS
    assert [each.name for each in (*CATALOG, *SPOOL_CATALOG)].count(metric.name) == 1
    assert (len(metric.bounds) > 0) == (metric.kind is MetricKind.HISTOGRAM)
    assert sorted(set(metric.bounds)) == list(metric.bounds)
    assert metric.tells
    assert metric.turn
    if metric.kind is MetricKind.HISTOGRAM and metric.name.endswith("_seconds"):
        assert re.search(r"from .* to | to |call to", metric.tells)


def test_labels_are_words_of_a_closed_set():
    """Never a camera, a frame, a replica or a machine: their number has no bound."""
    used = {label for metric in CATALOG for label in metric.labels}

    assert used == {"pool", "bucket", "model", "priority", "verdict", "outcome", "cause", "rung", "stage", "class"}


def test_ten_thousand_cameras_with_odd_names_make_no_new_series(metrics, sink):
    """Whatever clients call themselves, their frames and their priorities."""
    odd = ["", "a" * 1000, "pool\n# HELP x", "Ж", "\ud800", '{x="1"}']
    metrics.frame_ended(ended())
    metrics.frame_ended(refused(RejectCause.LATE))
    metrics.frame_ended(refused(error=InvalidFrameError("wrong"), priority="nonsense"))
    tick(metrics)
    before = set(sink.totals) | set(sink.gauges)
    for number in range(10_000):
        name = f"{odd[number % len(odd)]}{number}"
        metrics.frame_ended(ended(frame_id=name, camera=name))
        metrics.frame_ended(refused(RejectCause.LATE, frame_id=name, camera=name))
        metrics.frame_ended(
            refused(error=InvalidFrameError(name), frame_id=name, camera=[name], priority=(name, [name])[number % 2])
        )
    tick(metrics, 200.0)

    assert set(sink.totals) | set(sink.gauges) == before
    assert sum(sink.of("framelane_ended_frames").values()) == 3 * 10_001


def test_a_finished_frame_is_counted_with_its_times(metrics, sink):
    """Under its own labels, and each time in its own class."""
    metrics.frame_ended(ended())
    tick(metrics)

    assert sink.of("framelane_ended_frames") == {("near", "vga", "full", "normal", "admit", "finished"): 1}
    for name, seconds in (("latency", 0.076), ("queue", 0.04), ("transfer", 0.003)):
        lane = ("normal", "vga")
        assert sink.of(f"framelane_frame_{name}_seconds_sum") == {lane: pytest.approx(seconds)}
        assert sink.of(f"framelane_frame_{name}_seconds_bucket") == {
            (*lane, le): 1 for le in [*(f"{bound:g}" for bound in SECONDS if seconds <= bound), "+Inf"]
        }
    assert sink.of("framelane_frame_padding_ratio_sum") == {("vga",): 0.25}
    assert sink.of("framelane_degraded_frames") == {}


def test_only_finished_frames_have_times(metrics, sink):
    """A frame that expired after a second would else look like a slow answer."""
    for outcome in Outcome:
        if outcome not in (Outcome.FINISHED, Outcome.REJECTED):
            metrics.frame_ended(ended(outcome=outcome, error=FrameFailedError("no")))
    tick(metrics)

    assert {labels[-1]: total for labels, total in sink.of("framelane_ended_frames").items()} == {
        "expired": 1, "superseded": 1, "cancelled": 1, "failed": 1,
    }  # fmt: skip
    assert sink.of("framelane_frame_latency_seconds_count") == {}


def test_degraded_frames_are_counted_by_rung(metrics, sink):
    """The rung on which they were served, not the one of the verdict."""
    for rung in (0, 1, 1, 2):
        metrics.frame_ended(ended(rung=rung))
    metrics.frame_ended(ended(rung=2, outcome=Outcome.EXPIRED))
    tick(metrics)

    assert sink.of("framelane_degraded_frames") == {("near", "normal", "1"): 2, ("near", "normal", "2"): 1}


@pytest.mark.parametrize(
    ("result", "labels"),
    [
        *((refused(cause), ("normal", cause.value)) for cause in RejectCause),
        (refused(error=InvalidFrameError("x")), ("normal", "invalid")),
        (refused(error=TooManyTicketsError("x")), ("normal", "tickets")),
        (refused(RejectCause.LATE, priority="critical"), ("critical", "late")),
        (refused(error=InvalidFrameError("x"), priority="x"), ("other", "invalid")),
        (refused(error=InvalidFrameError("x"), priority=["x"]), ("other", "invalid")),
    ],
    ids=lambda value: ":".join(value) if isinstance(value, tuple) else "",
)
def test_refused_frames_are_counted_by_cause(metrics, sink, result, labels):
    """A word of a few, since the reason has the frame's numbers in it."""
    metrics.frame_ended(result)
    tick(metrics)

    assert sink.of("framelane_rejected_frames") == {labels: 1}


def test_a_batch_is_counted_with_its_stages(metrics, sink):
    """Two frames of at most four: half full."""
    metrics.batch_answered(BATCH, REPLY)
    tick(metrics)

    assert sink.of("framelane_batch_frames_sum") == {("near", "vga"): 2}
    assert sink.of("framelane_batch_frames_bucket") == {
        ("near", "vga", le): 1 for le in ("2", "4", "8", "16", "32", "+Inf")
    }
    assert sink.of("framelane_batch_fill_ratio_sum") == {("near", "vga"): 0.5}
    assert sink.of("framelane_batch_stage_seconds_sum") == {
        ("near", "vga", "full", stage): pytest.approx(seconds)
        for stage, seconds in (
            ("fetch", 0.001), ("preprocess", 0.002), ("staged", 0.04), ("infer", 0.03), ("postprocess", 0.004),
        )
    }  # fmt: skip


def test_a_batch_that_never_ran_says_nothing_of_batches(metrics, sink):
    """Its zeros would make the network look fast."""
    metrics.batch_answered(BATCH, dataclasses.replace(REPLY, infer_s=0.0))
    tick(metrics)

    assert set(sink.of("framelane_batch_stage_seconds_count")) == {("near", "vga", "full", "fetch")}
    assert sink.of("framelane_batch_frames_count") == {}


def test_lost_batches_and_records_are_counted(metrics, sink):
    """By why; records as the log counts them, not once more at each look."""
    metrics.batch_lost(BATCH, has_died=True)
    metrics.batch_lost(BATCH, has_died=False)
    metrics.out_of_memory(BATCH)
    for round_ in range(3):
        tick(metrics, 100.0 + round_ * FLUSH_INTERVAL_S, num_records_lost=round_ * 2)

    assert sink.of("framelane_lost_batches") == {("near", "died"): 1, ("near", "failed"): 1}
    assert sink.of("framelane_out_of_memory_batches") == {("near", "vga"): 1}
    assert sink.of("framelane_lost_records") == {(): 4}


def test_rare_counters_are_there_from_the_start(sink):
    """Else the first death of a replica is no growth that an alarm could see."""
    tick(RouterMetrics(sample_plan(), sink))
    told = {(name, *dict(labels).values()) for name, labels in sink.totals}

    assert set(sink.totals.values()) == {0.0}
    assert {("framelane_lost_batches", "far", "died"), ("framelane_rejected_frames", "critical", "memory")} <= told
    assert {("framelane_out_of_memory_batches", "far", "uhd"), ("framelane_lost_records",)} <= told


def test_a_look_at_a_pool_sets_every_gauge(metrics, sink):
    """The worst device speaks for the pool; one that says nothing is left out."""
    reports = (
        report("near-0", used_bytes=50, total_bytes=100, temperature_c=40.0, throttle_reasons=()),
        report("near-1", used_bytes=30, total_bytes=40, temperature_c=70.0, throttle_reasons=("hot", "power")),
        report("near-2"),
    )
    tick(metrics, reports=reports, num_in_flight=9)

    assert sink.gauge("framelane_waiting_frames") == {
        ("near", "critical"): 1, ("near", "normal"): 2, ("near", "deferred"): 3,
    }  # fmt: skip
    of_near = {name: values for (name, _), values in sink.gauges.items() if name != "framelane_waiting_frames"}
    assert of_near == {
        "framelane_in_flight_frames": 9, "framelane_waiting_device_seconds": 0.75, "framelane_running_batches": 3,
        "framelane_ladder_rung": 1, "framelane_memory_level": 1, "framelane_ready_replicas": 2,
        "framelane_free_credits": 4, "framelane_device_memory_used_ratio": 0.75,
        "framelane_device_temperature_celsius": 70.0, "framelane_throttled_replicas": 1,
    }  # fmt: skip


def test_counts_are_handed_on_every_few_seconds_and_gauges_every_second(metrics, sink):
    """Watchers tick more often, one for each pool; a record costs."""
    tick(metrics, 100.0)
    metrics.frame_ended(ended())
    num_records = sink.num_records
    tick(metrics, 100.0 + GAUGE_INTERVAL_S / 2)
    assert sink.num_records == num_records
    tick(metrics, 100.0 + GAUGE_INTERVAL_S, load=dataclasses.replace(LOAD, rung=2))
    assert sink.gauge("framelane_ladder_rung") == {("near",): 2}
    assert sink.of("framelane_ended_frames") == {}
    tick(metrics, 100.0 + FLUSH_INTERVAL_S)
    assert sum(sink.of("framelane_ended_frames").values()) == 1


def test_every_value_is_handed_on_exactly_once(metrics, sink):
    """Over many flushes the sums are those of the values: nothing is rounded to the middle of a class."""
    for round_ in range(50):
        for number in range(round_ % 3):
            times = dataclasses.replace(ended().times, total_s=0.001 * (round_ + number))
            metrics.frame_ended(ended(times=times))
        tick(metrics, 100.0 + round_ * FLUSH_INTERVAL_S)
    values = [0.001 * (round_ + number) for round_ in range(50) for number in range(round_ % 3)]

    lane = ("normal", "vga")
    assert sink.of("framelane_frame_latency_seconds_count") == {lane: len(values)}
    assert sink.of("framelane_frame_latency_seconds_sum") == {lane: pytest.approx(sum(values))}
    for bound in SECONDS:
        below = sum(value <= bound for value in values)
        assert sink.totals["framelane_frame_latency_seconds_bucket", (
            ("priority", "normal"), ("bucket", "vga"), ("le", f"{bound:g}"),
        )] == below  # fmt: skip


def test_the_empty_classes_of_a_histogram_are_told_once(sink):
    """A quantile is sought between the bounds that are known: without the lower ones from 0 on."""
    book = MetricBook()
    for _ in range(2):
        book.observe(LATENCY, ("normal", "vga"), 0.2)
        book.flush(sink)
    named = [labels for name, labels in sink.totals if name.endswith("_bucket")]

    assert len(named) == len(SECONDS) + 1
    # 17 classes, count and sum; then the seven classes from 0.25 s on and +Inf, count and sum.
    assert sink.num_records == (17 + 2) + (8 + 2)


def test_a_value_on_a_bound_is_within_it(sink):
    """`le` means at most."""
    book = MetricBook()
    book.observe(LATENCY, ("normal", "vga"), SECONDS[3])
    book.flush(sink)

    assert ("normal", "vga", f"{SECONDS[3]:g}") in sink.of("framelane_frame_latency_seconds_bucket")
    assert ("normal", "vga", f"{SECONDS[2]:g}") not in sink.of("framelane_frame_latency_seconds_bucket")


def test_a_sink_knows_every_counter_that_a_book_hands_on(metrics, sink):
    """With the very labels: Ray drops or refuses others."""
    metrics.frame_ended(ended(rung=1))
    metrics.batch_answered(BATCH, REPLY)
    tick(metrics)
    declared = {name: set(labels) for metric in CATALOG for name, labels in counters_of(metric)}

    assert {(name, frozenset(dict(labels))) for name, labels in sink.totals} == {
        (name, frozenset(labels)) for name, labels in declared.items()
    }


def test_the_table_in_the_docs_is_the_catalog():
    """Every metric, in order; print it anew with: python tests/unit/serve_app/metric_table.py."""
    lines = DOCS.read_text().splitlines()
    begin = lines.index(HEAD[0])
    end = next(number for number in range(begin, len(lines)) if not lines[number].startswith("|"))

    assert lines[begin:end] == table()
