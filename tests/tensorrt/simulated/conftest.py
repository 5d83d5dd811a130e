"""Fixtures of the tests that run on stand-ins of driver and TensorRT, in a process of their own (see `nested_run`)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS / "tensorrt"), str(TESTS / "tensorrt" / "stand_ins"), str(TESTS / "unit" / "engines")]
pytest.register_assert_rewrite("engine_promises")

from simulated_engines import STAND_IN, WORLD, MakeEngine  # noqa: E402

from engines.gpu_device import GpuDevice  # noqa: E402

_spec = importlib.util.spec_from_file_location("tiny_detectors", TESTS / "unit" / "engines" / "conftest.py")
_tiny_detectors = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tiny_detectors)
raw_model, end_to_end_model = _tiny_detectors.raw_model, _tiny_detectors.end_to_end_model
grid_model = _tiny_detectors.grid_model


@pytest.fixture
def driver():
    """The stand-in of the driver, healthy; at the end nothing is held and nothing was misused."""
    STAND_IN.reset()
    WORLD.reset()
    yield STAND_IN
    assert (STAND_IN.held(), WORLD.live()) == ({}, (0, 0, 0))
    assert (STAND_IN.count("misuses"), WORLD.misuses) == (0, [])


@pytest.fixture
def trt(driver):
    """The fake of TensorRT: what fails in it, and what it saw."""
    assert WORLD.driver is driver
    return WORLD


@pytest.fixture
def device(driver):
    """An open GPU, closed at the end."""
    assert driver.held() == {}
    with GpuDevice() as opened:
        yield opened


@pytest.fixture
def make(device, raw_model):
    """Engines of the colour detector with the raw head."""
    return MakeEngine(device, raw_model(), (-1, 7, 3))
