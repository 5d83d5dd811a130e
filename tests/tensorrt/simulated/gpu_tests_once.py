"""The tests of `tests/gpu` on stand-ins of driver and runtime, so that their code has run before it meets a GPU.

Sizes are small, and the facts are the stand-in's; what a device would do differently stays unknown (simulated).
"""

from __future__ import annotations

import sys
from pathlib import Path

import fake_tensorrt
import pytest
from simulated_pool import ADA, AskedGpu, Builds

sys.path.insert(0, str(Path(__file__).parents[2] / "gpu"))

from gpu_machine import MODELS, Machine
from gpu_report import GpuReport
from test_gpu_benchmark import *  # noqa: F403 - all tests, to be collected here
from test_gpu_conformance import *  # noqa: F403
from test_gpu_facts import *  # noqa: F403
from test_gpu_memory import *  # noqa: F403
from test_gpu_parity import *  # noqa: F403

from engines.gpu_device import GpuDevice
from engines.spec import CanvasShape, WarmShape
from engines.tensorrt_library import TensorRtLibrary
from framelane_inspection.scenes import draw_scene
from serve_app.config import model_path
from serve_app.tensorrt_pool import GpuParts


@pytest.fixture(autouse=True)
def nothing_is_left(driver):
    """Each test gives all back that it took; see `driver`."""
    assert driver.held() == {}


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A GPU that is none, and shapes that ONNX Runtime computes quickly."""

    def parts():
        gpu = AskedGpu("a stand-in", ADA, total_bytes=2**30)
        library = TensorRtLibrary("tensorrt_rtx", "0.0", fake_tensorrt.bindings(is_rtx=True))
        return GpuParts(library, gpu.facts(), gpu, GpuDevice(), Builds())

    return Machine(
        parts=parts,
        driver_version=lambda: "none",
        folder=tmp_path_factory.mktemp("engines"),
        models={name: model_path(f"bundled:{name}") for name in MODELS},
        frames_hwc=[draw_scene((320, 320), 8).image_hwc, draw_scene((320, 448), 8).image_hwc],
        large=WarmShape(CanvasShape(96, 96), 2),
        shapes=(WarmShape(CanvasShape(96, 96), 1), WarmShape(CanvasShape(64, 96), 2)),
        repeats=3,
    )


@pytest.fixture(scope="module")
def report():
    """What would be pasted into an issue; it is checked when the last test has ended."""
    made = GpuReport()
    yield made
    text = made.text({"passed": 1})
    assert "GPU a stand-in, compute capability 8.9, driver none" in text
    assert "captured: yes (inspection-full, 2 × 64x96)" in text
    assert text.count("inspection-light") >= 4
