"""The engines of a plan's buckets: their profiles, the wide ones beside them, and the memory of a pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.engine_spec import ComputeCapability, EngineFacts, EngineSpec, Precision, ShapeProfile
from engines.spec import CanvasShape
from serve_app.bucket_engines import EngineOptions, PoolMemory, bucket_spec, pool_memory, wide_specs
from serve_app.plan import Bucket, Plan, Pool

SMALL, LARGE = CanvasShape(320, 416), CanvasShape(736, 1280)
PATHS = {"full": Path("full.onnx"), "light": Path("light.onnx")}
OPTIONS = EngineOptions(ComputeCapability(8, 9), Precision.FP32, workspace_bytes=2**20)
PLAN = Plan(
    models={name: str(path) for name, path in PATHS.items()},
    pools=(Pool("near", num_gpus=1), Pool("far", num_gpus=1)),
    buckets=(
        Bucket("small", "full", "near", (SMALL,), (1, 2, 8)),
        Bucket("large", "full", "near", (LARGE,), (1, 2)),
        Bucket("overview", "light", "near", (SMALL,), (1, 4)),
        Bucket("apart", "light", "far", (LARGE,), (1,)),
    ),
)


def test_a_buckets_engine_has_its_shapes_and_the_plans_options():
    """Its own canvases and batches, nobody else's."""
    assert bucket_spec(PLAN.buckets[0], PATHS["full"], OPTIONS) == EngineSpec(
        PATHS["full"], ShapeProfile.around([SMALL], [1, 2, 8]), Precision.FP32, ComputeCapability(8, 9), 2**20
    )


def test_a_wide_engine_takes_every_shape_of_its_model_in_its_pool():
    """One a model; other pools have their own."""
    near, far = wide_specs(PLAN, "near", PATHS, OPTIONS), wide_specs(PLAN, "far", PATHS, OPTIONS)
    assert {name: str(spec.profile) for name, spec in near.items()} == {
        "full": "1x320x416 8x320x416 8x736x1280",
        "light": "1x320x416 4x320x416 4x320x416",
    }
    assert {name: str(spec.profile) for name, spec in far.items()} == {"light": "1x736x1280 1x736x1280 1x736x1280"}


def test_fp16_is_what_a_gpu_computes_in_unless_told_otherwise():
    """Twice as fast, and checked against FP32."""
    assert EngineOptions(ComputeCapability(8, 9)).precision is Precision.FP16


@pytest.mark.parametrize("order", [1, -1], ids=["given", "reversed"])
def test_activations_share_the_largest_buffer_and_weights_add_up(order):
    """Engines of a replica run one after the other; their weights all stay."""
    profile, gpu = ShapeProfile.around([SMALL], [1]), ComputeCapability(8, 9)
    facts = [
        EngineFacts("tensorrt", "11.4", gpu, Precision.FP32, profile, "ab", activation, weights, 1.0)
        for activation, weights in [(10, 3), (40, 3), (20, 5)][::order]
    ]
    assert pool_memory(facts) == PoolMemory(arena_bytes=40, sum_bytes=70, weights_bytes=11)
