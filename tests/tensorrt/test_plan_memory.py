"""What narrow profiles save, with real engines: the arena of a plan of three buckets beside one wide profile.

The figures are the builder's own; `docs/tensorrt.md` shows them, and a test compares. Nothing has run on a device.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.engine_spec import ComputeCapability, EngineFacts, EngineSpec, Precision, ShapeProfile
from engines.prepared_graph import prepared_onnx
from engines.spec import CanvasShape
from engines.tensorrt_build import build
from engines.tensorrt_library import load_tensorrt
from serve_app.bucket_engines import EngineOptions, bucket_spec, pool_memory, wide_specs
from serve_app.plan import Bucket, Plan, Pool

pytestmark = pytest.mark.tensorrt

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "examples/inspection/framelane_inspection/models"
MODELS = {
    "inspection-light": BUNDLED / "inspection-light.onnx",
    "inspection-full": BUNDLED / "inspection-full.onnx",
    "person-v8s": ROOT.parent / "shared/models/person-v8s.onnx",
}
MIB = 2**20
# Batches shrink as frames grow: eight of 640×640 have as many pixels as two of 1280×1280.
BUCKETS = (
    Bucket("small", "detector", "gpu", (CanvasShape(480, 480), CanvasShape(320, 320)), (1, 2, 4, 8)),
    Bucket("medium", "detector", "gpu", (CanvasShape(640, 640), CanvasShape(512, 512)), (1, 2, 4, 8)),
    Bucket("large", "detector", "gpu", (CanvasShape(1280, 1280), CanvasShape(768, 768)), (1, 2)),
)
RANGES = {
    "small": "1x320x320 8x480x480 8x480x480",
    "medium": "1x512x512 8x640x640 8x640x640",
    "large": "1x768x768 2x1280x1280 2x1280x1280",
    "wide": "1x320x320 8x480x480 8x1280x1280",
}
CASES = [
    pytest.param(model, precision, id=f"{model}-{precision.value}")
    for model in MODELS
    for precision in (Precision.FP32, Precision.FP16)
]


@dataclass(frozen=True)
class Engines:
    """What the builder made of a plan, by bucket, and of one wide profile."""

    buckets: dict[str, EngineFacts]
    wide: EngineFacts


@functools.cache
def engines_of(model: str, precision: Precision) -> Engines:
    """Build the three narrow engines of a model and the wide one; once for all tests."""
    path = MODELS[model]
    plan = Plan(models={"detector": str(path)}, pools=(Pool("gpu", num_gpus=1),), buckets=BUCKETS)
    options = EngineOptions(ComputeCapability(8, 9), precision)
    graph, library = prepared_onnx(path, precision), load_tensorrt("tensorrt_rtx")

    def facts_of(spec: EngineSpec) -> EngineFacts:
        return build(spec, graph, library).facts

    narrow = {bucket.name: facts_of(bucket_spec(bucket, path, options)) for bucket in plan.buckets}
    return Engines(narrow, facts_of(wide_specs(plan, "gpu", {"detector": path}, options)["detector"]))


@pytest.fixture
def engines(model, precision):
    """The engines of a case; skipped where the model is not at hand."""
    if not MODELS[model].is_file():
        pytest.skip(f"{MODELS[model]} is not here")
    return engines_of(model, precision)


@pytest.mark.parametrize(("model", "precision"), CASES)
def test_every_bucket_is_built_for_its_own_range_only(engines):
    """Smallest, most used and largest shape; the builder took each as it is, or the build would have failed."""
    assert {name: str(facts.profile) for name, facts in engines.buckets.items()} | {
        "wide": str(engines.wide.profile)
    } == RANGES


@pytest.mark.parametrize(("model", "precision"), CASES)
def test_the_arena_of_three_buckets_is_at_most_a_third_of_one_wide_profile(engines):
    """All contexts of a replica share one buffer, of the largest need of any bucket."""
    memory = pool_memory(list(engines.buckets.values()))
    assert memory.arena_bytes == max(facts.activation_bytes for facts in engines.buckets.values())
    assert memory.arena_bytes <= engines.wide.activation_bytes / 3


@pytest.mark.parametrize("model", MODELS)
def test_fp16_takes_less_memory_than_fp32(model):
    """Weights about half; activations less, by how much depends on what must stay FP32."""
    if not MODELS[model].is_file():
        pytest.skip(f"{MODELS[model]} is not here")
    half, full = engines_of(model, Precision.FP16), engines_of(model, Precision.FP32)
    for name in RANGES:
        narrow = name != "wide"
        of_half, of_full = (e.buckets[name] if narrow else e.wide for e in (half, full))
        assert 0.45 < of_half.weights_bytes / of_full.weights_bytes < 0.6
        assert of_half.activation_bytes < 0.75 * of_full.activation_bytes


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        pytest.param("inspection-light", Precision.FP32, id="light-fp32"),
        pytest.param("person-v8s", Precision.FP16, id="person-fp16"),
    ],
)
def test_a_range_costs_at_most_a_third_more_than_its_largest_shape_alone(engines, model, precision):
    """So a bucket may hold several canvases."""
    profile = ShapeProfile.around([CanvasShape(1280, 1280)], [2])
    spec = EngineSpec(MODELS[model], profile, precision, ComputeCapability(8, 9))
    alone = build(spec, prepared_onnx(MODELS[model], precision), load_tensorrt("tensorrt_rtx")).facts
    assert 0.9 < engines.buckets["large"].activation_bytes / alone.activation_bytes < 4 / 3


@pytest.mark.parametrize(("model", "precision"), CASES)
def test_the_figures_in_the_docs_are_those_of_the_builder(engines, model, precision):
    """One row a model and precision: small, medium, large, arena, wide in MiB, and the share."""
    text = (ROOT / "docs/tensorrt.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| {model} \| {precision.name} \|(.*)\|$", text, re.MULTILINE)
    assert row is not None
    *figures_mib, share = (cell.strip() for cell in row[1].split("|"))
    activations = [facts.activation_bytes for facts in (*engines.buckets.values(), engines.wide)]
    arena_bytes = max(activations[:3])
    wanted = [*activations[:3], arena_bytes, activations[3]]
    assert [float(cell) for cell in figures_mib] == pytest.approx([each / MIB for each in wanted], rel=0.02)
    assert share == f"{arena_bytes / activations[3]:.0%}".replace("%", " %")
