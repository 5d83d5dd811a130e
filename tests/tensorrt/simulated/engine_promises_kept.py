"""The conformance suite on the TensorRT runner (simulated)."""

from __future__ import annotations

import pytest
from engine_promises import *  # noqa: F403 - the whole suite, to be collected here
from engine_promises import EngineCase
from simulated_engines import MakeEngine

OUTPUT_DIMS = {"raw-head": (-1, 7, 3), "end-to-end-head": (-1, 3, 6), "grid": (-1, 7, -1)}


@pytest.fixture(params=["tensorrt-raw-head", "rtx-raw-head", "rtx-end-to-end-head", "rtx-grid"])
def case(request, device, raw_model, end_to_end_model, grid_model):
    """Both kinds of the library, cold; two engines share a device as in a replica."""
    kind, _, model = request.param.partition("-")
    build = {"raw-head": raw_model, "end-to-end-head": end_to_end_model, "grid": grid_model}[model]
    make = MakeEngine(device, build(), OUTPUT_DIMS[model])
    return EngineCase(make(is_rtx=kind == "rtx"), lambda: make(is_rtx=kind == "rtx"))
