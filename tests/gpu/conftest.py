"""Fixtures of the tests on a real GPU (`make test-gpu`), and the report that they end with.

Never run on a device so far; each of them has run once on stand-ins of driver and runtime (`tests/tensorrt/simulated`).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "unit" / "engines")]
pytest.register_assert_rewrite("engine_promises")

from gpu_machine import gpu_machine  # noqa: E402
from gpu_report import REPORT  # noqa: E402

from engines.errors import EngineError  # noqa: E402
from serve_app.tensorrt_pool import gpu_here  # noqa: E402

_spec = importlib.util.spec_from_file_location(
    "tiny_detectors_for_gpus", HERE.parent / "unit" / "engines" / "conftest.py"
)
_tiny_detectors = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tiny_detectors)
raw_model, end_to_end_model = _tiny_detectors.raw_model, _tiny_detectors.end_to_end_model
grid_model = _tiny_detectors.grid_model


@pytest.fixture(scope="session")
def machine(tmp_path_factory):
    """The GPU here; without one, or without TensorRT, every test is skipped and says why."""
    try:
        gpu_here().close()
    except EngineError as err:
        pytest.skip(f"needs an NVIDIA GPU and TensorRT: {err}")
    return gpu_machine(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="session")
def report():
    """What is printed at the end."""
    return REPORT


def pytest_terminal_summary(terminalreporter):
    """Print the report with the outcomes, to be copied whole."""
    if REPORT:
        outcomes = {
            kind: len(terminalreporter.stats.get(kind, ())) for kind in ("passed", "failed", "error", "skipped")
        }
        terminalreporter.write_line(REPORT.text(outcomes))
