"""The figures of the table that `stream` and `demo` end with."""

from __future__ import annotations

import dataclasses

import pytest

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app.camera_summary import CameraSummary
from serve_app.errors import FrameSupersededError
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome


def result(outcome=Outcome.FINISHED, padding_fraction=0.0):
    """A frame that ended like this."""
    return FrameResult(
        "id", "gate", (480, 640), "normal", outcome, Detections.none(),
        canvas=CanvasShape(480, 640), padding_fraction=padding_fraction,
    )  # fmt: skip


def test_quantiles_are_latencies_that_were_seen():
    """Nearest rank: p50 of ten is the sixth, p95 the last."""
    summary = CameraSummary("gate", "normal")
    for milliseconds in (90, 10, 80, 20, 70, 30, 60, 40, 50, 100):
        summary.add(result(), milliseconds / 1000)
    assert [summary.latency_s(quantile) for quantile in (0.0, 0.5, 0.95, 1.0)] == [0.01, 0.06, 0.1, 0.1]


def test_a_camera_without_frames_has_no_figures_and_was_not_answered():
    """No division by nothing."""
    summary = CameraSummary("gate", "normal")
    assert (summary.latency_s(0.5), summary.padding_fraction, summary.num_frames) == (None, 0.0, 0)
    assert not summary.all_answered


def test_sizes_canvases_padding_and_outcomes_are_counted():
    """One of each, and the mean padding."""
    summary = CameraSummary("gate", "normal")
    summary.add(result(padding_fraction=0.02), 0.1)
    summary.add(result(padding_fraction=0.04), 0.1)
    assert summary.all_answered
    assert summary.padding_fraction == pytest.approx(0.03)
    summary.num_skipped = 1
    assert not summary.all_answered
    assert (summary.sizes, summary.canvases) == ({(480, 640): 2}, {CanvasShape(480, 640): 2})


def test_every_way_to_end_is_counted_and_the_first_reason_kept():
    """A superseded or refused frame has no latency and no padding: the figures are those of finished ones."""
    summary = CameraSummary("gate", "normal")
    ends = [outcome for outcome in Outcome if outcome is not Outcome.FINISHED]
    for outcome in ends:
        ended = result(outcome, padding_fraction=0.5)
        summary.add(dataclasses.replace(ended, error=FrameSupersededError(outcome.value), canvas=None), 9.0)
    summary.add(result(padding_fraction=0.1), 0.25)

    assert summary.outcomes == dict.fromkeys([*ends, Outcome.FINISHED], 1)
    assert (summary.num_frames, summary.all_answered) == (len(Outcome), False)
    assert (summary.first_error, summary.latencies_s) == (ends[0].value, [0.25])
    assert summary.padding_fraction == pytest.approx(0.1)
    assert summary.canvases == {CanvasShape(480, 640): 1}
