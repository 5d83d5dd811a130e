"""Devices without a GPU: the CPU's facts, which GPU a number means, and what is said where GPUs cannot be asked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engines import cpu_device
from engines.cpu_device import CpuDevice
from engines.device_facts import ThrottleReason, open_device
from engines.engine_spec import ComputeCapability
from engines.errors import DeviceError, EngineLibraryError
from engines.machine import machine_name
from engines.visible_gpus import ListedGpu, visible_gpu

H100S = [ListedGpu("NVIDIA H100", "GPU-8932f937-aa"), ListedGpu("NVIDIA H100", "GPU-8932ab00-bb"), ListedGpu("", "")]
MIXED = [ListedGpu("NVIDIA L4", "GPU-11"), ListedGpu("NVIDIA H100", "GPU-22")]
SLICE = "MIG-41b35014-542d-5448-8d12-0e3aa4bd1a9b"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A kernel without any file for `CpuDevice`; writes one, in folders like the real ones."""
    monkeypatch.setattr(cpu_device, "_CORES", tmp_path / "cpu")
    monkeypatch.setattr(cpu_device, "_ZONES", tmp_path / "thermal")
    monkeypatch.setattr(cpu_device, "_QUOTA_FILES", (tmp_path / "v2" / "cpu.stat", tmp_path / "v1" / "cpu.stat"))

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


def test_the_cpus_memory_adds_up():
    """Used and free are the whole limit, as on a GPU; nothing is said that only a GPU has."""
    device = open_device(None)
    facts = device.facts()
    device.close()
    device.close()

    assert 0 < facts.used_bytes < facts.total_bytes
    assert facts.used_bytes + facts.free_bytes == facts.total_bytes
    assert facts.name == machine_name()
    assert (facts.index, facts.uuid, facts.compute_capability, facts.utilisation_fraction) == (None,) * 4


def test_a_kernel_that_says_nothing_gives_none(kernel):
    """A virtual machine has neither thermometers nor counters: that is unknown, not fine."""
    assert kernel
    facts = CpuDevice().facts()

    assert (facts.throttle_reasons, facts.temperature_c) == (None, None)


def test_the_first_look_gives_no_reason_and_a_grown_counter_does(kernel):
    """The kernel counts since the machine started: only what came since the last look slows down now."""
    device = CpuDevice()
    kernel("cpu/cpu0/thermal_throttle/core_throttle_count", "7\n")
    kernel("cpu/cpu1/thermal_throttle/core_throttle_count", "5\n")
    first, second = device.facts(), device.facts()
    kernel("cpu/cpu1/thermal_throttle/core_throttle_count", "6\n")
    third, fourth = device.facts(), device.facts()

    reasons = [facts.throttle_reasons for facts in (first, second, third, fourth)]
    assert reasons == [(), (), (ThrottleReason.CPU_THERMAL,), ()]


@pytest.mark.parametrize("folder", ["v2", "v1"])
def test_a_cpu_quota_that_ran_out_is_a_reason(kernel, folder):
    """A container with too little CPU is as slow as a hot machine."""
    device = CpuDevice()
    kernel(f"{folder}/cpu.stat", "nr_periods 10\nnr_throttled 1\nthrottled_usec 5\n")
    device.facts()
    kernel(f"{folder}/cpu.stat", "nr_periods 20\nnr_throttled 4\nthrottled_usec 9\n")

    assert device.facts().throttle_reasons == (ThrottleReason.CPU_QUOTA,)


def test_the_temperature_is_the_warmest_package(kernel):
    """Zones of other parts do not count; the kernel writes thousandths of a degree."""
    for number, (kind, milli_c) in enumerate({"x86_pkg_temp": 61500, "acpitz": 99000}.items()):
        kernel(f"thermal/thermal_zone{number}/type", f"{kind}\n")
        kernel(f"thermal/thermal_zone{number}/temp", f"{milli_c}\n")

    assert CpuDevice().facts().temperature_c == 61.5


@pytest.mark.parametrize(
    ("environ", "ordinal", "meant"),
    [
        pytest.param({}, 1, 1, id="all-visible"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "1"}, 0, 1, id="one-index"),
        pytest.param({"CUDA_VISIBLE_DEVICES": " 2 , 0"}, 1, 0, id="spaces"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "GPU-8932ab00-bb"}, 0, 1, id="uuid"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "GPU-8932F"}, 0, 0, id="uuid-cut-short"),
        pytest.param({"CUDA_VISIBLE_DEVICES": f"{SLICE},1"}, 0, SLICE, id="slice"),
        pytest.param({"CUDA_VISIBLE_DEVICES": f"{SLICE},1"}, 1, 1, id="after-a-slice"),
    ],
)
def test_a_number_means_the_gpu_that_cuda_takes(environ, ordinal, meant):
    """CUDA numbers what `CUDA_VISIBLE_DEVICES` lists, in its order."""
    assert visible_gpu(ordinal, H100S, environ) == meant


@pytest.mark.parametrize(
    ("visible", "ordinal"),
    [
        pytest.param(None, 3, id="more-than-there-are"),
        pytest.param("0", 1, id="more-than-visible"),
        pytest.param("0", -1, id="negative"),
        pytest.param("", 0, id="none-visible"),
        pytest.param("NoDevFiles", 0, id="rays-word-for-none"),
        pytest.param("0,-1,1", 1, id="behind-minus-one"),
        pytest.param("7,0", 0, id="behind-an-index-that-is-not-there"),
        pytest.param("GPU-8932", 0, id="uuid-of-two"),
        pytest.param("GPU-ffff", 0, id="uuid-of-none"),
    ],
)
def test_a_gpu_that_cuda_would_not_see_is_refused(visible, ordinal):
    """CUDA stops at the first entry that means no GPU; so do we, and say what is visible."""
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    with pytest.raises(DeviceError, match="this process sees"):
        visible_gpu(ordinal, H100S, environ)


def test_a_number_among_different_models_needs_the_bus_order():
    """CUDA counts the fastest first and NVML by the bus: a guess would give another GPU's figures."""
    with pytest.raises(DeviceError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        visible_gpu(0, MIXED, {"CUDA_VISIBLE_DEVICES": "1"})

    assert visible_gpu(0, MIXED, {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}) == 1
    assert visible_gpu(0, MIXED, {"CUDA_VISIBLE_DEVICES": "GPU-22"}) == 1


def test_a_gpu_without_pynvml_is_an_error_with_its_cure(monkeypatch):
    """The extra is named, and there is no silent CPU in the GPU's place."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(EngineLibraryError, match=r"pip install 'framelane\[gpu\]'"):
        open_device(0)


def test_importing_the_devices_imports_no_nvml():
    """With the extra absent nothing looks for it, and with it nothing loads it unasked."""
    code = "import sys, engines.device_facts, engines.cpu_device, engines.nvml_device; print('pynvml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


def test_reasons_have_distinct_names_and_capabilities_print_as_people_write_them():
    """They become labels of metrics and parts of file names."""
    assert len({reason.value for reason in ThrottleReason}) == len(ThrottleReason)
    assert str(ComputeCapability(8, 9)) == "8.9"
