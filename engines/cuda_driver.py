"""The CUDA driver as this project uses it: typed calls whose every error has a name and a cure.

Nothing is imported before `load_driver` is called. It has run on a stand-in of the driver's public API in host memory,
never on a device.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

from engines.errors import DeviceError, DeviceLostError, EngineLibraryError, EngineMemoryError

PIP_COMMAND = "pip install 'framelane[gpu]'"

# After one of these every further call of the process on its context fails as well, until a new process is started
# (https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html).
# UNKNOWN is among them: a GPU that has left its bus is often reported so.
LOST = frozenset(
    f"CUDA_ERROR_{name}"
    for name in (
        "DEVICE_UNAVAILABLE",
        "ECC_UNCORRECTABLE",
        "NVLINK_UNCORRECTABLE",
        "CONTAINED",
        "ILLEGAL_ADDRESS",
        "LAUNCH_TIMEOUT",
        "LAUNCH_FAILED",
        "CONTEXT_IS_DESTROYED",
        "ASSERT",
        "HARDWARE_STACK_ERROR",
        "ILLEGAL_INSTRUCTION",
        "MISALIGNED_ADDRESS",
        "INVALID_ADDRESS_SPACE",
        "INVALID_PC",
        "TENSOR_MEMORY_LEAK",
        "EXTERNAL_DEVICE",
        "MPS_CLIENT_TERMINATED",
        "DEINITIALIZED",
        "UNKNOWN",
    )
)
_CURES = {
    "CUDA_ERROR_NO_DEVICE": "run on a machine with an NVIDIA GPU that this process may see (CUDA_VISIBLE_DEVICES)",
    "CUDA_ERROR_INVALID_DEVICE": "name a GPU that nvidia-smi lists and CUDA_VISIBLE_DEVICES lets through",
    "CUDA_ERROR_STUB_LIBRARY": "remove the stub libcuda.so.1 from LD_LIBRARY_PATH and install NVIDIA's driver",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "reboot: kernel module and driver library are of different versions",
    "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER": "install a newer NVIDIA driver",
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": "install a newer NVIDIA driver: this GPU takes no compat library",
}

_log = logging.getLogger(__name__)


class CudaDriver:
    """The calls that a runner needs. Handles and addresses are plain integers, as TensorRT takes them.

    Thread-safe as the driver itself is. Each call acts on the context that `use_context` made current in its thread.

    Every method raises `EngineMemoryError` when the device (or the host, for pinned memory) has no room,
    `DeviceLostError` when the device is gone, and again at once on every later call, and `DeviceError` for all else.
    Methods that free never raise: they log what the driver answered, so that one failure does not leak the rest.
    """

    def __init__(self, api: Any) -> None:
        """Take the module `cuda.bindings.driver`; see `load_driver`."""
        self._api = api
        self._lost_message: str | None = None

    def num_devices(self) -> int:
        """How many GPUs this process sees."""
        return int(self._call("cuDeviceGetCount"))

    def retain_context(self, ordinal: int) -> int:
        """The primary context of a GPU, which the CUDA runtime inside TensorRT uses too."""
        return int(self._call("cuDevicePrimaryCtxRetain", self._call("cuDeviceGet", ordinal)))

    def release_context(self, ordinal: int) -> None:
        """Give the primary context back."""
        self._free("cuDevicePrimaryCtxRelease", ordinal)

    def use_context(self, context: int) -> None:
        """Make a context the current one of this thread."""
        self._call("cuCtxSetCurrent", context)

    def use_context_to_free(self, context: int) -> None:
        """The same before calls that free: it does not raise, and is tried on a lost device too."""
        self._free("cuCtxSetCurrent", context)

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of the device."""
        free_bytes, total_bytes = self._call("cuMemGetInfo")
        return int(free_bytes), int(total_bytes)

    def allocate(self, num_bytes: int) -> int:
        """Device memory, aligned to at least 256 bytes."""
        return int(self._call("cuMemAlloc", num_bytes))

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._free("cuMemFree", address)

    def allocate_pinned(self, num_bytes: int) -> int:
        """Host memory that the device copies from and to without a detour."""
        return int(self._call("cuMemHostAlloc", num_bytes, 0))

    def free_pinned(self, address: int) -> None:
        """Give pinned memory back."""
        self._free("cuMemFreeHost", address)

    def upload(self, device_address: int, host_address: int, num_bytes: int, stream: int) -> None:
        """Begin to copy to the device."""
        self._call("cuMemcpyHtoDAsync", device_address, host_address, num_bytes, stream)

    def download(self, host_address: int, device_address: int, num_bytes: int, stream: int) -> None:
        """Begin to copy from the device."""
        self._call("cuMemcpyDtoHAsync", host_address, device_address, num_bytes, stream)

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""
        return int(self._call("cuStreamCreate", int(self._api.CUstream_flags.CU_STREAM_NON_BLOCKING)))

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._free("cuStreamDestroy", stream)

    def synchronize_stream(self, stream: int) -> None:
        """Wait until a stream has nothing left to do."""
        self._call("cuStreamSynchronize", stream)

    def settle_stream(self, stream: int) -> None:
        """The same before calls that free: it does not raise."""
        self._free("cuStreamSynchronize", stream)

    def create_event(self) -> int:
        """An event for ordering only; without a time stamp it costs less."""
        return int(self._call("cuEventCreate", int(self._api.CUevent_flags.CU_EVENT_DISABLE_TIMING)))

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        self._free("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """Let an event happen once the stream has done all that it was given so far."""
        self._call("cuEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """Let a stream's further work wait for an event; one that was never recorded has happened."""
        self._call("cuStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        """Wait for an event; one that was never recorded has happened."""
        self._call("cuEventSynchronize", event)

    def begin_capture(self, stream: int) -> None:
        """Record what follows on a stream instead of doing it.

        A call of this thread that cannot be captured, such as an allocation, spoils the capture instead of being done
        once and missing at every replay; other threads may do what they like.
        """
        mode = self._api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """End a capture and answer its graph; the stream works again, whether the capture is good or not."""
        return int(self._call("cuStreamEndCapture", stream))

    def instantiate(self, graph: int) -> int:
        """Make a graph ready to be launched; it does not need the graph any longer."""
        return int(self._call("cuGraphInstantiate", graph, 0))

    def launch(self, executable: int, stream: int) -> None:
        """Begin to run a graph."""
        self._call("cuGraphLaunch", executable, stream)

    def destroy_graph(self, graph: int) -> None:
        """Give a captured graph back."""
        self._free("cuGraphDestroy", graph)

    def destroy_executable(self, executable: int) -> None:
        """Give an instantiated graph back."""
        self._free("cuGraphExecDestroy", executable)

    def _call(self, name: str, *args: Any) -> Any:
        """Call the driver; answers what it answers besides the error: nothing, one value or a tuple."""
        if self._lost_message is not None:
            # A fresh error each time: the first one's traceback would hold its caller's frame and pixels.
            raise DeviceLostError(self._lost_message)
        error, *values = getattr(self._api, name)(*args)
        if error != self._api.CUresult.CUDA_SUCCESS:
            self._raise(name, _error_name(error))
        return values[0] if len(values) == 1 else tuple(values)

    def _free(self, name: str, *args: Any) -> None:
        (error,) = getattr(self._api, name)(*args)
        if error != self._api.CUresult.CUDA_SUCCESS and self._lost_message is None:
            _log.warning("%s%s: got %s, allowed is CUDA_SUCCESS", name, args, _error_name(error))

    def _raise(self, name: str, got: str) -> None:
        message = f"{name}: got {got}, allowed is CUDA_SUCCESS; "
        if got == "CUDA_ERROR_OUT_OF_MEMORY":
            raise EngineMemoryError(message + "use smaller canvases or batches, or a GPU with more free memory")
        if got in LOST:
            self._lost_message = message + "the device is lost to this process: start a new one, and look at nvidia-smi"
            raise DeviceLostError(self._lost_message)
        raise DeviceError(message + _CURES.get(got, "look at the driver's log (dmesg) and nvidia-smi"))


def load_driver() -> CudaDriver:
    """Load and initialise the driver.

    Raises:
        EngineLibraryError: the package `cuda-bindings` or NVIDIA's driver library is missing or too old.
        DeviceError: the driver is there and finds no GPU, or refuses to start.
    """
    try:
        api = importlib.import_module("cuda.bindings.driver")
    except ImportError as err:
        raise EngineLibraryError(f"cuda-bindings: got no importable package ({err}); {PIP_COMMAND}") from err
    driver = CudaDriver(api)
    try:
        driver._call("cuInit", 0)  # noqa: SLF001 - no one else may call it
    except DeviceError:
        raise
    except Exception as err:  # cuda-bindings of each version raises its own kind where libcuda.so.1 is missing or old
        reason = (str(err).splitlines() or [type(err).__name__])[0][:200]
        raise EngineLibraryError(
            f"libcuda.so.1: got no usable library of NVIDIA's driver ({reason}); install the driver, or run on a "
            "machine that has a GPU"
        ) from err
    return driver


def _error_name(error: Any) -> str:
    """The name of a CUresult; cuda-bindings answers a bare number for one that is newer than itself."""
    return str(getattr(error, "name", error))
