"""TensorRT on a GPU finds what ONNX Runtime finds on a CPU, in both precisions. Never run on a device so far."""

from __future__ import annotations

import functools

import pytest
from gpu_machine import TIMEOUT_S

from engines.engine_spec import Precision
from engines.parity import Tolerance, compare, detect_all, engine_of, native_shape
from engines.prepared_graph import prepared_onnx
from serve_app.lone_engine import lone_tensorrt_engine

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(TIMEOUT_S)]


@pytest.fixture(scope="module")
def by_onnx_runtime(machine):
    """What the trusted runner finds in each model's FP32 graph, computed once."""

    @functools.cache
    def found(path):
        return detect_all(engine_of(prepared_onnx(path, Precision.FP32)), machine.frames_hwc)

    return found


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16], ids=lambda precision: precision.value)
@pytest.mark.parametrize("model", ["inspection-light", "inspection-full"])
def test_boxes_are_those_of_onnx_runtime(machine, report, by_onnx_runtime, model, precision):
    """Within the tolerance that FP16 is held to; FP32 too, as TensorRT may multiply in TF32."""
    path = machine.models[model]
    graph = prepared_onnx(path, precision)
    shapes = sorted({native_shape(image_hwc, graph.info) for image_hwc in machine.frames_hwc})
    engine = lone_tensorrt_engine(path, precision, shapes, parts=machine.parts(), folder=machine.folder)
    parity = compare(detect_all(engine, machine.frames_hwc), by_onnx_runtime(path))
    report.add(
        "parity with ONNX Runtime in FP32",
        f"{model} {precision.value}: {parity.num_matched} boxes, {len(parity.only_found)} more, "
        f"{len(parity.only_wanted)} missing, lowest IoU {parity.lowest_iou:.4f}, "
        f"scores within {parity.largest_score_difference:.4f}",
    )
    assert parity.num_matched > 0
    assert [str(excess) for excess in parity.excesses(Tolerance())] == []
