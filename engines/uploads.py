"""Which batch lies in which buffer set: one runs while the next one is copied to the device.

Knows no network. It has run on a stand-in of the driver, never on a device.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from engines.cuda_driver import CudaDriver
from engines.device_memory import BufferSet

Batch = npt.NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class _Staged:
    # A weak reference: a batch that never comes must not hold its pixels, and a later array at its address is another.
    batch: weakref.ref[Batch]
    buffers: BufferSet


class Uploads:
    """Hands out the two buffer sets. One thread calls `stage` at a time, one thread `taken`; they may be two."""

    def __init__(self, driver: CudaDriver, stream: int) -> None:
        """Take the stream on which batches are copied to the device."""
        self._driver = driver
        self._stream = stream
        # Held while a batch is copied into pinned memory: whoever takes it then waits for just that.
        self._lock = threading.Lock()
        self._sets: tuple[BufferSet, BufferSet] | None = None
        # At most one in each set, the oldest first.
        self._staged: list[_Staged] = []
        self._running: BufferSet | None = None

    def use(self, sets: tuple[BufferSet, BufferSet] | None) -> None:
        """Go on with other sets, or none; what was staged is forgotten."""
        with self._lock:
            self._sets = sets
            self._staged.clear()

    def stage(self, batch_nhwc: Batch) -> None:
        """Begin to copy a batch to the device, in a set where none runs.

        The batch that was staged last is replaced where no set is free. One that was staged before, and is about to
        run, keeps its set: its `taken` may come a moment later than the `stage` of the batch after it.
        """
        with self._lock:
            if self._sets is None:
                return
            buffers = self._free_set(self._sets, replaced=-1)
            self.fill(buffers, batch_nhwc)
            self._staged.append(_Staged(weakref.ref(batch_nhwc), buffers))

    @contextmanager
    def taken(self, batch_nhwc: Batch) -> Iterator[BufferSet]:
        """The set that holds this batch or will soon (`BufferSet.uploaded`), until the `with` block ends."""
        with self._lock:
            if self._sets is None:
                raise RuntimeError("uploads: got a batch without buffer sets, allowed is after use()")
            staged = next((one for one in self._staged if one.batch() is batch_nhwc), None)
            if staged is not None:
                buffers = staged.buffers
                self._staged.remove(staged)
            else:
                buffers = self._free_set(self._sets, replaced=0)
                self.fill(buffers, batch_nhwc)
            self._running = buffers
        try:
            yield buffers
        finally:
            # Without the lock, so that an answer does not wait for the batch that is being staged.
            self._running = None

    def fill(self, buffers: BufferSet, batch_nhwc: Batch) -> None:
        """Copy a batch into a set's pinned memory and begin to copy that to the device.

        The network does not read the set then: `infer` returns only when its batch has been answered.
        """
        self._driver.synchronize_event(buffers.uploaded)
        np.copyto(pinned_view(buffers.pinned_input, np.uint8, batch_nhwc.shape), batch_nhwc)
        self._driver.upload(buffers.device_input, buffers.pinned_input, batch_nhwc.nbytes, self._stream)
        self._driver.record(buffers.uploaded, self._stream)

    def _free_set(self, sets: tuple[BufferSet, BufferSet], *, replaced: int) -> BufferSet:
        """A set where none runs and none is staged; else the place of a staged batch, which is forgotten."""
        taken = [staged.buffers for staged in self._staged]
        for buffers in sets:
            if buffers is not self._running and not any(buffers is one for one in taken):
                return buffers
        return self._staged.pop(replaced).buffers


def pinned_view(address: int, dtype: type[Scalar], shape: tuple[int, ...]) -> npt.NDArray[Scalar]:
    """Pinned memory as an array; valid as long as the memory is."""
    num_bytes = np.dtype(dtype).itemsize * math.prod(shape)
    block: Any = (ctypes.c_uint8 * num_bytes).from_address(address)
    return np.frombuffer(block, dtype=dtype).reshape(shape)
