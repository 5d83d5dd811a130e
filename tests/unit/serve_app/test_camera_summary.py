"""The figures of the table that `stream` and `demo` end with."""

from __future__ import annotations

import pytest
from stream_world import frame

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app.camera_summary import MAX_SIZES, NUM_LATENCIES, CameraSummary
from serve_app.results import FrameResult
from serve_app.streams.stream_values import Answer, Gap, GapCause, StreamFrame
from serve_app.verdicts import Outcome


def answer(latency_s=0.1, padding_fraction=0.0, size_hw=(480, 640)):
    """A frame that was answered."""
    result = FrameResult(
        "id", "gate", size_hw, "normal", Outcome.FINISHED, Detections.none(),
        canvas=CanvasShape(480, 640), padding_fraction=padding_fraction,
    )  # fmt: skip
    return Answer(StreamFrame("gate", 0, 0.0, frame()), result, latency_s)


def gap(cause, num_frames=1):
    """Frames that were not."""
    return Gap("gate", 0, num_frames, cause, f"because of {cause.value}")


def test_quantiles_are_latencies_that_were_seen():
    """Nearest rank: p50 of ten is the sixth, p95 the last."""
    summary = CameraSummary("gate", "normal")
    for milliseconds in (90, 10, 80, 20, 70, 30, 60, 40, 50, 100):
        summary.add(answer(milliseconds / 1000))
    assert [summary.latency_s(quantile) for quantile in (0.0, 0.5, 0.95, 1.0)] == [0.01, 0.06, 0.1, 0.1]


def test_a_camera_without_frames_has_no_figures_and_was_not_answered():
    """No division by nothing."""
    summary = CameraSummary("gate", "normal")
    assert (summary.latency_s(0.5), summary.padding_fraction, summary.num_frames) == (None, 0.0, 0)
    assert not summary.all_answered


def test_sizes_canvases_and_padding_are_counted():
    """One of each, and the mean padding."""
    summary = CameraSummary("gate", "normal")
    summary.add(answer(padding_fraction=0.02))
    summary.add(answer(padding_fraction=0.04))
    assert summary.all_answered
    assert summary.padding_fraction == pytest.approx(0.03)
    assert (summary.sizes, summary.canvases) == ({(480, 640): 2}, {CanvasShape(480, 640): 2})


@pytest.mark.parametrize("cause", list(GapCause))
def test_every_gap_is_counted_and_the_first_reason_kept(cause):
    """Frames by their cause, breaks apart from them, since nobody knows what those cost."""
    summary = CameraSummary("gate", "normal")
    for item in (answer(), gap(cause, 3), gap(GapCause.LOST, 0), gap(cause, 2)):
        summary.add(item)
    assert (summary.num_frames, summary.num_missing, summary.all_answered) == (6, 5, False)
    assert (summary.gaps, summary.breaks) == ({cause: 5}, {GapCause.LOST: 1})
    assert (summary.first_error, summary.last_error) == (f"because of {cause.value}",) * 2


def test_superseded_frames_of_a_camera_that_asked_for_it_are_no_trouble():
    """`keep: latest` is answered in full though frames are missing; anything else is not."""
    summary = CameraSummary("gate", "normal", keeps_latest=True)
    summary.add(answer())
    summary.add(gap(GapCause.SUPERSEDED, 4))
    assert (summary.all_answered, summary.first_error, summary.num_missing) == (True, None, 4)
    summary.add(gap(GapCause.SERVICE_AWAY))
    assert not summary.all_answered


def test_a_summary_of_months_stays_small():
    """Neither latencies nor sizes are kept for ever."""
    summary = CameraSummary("gate", "normal")
    for number in range(NUM_LATENCIES + 500):
        summary.add(answer(number, size_hw=(480, 600 + number % 300)))
    assert (len(summary.latencies_s), len(summary.sizes)) == (NUM_LATENCIES, MAX_SIZES)
    assert summary.latency_s(0.0) == 500
    assert summary.num_answered == NUM_LATENCIES + 500
