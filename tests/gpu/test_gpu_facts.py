"""What NVML says of the GPU, and that a full GPU is told apart from a broken one. Never run on a device so far."""

from __future__ import annotations

from contextlib import closing

import pytest
from gpu_machine import TIMEOUT_S

from engines.errors import EngineMemoryError

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(TIMEOUT_S)]


def test_the_gpu_says_what_it_is(machine, report):
    """Name, memory that adds up, and the compute capability that engines are built for."""
    with closing(machine.parts()) as parts:
        facts = parts.nvml.facts()
        report.add(
            "machine",
            f"GPU {facts.name}, compute capability {facts.compute_capability}, driver {machine.driver_version()}",
            f"library {parts.library}",
            f"NVML: memory used {facts.used_bytes}, free {facts.free_bytes}, total {facts.total_bytes} bytes; "
            f"load {facts.utilisation_fraction}, {facts.temperature_c} °C, "
            f"slowed by {[reason.value for reason in facts.throttle_reasons or ()]}, ECC {facts.ecc_uncorrected}",
        )
    assert facts.name
    assert facts.compute_capability is not None
    assert facts.total_bytes == facts.used_bytes + facts.free_bytes


def test_nvml_and_the_driver_mean_the_same_gpu(machine, report):
    """Both count this process's GPUs; the driver may keep a part of the memory for itself."""
    with closing(machine.parts()) as parts:
        parts.device.open()
        _, cuda_total_bytes = parts.device.driver.memory_info()
        nvml_total_bytes = parts.nvml.facts().total_bytes
    report.add("machine", f"total by CUDA {cuda_total_bytes}, by NVML {nvml_total_bytes} bytes")
    assert 0.9 * nvml_total_bytes <= cuda_total_bytes <= nvml_total_bytes


def test_a_gpu_without_room_is_a_memory_error_and_goes_on(machine, report):
    """An allocation of twice the GPU is refused by name; the next small one is not."""
    with closing(machine.parts()) as parts:
        parts.device.open()
        driver = parts.device.driver
        _, total_bytes = driver.memory_info()
        with pytest.raises(EngineMemoryError) as caught:
            driver.allocate(2 * total_bytes)
        driver.free(driver.allocate(2**20))
    report.add("out of memory", str(caught.value))
