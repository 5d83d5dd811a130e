"""The driver's wrapper: on the stand-in (simulated), and on a machine without any driver (for real)."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

pytestmark = pytest.mark.tensorrt


def test_the_wrapper_names_every_error_and_frees_without_raising(simulated):
    """See `simulated/driver_calls.py`."""
    simulated.assert_all_passed("driver_calls", at_least=20)


def test_a_machine_without_a_driver_is_told_so():
    """The real package, no libcuda.so.1: the library that is missing and the cure are named."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("this machine has a driver")
    code = "from engines.gpu_device import GpuDevice\nGpuDevice().open()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line.startswith("engines.errors.EngineLibraryError: libcuda.so.1: got no usable library")
    assert last_line.endswith("install the driver, or run on a machine that has a GPU")
