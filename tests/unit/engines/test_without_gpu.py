"""Machines without GPU packages: nothing imports them, and asking for a GPU says what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engines.cuda_driver import load_driver
from engines.errors import DeviceError, EngineLibraryError
from engines.gpu_device import GpuDevice


def test_importing_the_runner_imports_no_gpu_package():
    """The default install has none of them."""
    code = (
        "import sys, engines.tensorrt_run, engines.gpu_device, engines.cuda_driver\n"
        "print([name for name in ('cuda', 'tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_bindings', 'pynvml', 'torch')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_named_with_its_cure(monkeypatch):
    """`None` in `sys.modules` is how Python marks a module that is not there."""
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(
        EngineLibraryError, match=r"cuda-bindings: got no importable package.*pip install 'framelane\[gpu\]'"
    ):
        load_driver()


def test_a_device_that_is_not_open_says_so():
    """Instead of a null handle in the driver."""
    device = GpuDevice()
    for call in (device.make_current, device.drain, lambda: device.uploads):
        with pytest.raises(
            DeviceError, match="GPU 0: got a call on a closed device, allowed is between open and close"
        ):
            call()
    device.make_current_to_free()
    device.close()
