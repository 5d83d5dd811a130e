"""The plan: which canvas a frame is placed on, and what contradicts itself."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serve_samples import BUCKETS, HD, PORTRAIT, UHD, VGA, sample_plan

from engines.boxes import DetectionLimits
from engines.spec import CanvasShape, WarmShape
from serve_app.errors import InvalidPlanError
from serve_app.frames import Priority
from serve_app.plan import (
    Bucket,
    CameraRule,
    CanvasChoice,
    Keep,
    Limits,
    Oversize,
    Plan,
    Pool,
    Rung,
    Runtime,
    Scheduling,
)

VGA_BUCKET, HD_BUCKET, UHD_BUCKET = BUCKETS


def bucket(**changes) -> Bucket:
    """A sound bucket of a sound plan; `changes` spoil it."""
    fields = {"name": "b", "model": "full", "pool": "near", "canvases": (VGA,), "batches": (1,)}
    return Bucket(**(fields | changes))


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((480, 640), CanvasChoice(VGA_BUCKET, VGA, shrunk=False)),
        ((640, 480), CanvasChoice(VGA_BUCKET, PORTRAIT, shrunk=False)),
        ((481, 640), CanvasChoice(HD_BUCKET, HD, shrunk=False)),
        ((480, 641), CanvasChoice(HD_BUCKET, HD, shrunk=False)),
        ((641, 480), CanvasChoice(HD_BUCKET, HD, shrunk=False)),
        ((720, 1280), CanvasChoice(HD_BUCKET, HD, shrunk=False)),
        ((1080, 1920), CanvasChoice(UHD_BUCKET, UHD, shrunk=False)),
        ((1280, 720), CanvasChoice(UHD_BUCKET, UHD, shrunk=True)),
        ((8, 8), CanvasChoice(VGA_BUCKET, VGA, shrunk=False)),
        ((2160, 3840), CanvasChoice(UHD_BUCKET, UHD, shrunk=True)),
        ((1089, 1920), CanvasChoice(UHD_BUCKET, UHD, shrunk=True)),
    ],
    ids=str,
)
def test_a_frame_is_placed_on_the_canvas_that_wastes_least(size_hw, expected):
    """The smallest canvas that holds it whole; height and width are not exchanged."""
    assert sample_plan().canvas_for("full", size_hw) == expected


def test_an_oversize_frame_keeps_the_most_of_its_resolution():
    """A tall frame shrinks less on a tall small canvas than on a wide large one: scale counts, not area."""
    tall, wide = CanvasShape(1024, 256), CanvasShape(768, 1536)
    own = bucket(canvases=(wide, tall))
    plan = sample_plan(pools=(Pool("near"),), buckets=(own,))

    assert plan.canvas_for("full", (2048, 500)) == CanvasChoice(own, tall, shrunk=True)
    assert plan.canvas_for("full", (500, 2048)) == CanvasChoice(own, wide, shrunk=True)


def test_of_canvases_that_shrink_an_oversize_frame_alike_the_smallest_is_taken():
    """More padding would buy nothing."""
    own = bucket(canvases=(CanvasShape(640, 1280), CanvasShape(640, 640)))
    plan = sample_plan(pools=(Pool("near"),), buckets=(own,))

    assert plan.canvas_for("full", (1280, 1280)) == CanvasChoice(own, CanvasShape(640, 640), shrunk=True)


@given(
    canvases=st.lists(
        st.builds(CanvasShape, st.integers(1, 60).map(lambda n: 32 * n), st.integers(1, 60).map(lambda n: 32 * n)),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    size_hw=st.tuples(st.integers(8, 2500), st.integers(8, 2500)),
)
@settings(deadline=None, derandomize=True, database=None)
def test_no_other_canvas_would_be_better(canvases, size_hw):
    """For any canvases and sizes: whole if one can hold it, then least area; else largest scale."""
    own = bucket(canvases=tuple(canvases))
    choice = sample_plan(pools=(Pool("near"),), buckets=(own,)).canvas_for("full", size_hw)
    height, width = size_hw

    holding = [canvas for canvas in canvases if canvas.height >= height and canvas.width >= width]
    assert choice.shrunk is not bool(holding)
    if holding:
        assert choice.canvas in holding
        assert choice.canvas.num_px == min(canvas.num_px for canvas in holding)
    else:
        scales = {c: min(Fraction(c.height, height), Fraction(c.width, width)) for c in canvases}
        # Two scales that differ by less than a float can tell are the same for every purpose.
        assert scales[choice.canvas] >= max(scales.values()) * Fraction(999_999, 1_000_000)


def test_a_frame_sees_the_canvases_of_its_model_only():
    """Another model's canvas is none for it, though it fits better."""
    light = bucket(name="light", model="light", canvases=(HD,))
    plan = sample_plan(models={"full": "f.onnx", "light": "l.onnx"}, buckets=(*BUCKETS, light))

    assert plan.canvas_for("light", (480, 640)) == CanvasChoice(light, HD, shrunk=False)
    assert plan.canvas_for("full", (480, 640)) == CanvasChoice(VGA_BUCKET, VGA, shrunk=False)
    assert list(plan.canvases_of("light")) == [(light, HD)]


@pytest.mark.parametrize(
    ("max_canvas", "expected"),
    [
        (None, CanvasChoice(UHD_BUCKET, UHD, shrunk=False)),
        (UHD, CanvasChoice(UHD_BUCKET, UHD, shrunk=False)),
        (HD, CanvasChoice(HD_BUCKET, HD, shrunk=True)),
        (CanvasShape(735, 1280), CanvasChoice(VGA_BUCKET, VGA, shrunk=True)),
        (PORTRAIT, CanvasChoice(VGA_BUCKET, VGA, shrunk=True)),
    ],
    ids=str,
)
def test_a_rung_caps_the_pixels_of_the_canvas(max_canvas, expected):
    """Not its sides: what is as large as the cap is allowed, whichever way it is turned."""
    assert sample_plan().canvas_for("full", (1080, 1920), max_canvas) == expected


@pytest.mark.parametrize(
    ("camera", "model"),
    [
        ("gate-1", "light"),
        ("gate-10", None),
        ("gate-", None),
        ("Gate-1", None),
        ("yard-7", None),
        ("yard-x", "light"),
        ("anything", None),
        ("", None),
    ],
)
def test_the_first_rule_that_matches_counts(camera, model):
    """Shell patterns, case and all; later rules are not looked at, though they say more."""
    rules = (CameraRule("yard-[0-9]"), CameraRule("yard-*", "light"), CameraRule("gate-?", "light"), CameraRule("*"))
    plan = sample_plan(
        models={"full": "f.onnx", "light": "l.onnx"}, buckets=(*BUCKETS, bucket(model="light")), cameras=rules
    )

    assert plan.rule_of(camera).model == model


def test_a_camera_without_a_rule_has_the_defaults():
    """All its frames may wait, oversize ones shrink, the ladder may be used, the plan's first model serves."""
    plan = sample_plan(cameras=(CameraRule("yard-*", keep=Keep.LATEST),))

    assert plan.rule_of("gate-1") == CameraRule("*", model=None, keep=Keep.ALL, oversize=Oversize.SHRINK, degrade=True)


@pytest.mark.parametrize(
    ("changes", "max_chunk_s"),
    [
        ({}, 0.1),
        ({"slo_s": {Priority.CRITICAL: 0.05, Priority.NORMAL: 1.0}}, 0.02),
        ({"scheduling": Scheduling(max_chunk_s=0.3)}, 0.3),
    ],
    ids=["default", "of the critical deadline", "told"],
)
def test_a_chunk_is_two_fifths_of_the_critical_deadline_unless_told(changes, max_chunk_s):
    """A critical frame may have to wait for one: more than half of its time must be left."""
    assert sample_plan(**changes).max_chunk_s == pytest.approx(max_chunk_s)


def test_a_pool_has_its_buckets_in_the_plans_order():
    """Replicas load the engines of their own pool only."""
    plan = sample_plan()

    assert plan.buckets_of("near") == (VGA_BUCKET, HD_BUCKET)
    assert plan.buckets_of("far") == (UHD_BUCKET,)
    assert plan.buckets_of("nowhere") == ()


def test_a_bucket_warms_every_canvas_at_every_batch_size():
    """No request may be the first of its shape."""
    assert VGA_BUCKET.warm_shapes() == (
        WarmShape(VGA, 1), WarmShape(VGA, 2), WarmShape(VGA, 4),
        WarmShape(PORTRAIT, 1), WarmShape(PORTRAIT, 2), WarmShape(PORTRAIT, 4),
    )  # fmt: skip


def test_what_a_plan_does_not_say_has_a_default():
    """Half a second's worth of thought for each: see the constants."""
    assert sample_plan() == Plan(
        models={"full": "/models/full.onnx"},
        pools=(Pool("near", 1, 1.0, 0.0, 0), Pool("far", 1, 1.0, 0.0, 0)),
        buckets=BUCKETS,
        cameras=(),
        ladder=(),
        scheduling=Scheduling(max_chunk_s=None, defer_above_px=1_500_000, max_defer_s=10.0, max_starve_s=1.0),
        slo_s={Priority.CRITICAL: 0.25, Priority.NORMAL: 1.0},
        limits=Limits(max_waiting_frames=500, max_waiting_bytes=2 * 1024**3, max_frame_px=64_000_000),
        detection=DetectionLimits(),
        frame_log=None,
        latency=None,
    )
    assert sample_plan().default_model == "full"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {}}, "models: got none, a plan needs at least one"),
        ({"pools": ()}, "pools: got none, a plan needs at least one"),
        ({"buckets": ()}, "buckets: got none, a plan needs at least one"),
        (
            {"pools": (Pool("near"), Pool("far"), Pool("near"))},
            "pools: got near more than once, allowed is once each",
        ),
        (
            {"buckets": (*BUCKETS, bucket(name="hd", canvases=(CanvasShape(32, 32),)))},
            "buckets: got hd more than once, allowed is once each",
        ),
        (
            {"buckets": (*BUCKETS, bucket(pool="gpu", canvases=(CanvasShape(32, 32),)))},
            "buckets.b.pool: got 'gpu', allowed are the names in the plan: near, far",
        ),
        (
            {"buckets": (*BUCKETS, bucket(model="fulll", canvases=(CanvasShape(32, 32),)))},
            "buckets.b.model: got 'fulll', allowed are the names in the plan: full",
        ),
        (
            {"buckets": (*BUCKETS, bucket(canvases=(CanvasShape(32, 64), CanvasShape(64, 32), CanvasShape(32, 64))))},
            "buckets.b.canvases: got 32x64 more than once, allowed is once each",
        ),
        (
            {"buckets": (*BUCKETS, bucket(canvases=(UHD,)))},
            "canvases of model full over all buckets: got 1088x1920 more than once, allowed is once each",
        ),
        (
            {"buckets": (*BUCKETS, bucket(canvases=()))},
            "buckets.b.canvases: got none, a bucket needs at least one",
        ),
        (
            {"models": {"full": "f.onnx", "light": "l.onnx"}},
            "models.light: no bucket serves it; add a bucket, or remove the model",
        ),
        (
            {"pools": (Pool("near"), Pool("far"), Pool("spare"))},
            "pools.spare: no bucket uses it; add a bucket, or remove the pool",
        ),
        (
            {"cameras": (CameraRule("yard-*"), CameraRule("gate-*", "light"))},
            "cameras.gate-*.model: got 'light', allowed are the names in the plan: full",
        ),
        (
            {"ladder": (Rung("full", VGA), Rung("light"))},
            "ladder[1].model: got 'light', allowed are the names in the plan: full",
        ),
        (
            {"ladder": (Rung("full", CanvasShape(320, 320)),)},
            (
                "ladder[0].max_canvas: got 320x320, allowed is one with at least 307200 px, the smallest canvas of "
                "model full; add a smaller canvas to a bucket"
            ),
        ),
    ],
    ids=lambda value: value.partition(",")[0] if isinstance(value, str) else "",
)
def test_a_plan_that_contradicts_itself_is_refused(changes, message):
    """Each message says where, what was got and what is allowed."""
    with pytest.raises(InvalidPlanError) as caught:
        sample_plan(**changes)

    assert str(caught.value) == message


@pytest.mark.parametrize("batches", [(), (2,), (2, 4), (1, 4, 2), (1, 2, 2), (1, 1), (0, 1), (-1, 1)], ids=str)
def test_a_batch_ladder_ascends_from_one(batches):
    """Without 1 a single frame could not be served; a batch size twice or out of order is a slip."""
    with pytest.raises(InvalidPlanError) as caught:
        sample_plan(buckets=(*BUCKETS, bucket(canvases=(CanvasShape(32, 32),), batches=batches)))

    assert str(caught.value) == (
        f"buckets.b.batches: got {list(batches)}, allowed are ascending sizes that begin with 1: [1, 2, 4]"
    )


def test_two_models_may_share_a_canvas():
    """A canvas is unique for each model, not over all of them."""
    light = bucket(name="light", model="light", canvases=(VGA,))
    plan = sample_plan(models={"full": "f.onnx", "light": "l.onnx"}, buckets=(*BUCKETS, light))

    assert plan.buckets[-1] is light


def test_a_changed_plan_is_checked_again():
    """Tools that derive one plan from another cannot make a wrong one."""
    with pytest.raises(InvalidPlanError, match="pools: got none"):
        dataclasses.replace(sample_plan(), pools=())


def test_a_tensorrt_pool_asks_for_gpus():
    """Without, Ray would let its replicas share whatever GPU they see, unreserved."""
    buckets = (Bucket("vga", "full", "gpu", (VGA,), (1,)),)
    with pytest.raises(InvalidPlanError, match=r"pools.gpu.gpus: got 0 with runtime tensorrt, allowed is above 0"):
        Plan({"full": "full.onnx"}, (Pool("gpu", runtime=Runtime.TENSORRT),), buckets)
