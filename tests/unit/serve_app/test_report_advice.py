"""Sizes that are badly served, with the planner's own advice."""

from __future__ import annotations

import pytest
from report_samples import figures_of, record

from engines.spec import CanvasShape
from serve_app.latency import LatencyModel
from serve_app.plan import Bucket, CameraRule, Plan, Pool
from serve_app.planning.drift import Fit, compare
from serve_app.report.advice import MAX_SIZES, advise
from serve_app.report.findings import Weight, findings

VGA, HD, SQUARE = (480, 640), (720, 1280), (1280, 1280)
LATENCY = LatencyModel()


def plan_of(*canvases, replicas=100, cameras=()):
    """A plan with a bucket for these canvases."""
    shapes = tuple(CanvasShape(*canvas) for canvas in canvases)
    return Plan({"full": "f.onnx"}, (Pool("cpu", replicas),), (Bucket("b", "full", "cpu", shapes, (1,)),), cameras)


@pytest.fixture
def turned(tmp_path):
    """Two cameras that fit, and one that was turned and lies on a canvas that is far too large."""
    lines = []
    for n in range(21):
        lines += [record(at_s=100.0 + n), record(at_s=100.0 + n, camera="belt")]
        lines.append(record(at_s=100.0 + n, camera="mast", source_hw=list(HD), canvas_hw=list(SQUARE)))
    return figures_of(tmp_path, *lines)


def test_the_advice_is_the_planners_comparison(turned):
    """No second copy of a rule: what `framelane plan --check` says of the same log."""
    plan = plan_of(VGA, SQUARE)
    advice = advise(turned, plan, LATENCY, strides_px={"full": 32})
    expected = compare(plan, turned.traffic, LATENCY, strides_px={"full": 32})

    assert advice.is_plan_known
    assert (advice.drift.fit, advice.drift.reasons) == (Fit.DRIFTED, expected.reasons)
    assert advice.drift.regret_fraction == pytest.approx(expected.regret_fraction)
    assert [size.size_hw for size in advice.misfits] == [HD]
    assert advice.cameras[HD] == ("mast",)
    assert advice.fresh_canvases == (CanvasShape(480, 640), CanvasShape(736, 1280))


def test_without_a_plan_the_log_shows_its_canvases(turned):
    """The same misfits and the same saving; nothing is said of replicas, which nobody knows."""
    advice = advise(turned, None, LATENCY, strides_px={})

    assert not advice.is_plan_known
    assert [size.size_hw for size in advice.misfits] == [HD]
    assert advice.fresh_canvases == (CanvasShape(480, 640), CanvasShape(736, 1280))
    assert len(advice.drift.reasons) == 1
    assert "other canvases would save" in advice.drift.reasons[0]
    assert any(
        finding.weight is Weight.NOTE and "The planner says" in finding.text for finding in findings(turned, advice)
    )


def test_too_few_replicas_are_told_with_the_plan_alone(turned):
    """Its pools are in the plan."""
    advice = advise(turned, plan_of(VGA, (736, 1280), replicas=1), LATENCY, strides_px={"full": 32})

    assert advice.drift.fit is Fit.FITS
    busy = advise(turned, plan_of(VGA, SQUARE, replicas=1), LatencyModel(), strides_px={"full": 32})
    assert busy.drift.utilisation["cpu"] > advice.drift.utilisation["cpu"]


def test_two_models_keep_their_cameras(tmp_path):
    """A camera of the light model is compared on the light model's canvases, also without the plan."""
    lines = [record(at_s=100.0 + n) for n in range(21)]
    lines += [
        record(at_s=100.0 + n, camera="over*view", model="light", source_hw=list(HD), canvas_hw=[736, 1280])
        for n in range(21)
    ]
    advice = advise(figures_of(tmp_path, *lines), None, LATENCY, strides_px={})

    assert {size.size_hw: size.canvas for size in advice.drift.sizes} == {VGA: VGA, HD: (736, 1280)}
    assert advice.misfits == ()


def test_rules_of_the_plan_name_cameras_by_pattern(turned):
    """The plan's own rules decide where it is known."""
    plan = plan_of(VGA, (736, 1280), cameras=(CameraRule("m*", model="full"),))

    assert advise(turned, plan, LATENCY, strides_px={"full": 32}).drift.fit is Fit.FITS


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([record()], "a rate needs two frames"),
        ([record(outcome="expired", at_s=at_s, canvas_hw=None) for at_s in (1.0, 2.0)], "no frame was answered"),
    ],
    ids=["one frame", "none answered"],
)
def test_where_nothing_can_be_compared_it_says_why(tmp_path, lines, said):
    """Not an error: the rest of the report stands."""
    advice = advise(figures_of(tmp_path, *lines), None, LATENCY, strides_px={})

    assert advice.drift is None
    assert said in advice.problem


def test_the_most_frequent_sizes_count(tmp_path):
    """Clients of a hundred crops must not keep the planner for minutes."""
    lines = [
        record(at_s=100.0 + n, source_hw=[64 + size, 640], canvas_hw=[480, 640])
        for size in range(MAX_SIZES + 7)
        for n in range(2 if size < 7 else 4)
    ]
    advice = advise(figures_of(tmp_path, *sorted(lines, key=lambda line: line["at_s"])), None, LATENCY, strides_px={})

    assert (advice.num_sizes, advice.num_left_out) == (MAX_SIZES, 7)
    assert advice.drift is not None


def test_a_log_without_batches_is_read_as_single_frames(tmp_path):
    """Records of another tool, or of an older version, may not say how many went together."""
    lines = [record(at_s=100.0 + n, batch_size=0) for n in range(4)]
    advice = advise(figures_of(tmp_path, *lines), None, LATENCY, strides_px={})

    assert advice.drift is not None
    assert advice.misfits == ()
