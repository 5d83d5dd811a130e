"""What a device says of itself: memory, load, heat, what slows it down. One protocol for GPUs and for the CPU.

Values and the choice between the two only: `nvml_device.py` asks NVIDIA's driver, `cpu_device.py` asks Linux.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from engines.engine_spec import ComputeCapability


class ThrottleReason(Enum):
    """Why a device runs slower than it could. A GPU that idles, or that keeps to the clocks set for it, has none."""

    POWER_CAP = "power_cap"
    """Its power limit; usual for a GPU that is fully busy."""
    POWER_BRAKE = "power_brake"
    """The power supply asked for it."""
    SW_THERMAL = "sw_thermal"
    """Too warm: the driver lowers the clocks."""
    HW_THERMAL = "hw_thermal"
    """Far too warm: the hardware halves the clocks, or worse."""
    HW_SLOWDOWN = "hw_slowdown"
    """The hardware slows down: heat, power brake or a peak of current; the cause may be named beside it."""
    SYNC_BOOST = "sync_boost"
    """It waits for the slowest of its sync group."""
    CPU_THERMAL = "cpu_thermal"
    """A core was too warm since the last look."""
    CPU_QUOTA = "cpu_quota"
    """The cgroup's CPU time ran out since the last look."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One look at a device. A field is None where this device does not say.

    Attributes:
        name: its model, such as `NVIDIA H100 80GB HBM3`; a slice of a GPU names its size too.
        index: NVML's number of the physical GPU on this machine, which need not be CUDA's; None for the CPU.
        uuid: `GPU-…` or `MIG-…`, the same for NVML and CUDA; None for the CPU.
        compute_capability: of a GPU; None for the CPU.
        total_bytes, used_bytes, free_bytes: memory; used and free add up to the total.
        utilisation_fraction: share of the last second or less in which any kernel ran; says nothing of how many.
        temperature_c: of the chip, in degrees Celsius.
        throttle_reasons: what slows it down; empty: nothing does.
        ecc_uncorrected: memory errors that could not be corrected since the driver was loaded.
    """

    name: str
    index: int | None
    uuid: str | None
    compute_capability: ComputeCapability | None
    total_bytes: int | None
    used_bytes: int | None
    free_bytes: int | None
    utilisation_fraction: float | None
    temperature_c: float | None
    throttle_reasons: tuple[ThrottleReason, ...] | None
    ecc_uncorrected: int | None


class Device(Protocol):
    """A device that can be asked how it is. Any thread may ask; it takes milliseconds, so it is no frame's business."""

    def facts(self) -> DeviceFacts:
        """Look now.

        Raises:
            DeviceLostError: the device is gone or must be reset; the process that uses it must be replaced.
            DeviceError: it cannot be asked.
        """

    def close(self) -> None:
        """Let go of what asking takes; calling it again does nothing."""


def open_device(gpu: int | str | None, *, environ: Mapping[str, str] = os.environ) -> Device:
    """Open the CPU or one of the GPUs that this process may see.

    There is no silent way from a GPU to the CPU: figures of the wrong device are worse than none. A caller that can do
    without figures catches `EngineLibraryError` and goes on without.

    Args:
        gpu: None: the CPU, as this process may use it. A number: the GPU as CUDA counts them in this process, after
            `CUDA_VISIBLE_DEVICES`, which Ray sets for each of its workers. A text: a UUID, as CUDA or `nvidia-smi -L`
            gives it; the surest way.
        environ: where `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER` are looked up.

    Raises:
        EngineLibraryError: NVIDIA's driver, its library or the Python package to ask it is missing.
        DeviceLostError: the GPU is gone or must be reset.
        DeviceError: there is no such GPU for this process, or it cannot be told which one is meant.
    """
    if gpu is None:
        from engines.cpu_device import CpuDevice

        return CpuDevice()
    from engines.nvml_device import NvmlDevice

    return NvmlDevice.open(gpu, environ=environ)
