"""The conformance suite of all runners on the real TensorRT runner. Never run on a device so far."""

from __future__ import annotations

from contextlib import closing

import onnx
import pytest
from engine_promises import *  # noqa: F403 - the whole suite, to be collected here
from engine_promises import EngineCase
from gpu_machine import TIMEOUT_S, built_engine

from engines.engine_spec import Precision, ShapeProfile
from engines.spec import CanvasShape
from engines.tensorrt_run import TensorRtEngine

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(TIMEOUT_S)]

# Holds every shape that the suite warms.
PROFILE = ShapeProfile.around([CanvasShape(96, 96), CanvasShape(64, 64)], [1, 2, 3])


@pytest.fixture(params=["raw-head", "end-to-end-head", "grid"])
def case(request, machine, report, raw_model, end_to_end_model, grid_model):
    """Tiny detectors in FP32, cold; two engines share a device as in a replica."""
    build = {"raw-head": raw_model, "end-to-end-head": end_to_end_model, "grid": grid_model}[request.param]
    path = machine.folder / f"{request.param}.onnx"
    onnx.save_model(build(), str(path))
    with closing(machine.parts()) as parts:
        parts.device.open()
        built, graph = built_engine(machine, parts, path, Precision.FP32, PROFILE)
        report.add("conformance", f"{request.param}: built in {built.facts.build_s:.1f} s")

        def make():
            return TensorRtEngine(built, graph.info, library=parts.library, device=parts.device)

        yield EngineCase(make(), make)
