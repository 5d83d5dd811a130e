"""The driver's wrapper on the stand-in: every error has its kind, lost stays lost, freeing never raises (simulated)."""

from __future__ import annotations

import driver_stand_in as codes
import pytest

from engines.cuda_driver import load_driver
from engines.cuda_graphs import capture
from engines.errors import DeviceError, DeviceLostError, EngineMemoryError
from engines.gpu_device import GpuDevice


@pytest.fixture
def cuda(driver):
    """A driver with a context."""
    assert driver.held() == {}
    cuda = load_driver()
    cuda.use_context(cuda.retain_context(0))
    yield cuda
    cuda.release_context(0)


def test_memory_is_counted(cuda):
    """Free and total, in bytes."""
    free_bytes, total_bytes = cuda.memory_info()
    block = cuda.allocate(1000)
    assert cuda.memory_info() == (free_bytes - 1000, total_bytes)
    cuda.free(block)
    assert cuda.memory_info() == (free_bytes, total_bytes)


def test_a_full_device_is_a_memory_error(cuda, driver):
    """The message names the call, the answer and what to do."""
    driver.reset(device_bytes=1000)
    with pytest.raises(EngineMemoryError, match=r"cuMemAlloc: got CUDA_ERROR_OUT_OF_MEMORY.*smaller canvases"):
        cuda.allocate(1001)
    cuda.free(cuda.allocate(1000))


def test_an_error_of_one_call_is_a_device_error(cuda, driver):
    """The next call works."""
    driver.fail("cuEventCreate", codes.INVALID_VALUE)
    with pytest.raises(DeviceError, match="cuEventCreate: got CUDA_ERROR_INVALID_VALUE") as caught:
        cuda.create_event()
    assert not isinstance(caught.value, DeviceLostError)
    cuda.destroy_event(cuda.create_event())


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(codes.DEVICE_UNAVAILABLE, id="unavailable"),
        pytest.param(codes.ECC_UNCORRECTABLE, id="ecc"),
        pytest.param(codes.ILLEGAL_ADDRESS, id="illegal-address"),
        pytest.param(codes.LAUNCH_FAILED, id="launch-failed"),
    ],
)
def test_a_lost_device_stays_lost(cuda, driver, code):
    """Later calls raise at once, a fresh error each, without asking the driver; freeing goes on."""
    block, stream = cuda.allocate(1000), cuda.create_stream()
    driver.fail("cuStreamSynchronize", code, lasting=True)
    with pytest.raises(DeviceLostError, match="cuStreamSynchronize") as first:
        cuda.synchronize_stream(stream)
    asked = driver.count("cuMemAlloc")
    with pytest.raises(DeviceLostError, match="cuStreamSynchronize") as second:
        cuda.allocate(1000)
    assert driver.count("cuMemAlloc") == asked
    assert first.value is not second.value
    cuda.free(block)
    cuda.destroy_stream(stream)


def test_freeing_twice_is_logged_and_does_not_raise(driver, caplog):
    """One failure must not leak the rest."""
    cuda = load_driver()
    cuda.use_context(cuda.retain_context(0))
    block = cuda.allocate(1000)
    cuda.free(block)
    cuda.free(block)
    cuda.release_context(0)
    assert driver.count("misuses") == 1
    assert "cuMemFree" in caplog.text
    driver.reset()


def test_a_machine_without_a_gpu_is_told_so(driver):
    """The driver is there and finds nothing."""
    driver.reset(num_devices=0)
    with pytest.raises(DeviceError, match=r"cuInit: got CUDA_ERROR_NO_DEVICE.*CUDA_VISIBLE_DEVICES"):
        GpuDevice().open()


def test_a_gpu_that_is_not_there_is_told_so(driver):
    """An ordinal past the last one."""
    driver.reset(num_devices=2)
    with pytest.raises(DeviceError, match=r"cuDeviceGet: got CUDA_ERROR_INVALID_DEVICE.*nvidia-smi"):
        GpuDevice(2).open()


@pytest.mark.parametrize(
    ("call", "nth"),
    [("cuDevicePrimaryCtxRetain", 1), ("cuCtxSetCurrent", 1), ("cuStreamCreate", 1), ("cuStreamCreate", 2)],
)
def test_a_device_that_cannot_be_opened_holds_nothing(driver, call, nth):
    """What was made before the failure is given back, and it can be tried again."""
    driver.fail(call, codes.OUT_OF_MEMORY, nth=nth)
    device = GpuDevice()
    with pytest.raises(EngineMemoryError, match=call):
        device.open()
    assert driver.held() == {}
    device.open()
    device.close()


def test_a_device_is_opened_and_closed_twice_without_harm(driver):
    """Both do nothing the second time."""
    device = GpuDevice()
    device.open()
    device.open()
    assert driver.held() == {"contexts": 1, "streams": 2}
    device.close()
    device.close()
    assert driver.held() == {}


def test_a_graph_repeats_what_was_captured(cuda):
    """Nothing is done while it is captured, and all of it at each launch."""
    stream = cuda.create_stream()
    host, device, back = cuda.allocate_pinned(4), cuda.allocate(4), cuda.allocate_pinned(4)

    def round_trip():
        cuda.upload(device, host, 4, stream)
        cuda.download(back, device, 4, stream)

    graph = capture(cuda, stream, round_trip)
    for word in (b"one.", b"two."):
        codes.ctypes.memmove(host, word, 4)
        assert codes.ctypes.string_at(back, 4) != word
        cuda.launch(graph, stream)
        cuda.synchronize_stream(stream)
        assert codes.ctypes.string_at(back, 4) == word
    cuda.destroy_executable(graph)
    for free, handle in ((cuda.free_pinned, host), (cuda.free, device), (cuda.free_pinned, back)):
        free(handle)
    cuda.destroy_stream(stream)


@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuMemAlloc"])
def test_a_capture_that_fails_leaves_the_stream_usable(cuda, driver, call):
    """No graph is left either."""
    stream = cuda.create_stream()
    driver.fail(call, codes.INVALID_VALUE)
    with pytest.raises(DeviceError):
        capture(cuda, stream, lambda: cuda.allocate(1))
    cuda.synchronize_stream(stream)
    assert driver.held() == {"contexts": 1, "streams": 1}
    cuda.destroy_stream(stream)
