"""Capturing what a stream is given as one CUDA graph, which costs one launch to repeat.

It has run on a stand-in of the driver, never on a device.
"""

from __future__ import annotations

from collections.abc import Callable

from engines.cuda_driver import CudaDriver
from engines.errors import DeviceError, DeviceLostError


def capture(driver: CudaDriver, stream: int, work: Callable[[], None]) -> int:
    """Record what `work` begins on a stream, without doing it, and make it ready for `CudaDriver.launch`.

    The stream can be used again whatever happens.

    Args:
        driver: of the current context.
        stream: not the default one, and idle.
        work: begins work on `stream` and raises where it cannot; it allocates nothing and waits for nothing.

    Returns:
        An executable graph, to be freed with `CudaDriver.destroy_executable`.

    Raises:
        DeviceError: something in `work` cannot be captured.
        EngineMemoryError: no room for the graph.
        DeviceLostError: the device is gone.
    """
    driver.begin_capture(stream)
    try:
        work()
    except BaseException:
        _abandon(driver, stream)
        raise
    graph = driver.end_capture(stream)
    try:
        return driver.instantiate(graph)
    finally:
        driver.destroy_graph(graph)


def _abandon(driver: CudaDriver, stream: int) -> None:
    """Leave capture mode; what was recorded so far is dropped."""
    try:
        graph = driver.end_capture(stream)
    except DeviceLostError:
        raise
    except DeviceError:  # an invalidated capture has no graph: what invalidated it is being raised already
        return
    driver.destroy_graph(graph)
