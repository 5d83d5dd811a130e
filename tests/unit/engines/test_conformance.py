"""What `Engine` promises, kept by the runners that need no GPU: one suite for all of them."""

from __future__ import annotations

import pytest

from engines.fake import FakeEngine
from engines.onnx_run import OnnxEngine

pytest.register_assert_rewrite("engine_promises")
from engine_promises import *  # noqa: E402, F403 - the whole suite, to be collected here
from engine_promises import EngineCase  # noqa: E402


@pytest.fixture(params=["fake", "onnx-raw-head", "onnx-end-to-end-head", "onnx-grid"])
def case(request, raw_model, end_to_end_model, grid_model, save):
    """Each runner, cold."""
    builds = {"onnx-raw-head": raw_model, "onnx-end-to-end-head": end_to_end_model, "onnx-grid": grid_model}
    if request.param == "fake":

        def make():
            return FakeEngine({}, sleep=lambda _: None)
    else:
        path = save(builds[request.param]())

        def make():
            return OnnxEngine(path, num_threads=1)

    engine = make()
    yield EngineCase(engine, make)
    engine.close()
