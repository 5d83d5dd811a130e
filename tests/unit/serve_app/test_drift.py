"""When live traffic has drifted from a plan."""

from __future__ import annotations

import pytest
from fleet_samples import MODEL, POOL, clustered_fleet, scattered_fleet

from engines.spec import CanvasShape
from serve_app.frames import MAX_SLO_S
from serve_app.latency import LatencyModel
from serve_app.plan import Bucket, CameraRule, Plan, Pool
from serve_app.planning.drift import Fit, compare
from serve_app.planning.planner import propose
from serve_app.planning.proposal import PlannerLimits
from serve_app.planning.traffic import SizeRate

VGA, HD, FHD = (480, 640), (720, 1280), (1080, 1920)
STRIDES = {"full": 32, "light": 32}
LATENCY = LatencyModel()


def plan_of(*canvases, replicas=100):
    """A plan with a bucket for these canvases."""
    shapes = tuple(CanvasShape(*canvas) for canvas in canvases)
    return Plan({"full": "f.onnx"}, (Pool("cpu", replicas),), (Bucket("b", "full", "cpu", shapes, (1,)),))


def report_of(plan, traffic, planned=None):
    """The comparison."""
    return compare(plan, tuple(traffic), LATENCY, strides_px=STRIDES, planned=planned)


@pytest.mark.parametrize("fleet", [clustered_fleet(), scattered_fleet()], ids=["clustered", "scattered"])
def test_the_traffic_that_a_plan_was_made_for_fits_it(fleet):
    """Even where its padding is large: no plan of so many canvases has less."""
    fleet = tuple(SizeRate(e.size_hw, e.rate_hz, e.priority, MAX_SLO_S, e.camera) for e in fleet)
    proposal = propose(fleet, MODEL, LATENCY, PlannerLimits(), pool=POOL)
    report = report_of(proposal.plan, fleet, fleet)

    assert (report.fit, report.reasons) == (Fit.FITS, ())
    assert report.regret_fraction == pytest.approx(0, abs=1e-9)
    assert report.distance_fraction == 0
    assert report.device_s_per_s == pytest.approx(proposal.device_s_per_s)
    assert report.padding_fraction == pytest.approx(proposal.padding_fraction)
    assert max(report.utilisation.values()) <= 0.7


def test_frames_of_another_size_have_drifted_when_other_canvases_would_save_a_tenth():
    """Cameras that were turned by 90 degrees lie on a canvas that is far too large."""
    plan = plan_of(VGA, (1280, 1280))
    report = report_of(plan, [SizeRate(VGA, 5.0), SizeRate((720, 1280), 5.0)], planned=(SizeRate(VGA, 10.0),))

    assert report.fit is Fit.DRIFTED
    assert report.reasons == (
        "other canvases would save 36% of the device time, allowed are 10%; the worst now: 720×1280 on 1280×1280",
    )
    assert report.distance_fraction == pytest.approx(0.5)
    assert [(size.size_hw, size.canvas) for size in report.misfits] == [(HD, (1280, 1280))]
    saved_px = 5 * (1280 * 1280 - 736 * 1280)
    assert report.regret_fraction == pytest.approx(saved_px / (5 * 1280 * 1280 + 5 * 480 * 640))


def test_padding_that_the_stride_forces_is_no_misfit():
    """A 320×240 frame has 6.3 % on its own canvas."""
    report = report_of(plan_of((256, 320)), [SizeRate((240, 320), 5.0)])

    assert report.misfits == ()
    assert report.sizes[0].padding_fraction == report.sizes[0].least_padding_fraction == pytest.approx(0.0625)


def test_frames_larger_than_every_canvas_have_drifted_unless_they_were_planned_for():
    """A new camera loses resolution; a plan that shrinks on purpose fits."""
    traffic = (SizeRate(HD, 9.0), SizeRate(FHD, 1.0))
    plan = plan_of((736, 1280))
    new, known = report_of(plan, traffic, (SizeRate(HD, 9.0),)), report_of(plan, traffic, traffic)

    assert (new.fit, known.fit) == (Fit.DRIFTED, Fit.FITS)
    assert new.reasons == (
        "10% of the frames are larger than every canvas and lose resolution; the plan was made for 0%",
    )
    assert new.oversize_fraction == known.oversize_fraction == pytest.approx(0.1)
    assert [size.shrunk for size in new.sizes] == [False, True]


def test_more_frames_than_the_replicas_can_take_have_drifted():
    """The canvases fit, the pool does not."""
    report = report_of(plan_of(VGA, replicas=1), [SizeRate(VGA, 25.0)], planned=(SizeRate(VGA, 15.0),))

    assert report.reasons == ("pool cpu would be 100% busy, allowed are 90%: it needs replicas",)
    assert report.utilisation == {"cpu": pytest.approx(25 * 480 * 640 * 130e-9)}
    assert report.distance_fraction == 0


def test_each_model_has_its_own_canvases():
    """An overview camera of the light model is no misfit for the full one."""
    buckets = tuple(
        Bucket(model, model, "cpu", (CanvasShape(*canvas),), (1, 2))
        for model, canvas in (("full", VGA), ("light", (736, 1280)))
    )
    rules = (CameraRule("overview*", model="light"),)
    plan = Plan({"full": "f.onnx", "light": "l.onnx"}, (Pool("cpu", 9),), buckets, rules)
    report = report_of(plan, [SizeRate(VGA, 5.0, camera="gate"), SizeRate(HD, 5.0, camera="overview-1")])

    assert report.fit is Fit.FITS
    assert {size.size_hw: size.canvas for size in report.sizes} == {VGA: VGA, HD: (736, 1280)}
    assert report.regret_fraction == 0
