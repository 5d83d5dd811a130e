"""One NVIDIA GPU, or a slice of one, asked through NVML (`pynvml`, package nvidia-ml-py, of the extras gpu and rtx).

Never run on a GPU by us: its tests run the real `pynvml` on a stand-in of NVML's C library.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.device_facts import DeviceFacts, ThrottleReason
from engines.engine_spec import ComputeCapability
from engines.errors import DeviceError, DeviceLostError, EngineError, EngineLibraryError
from engines.visible_gpus import GPU_PREFIX, SLICE_PREFIX, ListedGpu, visible_gpu

# What makes a GPU slower than its clocks are set to, by the names of NVML's bits. Left out: idle, application and
# display clocks, which are as wanted, and the board's and the voltage's limit, where boosting always ends.
_SLOWING = {
    "nvmlClocksThrottleReasonSwPowerCap": ThrottleReason.POWER_CAP,
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": ThrottleReason.POWER_BRAKE,
    "nvmlClocksThrottleReasonSwThermalSlowdown": ThrottleReason.SW_THERMAL,
    "nvmlClocksThrottleReasonHwThermalSlowdown": ThrottleReason.HW_THERMAL,
    "nvmlClocksThrottleReasonHwSlowdown": ThrottleReason.HW_SLOWDOWN,
    "nvmlClocksThrottleReasonSyncBoost": ThrottleReason.SYNC_BOOST,
}
# This device or this driver does not know the question: the field is None, the device is well.
_UNKNOWN_HERE = (
    "NVML_ERROR_NOT_SUPPORTED",
    "NVML_ERROR_FUNCTION_NOT_FOUND",
    "NVML_ERROR_NO_DATA",
    "NVML_ERROR_ARGUMENT_VERSION_MISMATCH",
)
_CURES: dict[str, tuple[type[EngineError], str]] = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": (
        EngineLibraryError,
        "install NVIDIA's driver, and in a container let NVIDIA_DRIVER_CAPABILITIES name utility beside compute",
    ),
    "NVML_ERROR_DRIVER_NOT_LOADED": (EngineLibraryError, "load the driver's kernel module until nvidia-smi works"),
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": (
        EngineLibraryError,
        "the driver was updated under the running kernel module; reboot",
    ),
    "NVML_ERROR_GPU_IS_LOST": (
        DeviceLostError,
        "the GPU fell off the bus; replace this process, then look at the kernel log for Xid",
    ),
    "NVML_ERROR_RESET_REQUIRED": (
        DeviceLostError,
        "the GPU must be reset; stop what uses it, then nvidia-smi --gpu-reset",
    ),
    "NVML_ERROR_NO_PERMISSION": (DeviceError, "let this user open /dev/nvidiactl and the GPU's own /dev/nvidia*"),
    "NVML_ERROR_NOT_FOUND": (DeviceError, "name one that nvidia-smi -L lists"),
    "NVML_ERROR_INVALID_ARGUMENT": (DeviceError, "name one that nvidia-smi -L lists"),
}

_log = logging.getLogger(__name__)


class Nvml:
    """NVML's calls, with errors of ours. NVML may be called from any thread."""

    def __init__(self, module: Any) -> None:
        """Take `pynvml`."""
        self.module = module
        self._unknown_here = {getattr(module, name) for name in _UNKNOWN_HERE}
        self._cures = {getattr(module, name): cure for name, cure in _CURES.items()}

    def ask(self, call: str, *arguments: Any) -> Any:
        """Make one call.

        Raises:
            EngineLibraryError, DeviceLostError, DeviceError: as NVML refused.
        """
        try:
            return getattr(self.module, call)(*arguments)
        except self.module.NVMLError as err:
            raise self._named(call, err) from err

    def ask_any(self, *calls: tuple[str, tuple[Any, ...]]) -> Any:
        """Make the first of these calls that this driver and this GPU know; None: they know none.

        Raises:
            DeviceLostError, DeviceError: as NVML refused.
        """
        for call, arguments in calls:
            try:
                return getattr(self.module, call)(*arguments)
            except self.module.NVMLError as err:
                if err.value not in self._unknown_here:
                    raise self._named(call, err) from err
        return None

    def _named(self, call: str, err: Any) -> EngineError:
        error, cure = self._cures.get(err.value, (DeviceError, "nvidia-smi -q may say more"))
        return error(f"{call}: NVML answers {err} ({err.value}); {cure}")


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What never changes of a device; `gpu` is the handle of the whole GPU that a slice is of."""

    name: str
    uuid: str
    index: int
    capability: ComputeCapability
    gpu: Any


class NvmlDevice:
    """A GPU's facts. Closing it is the owner's business; several in one process are independent.

    NVML counts its own starts and stops within a process, so each device starts it once and stops it once. On a slice
    (MIG) memory is the slice's, the rest the whole GPU's, where the driver tells a tenant; a slice has no utilisation.
    """

    def __init__(self, nvml: Nvml, handle: Any, known: _Known) -> None:
        """Take NVML, started once for this device, the handle of the GPU or slice, and what never changes of it."""
        self._nvml = nvml
        self._handle = handle
        self._known = known
        self._is_slice = known.uuid.startswith(SLICE_PREFIX)
        self._is_open = True

    @classmethod
    def open(cls, gpu: int | str = 0, *, environ: Mapping[str, str] = os.environ) -> NvmlDevice:
        """Start NVML and find the GPU; see `device_facts.open_device` for the arguments and errors."""
        try:
            nvml = Nvml(importlib.import_module("pynvml"))
        except ImportError as err:
            raise EngineLibraryError(
                "pynvml: not installed, and needed to ask a GPU for its facts; pip install 'framelane[gpu]'"
            ) from err
        nvml.ask("nvmlInit")
        try:
            handle = _find(nvml, gpu, environ)
            return cls(nvml, handle, _known(nvml, handle))
        except BaseException:
            _stop(nvml)
            raise

    def facts(self) -> DeviceFacts:
        """Look now: about six calls into the driver."""
        if not self._is_open:
            raise DeviceError(f"{self._known.name}: this device is closed; open another one")
        # Version 1 of the answer: every driver has it, and its used bytes hold what the driver reserves, so that used
        # and free are the total. What can still be allocated is what a memory limit must go by; version 2 leaves the
        # reserved bytes out of the used ones.
        memory = self._nvml.ask_any(("nvmlDeviceGetMemoryInfo", (self._handle,)))
        load = None if self._is_slice else self._nvml.ask_any(("nvmlDeviceGetUtilizationRates", (self._handle,)))
        celsius = self._of_gpu("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU")
        errors = self._of_gpu("nvmlDeviceGetTotalEccErrors", None, "NVML_MEMORY_ERROR_TYPE_UNCORRECTED",
                              "NVML_VOLATILE_ECC")  # fmt: skip
        bits = self._of_gpu("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        return DeviceFacts(
            name=self._known.name,
            index=self._known.index,
            uuid=self._known.uuid,
            compute_capability=self._known.capability,
            total_bytes=None if memory is None else int(memory.total),
            used_bytes=None if memory is None else int(memory.used),
            free_bytes=None if memory is None else int(memory.free),
            utilisation_fraction=None if load is None else load.gpu / 100,
            temperature_c=None if celsius is None else float(celsius),
            throttle_reasons=None if bits is None else self._slowing(int(bits)),
            ecc_uncorrected=None if errors is None else int(errors),
        )

    def close(self) -> None:
        """Stop NVML as often as this device started it: once; what NVML has to say against it is logged."""
        if self._is_open:
            self._is_open = False
            _stop(self._nvml)

    def _of_gpu(self, call: str, older: str | None, *constants: str) -> Any:
        """Ask the whole GPU, under the call's older name where the driver is old; None: it does not say."""
        arguments = (self._known.gpu, *(getattr(self._nvml.module, name) for name in constants))
        calls = [(name, arguments) for name in (call, older) if name is not None]
        try:
            return self._nvml.ask_any(*calls)
        except DeviceLostError:
            raise
        except DeviceError:
            # A tenant of a slice may not look at what it shares with others.
            if self._is_slice:
                return None
            raise

    def _slowing(self, bits: int) -> tuple[ThrottleReason, ...]:
        return tuple(reason for name, reason in _SLOWING.items() if bits & getattr(self._nvml.module, name))


def _stop(nvml: Nvml) -> None:
    try:
        nvml.ask("nvmlShutdown")
    except EngineError as err:
        _log.warning("%s", err)


def _find(nvml: Nvml, gpu: int | str, environ: Mapping[str, str]) -> Any:
    """The handle of the GPU or slice that is meant."""
    gpus = _all_gpus(nvml)
    meant = visible_gpu(gpu, gpus, environ) if isinstance(gpu, int) else gpu
    if isinstance(meant, int):
        handle = nvml.ask("nvmlDeviceGetHandleByIndex", meant)
    else:
        if not meant.startswith((GPU_PREFIX, SLICE_PREFIX)):
            # CUDA gives a UUID as bytes, without saying whether it is a GPU's or a slice's.
            is_gpu = GPU_PREFIX + meant in [listed.uuid for listed in gpus]
            meant = (GPU_PREFIX if is_gpu else SLICE_PREFIX) + meant
        handle = nvml.ask("nvmlDeviceGetHandleByUUID", meant)
    is_slice = isinstance(meant, str) and meant.startswith(SLICE_PREFIX)
    if not is_slice and (nvml.ask_any(("nvmlDeviceGetMigMode", (handle,))) or [0])[0]:
        raise DeviceError(
            f"GPU {meant}: it is cut into slices (MIG), of which CUDA takes one; name that one: "
            f"CUDA_VISIBLE_DEVICES=MIG-… (nvidia-smi -L)"
        )
    return handle


def _known(nvml: Nvml, handle: Any) -> _Known:
    uuid = str(nvml.ask("nvmlDeviceGetUUID", handle))
    is_slice = uuid.startswith(SLICE_PREFIX)
    gpu = nvml.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) if is_slice else handle
    return _Known(
        name=str(nvml.ask("nvmlDeviceGetName", handle)),
        uuid=uuid,
        index=int(nvml.ask("nvmlDeviceGetIndex", gpu)),
        capability=ComputeCapability(*nvml.ask("nvmlDeviceGetCudaComputeCapability", gpu)),
        gpu=gpu,
    )


def _all_gpus(nvml: Nvml) -> list[ListedGpu]:
    """All GPUs in NVML's order; a neighbour that is lost keeps its number and hinders nobody."""
    found = []
    for index in range(nvml.ask("nvmlDeviceGetCount")):
        try:
            handle = nvml.ask("nvmlDeviceGetHandleByIndex", index)
            name, uuid = nvml.ask("nvmlDeviceGetName", handle), nvml.ask("nvmlDeviceGetUUID", handle)
        except DeviceError:
            name, uuid = "", ""
        found.append(ListedGpu(name, uuid))
    return found
