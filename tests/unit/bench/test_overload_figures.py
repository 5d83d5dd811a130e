"""The figures of an overload run, from records made by hand."""

from __future__ import annotations

import pytest
from overload_figures import (
    EXPIRED_AT_CLIENT,
    LOST,
    UNANSWERED,
    Figures,
    Latency,
    Record,
    figures_of,
    percentile,
)


def record(outcome="finished", latency_s=None, priority="normal", **more) -> Record:
    """A frame due at 0 that is answered within 1 s, or 0.25 s if critical."""
    fields = {"camera": "a", "slo_s": 0.25 if priority == "critical" else 1.0, "at_s": 0.0, "send_late_s": 0.001}
    return Record(priority=priority, outcome=outcome, latency_s=latency_s, **(fields | more))


def test_a_run_of_every_kind_of_frame():
    """In time counts over all offered, percentiles over the finished, late ones included."""
    records = [
        record(latency_s=0.1, priority="critical", batch_size=2, rung=0),
        record(latency_s=0.3, priority="critical", batch_size=2, rung=1, send_late_s=0.02),
        record("expired", 0.26, "critical"),
        record(LOST, priority="critical"),
        record(latency_s=1.0, batch_size=1, verdict="degrade"),
        record(latency_s=1.5, batch_size=1, verdict="admit"),
        record("rejected", 0.01),
        record(EXPIRED_AT_CLIENT),
    ]

    assert figures_of(records, 2.0) == Figures(
        seconds=2.0,
        num_offered=8,
        num_good=2,
        num_critical=4,
        critical_in_time_fraction=0.25,
        num_critical_lost=1,
        critical=Latency(0.1, 0.3, 0.3),
        normal=Latency(1.0, 1.5, 1.5),
        lower_rung_fraction=0.5,
        outcomes={"finished": 4, "expired": 1, "lost": 1, "rejected": 1, "expired_at_client": 1},
        mean_batch=pytest.approx(4 / 3),
        send_late_p99_s=0.02,
    )


def test_rates_are_a_second_of_trace():
    """However long the answers took to come."""
    figures = figures_of([record(latency_s=0.5), record(latency_s=2.0), record(UNANSWERED)], 0.5)

    assert (figures.offered_hz, figures.good_hz) == (6.0, 2.0)


def test_a_frame_answered_at_its_deadline_is_good_and_a_refusal_never_is():
    """The deadline itself is in time; a quick no is no answer."""
    assert [record(latency_s=s).is_good for s in (1.0, 1.001)] == [True, False]
    assert not record("rejected", 0.01).is_good


def test_no_frames_have_no_percentiles():
    """Nothing is divided by zero."""
    figures = figures_of([], 1.0)

    assert figures.critical == figures.normal == Latency(None, None, None)
    assert (figures.critical_in_time_fraction, figures.mean_batch, figures.send_late_p99_s) == (None, None, None)


@pytest.mark.parametrize(("fraction", "value"), [(0.0, 1), (0.5, 5), (0.51, 6), (0.95, 10), (1.0, 10)], ids=str)
def test_percentiles_are_values_that_were_measured(fraction, value):
    """Nearest rank, in any order."""
    assert percentile([10, 3, 2, 9, 1, 4, 6, 5, 8, 7], fraction) == value
