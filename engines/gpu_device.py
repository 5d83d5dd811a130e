"""One GPU as one replica process uses it: context, two streams, and the memory that all its engines share.

It has run on a stand-in of the driver's public API in host memory, never on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from engines.base import EngineMemory
from engines.cuda_driver import CudaDriver, load_driver
from engines.device_memory import DeviceMemory, MemoryNeeds, free_memory, grown_memory
from engines.errors import DeviceError
from engines.uploads import Uploads


class MemoryUser(Protocol):
    """An engine that computes in the shared memory."""

    def move(self, memory: DeviceMemory) -> None:
        """Go on in other memory; the old one is freed when this returns, and also when it raises."""

    def close(self) -> None:
        """Free everything; never raises."""


class GpuDevice:
    """A GPU, shared by all engines of a replica. One thread owns it; only `uploads.stage` may be called by another.

    Engines say what they need before anything is allocated (`declare`), so that the first one to be warmed allocates
    for all. Later needs grow the memory, which moves every engine that is warm and captures its graphs anew.
    """

    def __init__(self, ordinal: int = 0, *, driver: Callable[[], CudaDriver] = load_driver) -> None:
        """Take the GPU's number among those that this process sees, and what loads the driver; `open` starts it."""
        self._ordinal = ordinal
        self._load_driver = driver
        self._open: _OpenDevice | None = None
        self._memory: DeviceMemory | None = None
        self._users: dict[MemoryUser, MemoryNeeds] = {}

    def __enter__(self) -> GpuDevice:  # noqa: PYI034 - `Self` needs Python 3.11, and nothing derives from this
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Take the GPU's primary context and make the streams; on an open device it does nothing.

        Raises:
            EngineLibraryError: no driver.
            DeviceError: no such GPU, or it refuses.
            EngineMemoryError: no room even for a context.
        """
        if self._open is None:
            self._open = _OpenDevice(self._load_driver(), self._ordinal)

    @property
    def driver(self) -> CudaDriver:
        """The driver of an open device."""
        return self._opened().driver

    @property
    def stream(self) -> int:
        """The stream on which networks run."""
        return self._opened().compute_stream

    @property
    def uploads(self) -> Uploads:
        """The way to the device."""
        return self._opened().uploads

    def make_current(self) -> None:
        """Let this thread's calls go to this GPU."""
        opened = self._opened()
        opened.driver.use_context(opened.context)

    def make_current_to_free(self) -> None:
        """The same for a thread that closes an engine; it never raises, and does nothing on a closed device."""
        if self._open is not None:
            self._open.driver.use_context_to_free(self._open.context)

    def drain(self) -> None:
        """Wait until nothing runs.

        Raises:
            DeviceLostError: what ran has broken the device.
        """
        opened = self._opened()
        opened.driver.synchronize_stream(opened.copy_stream)
        opened.driver.synchronize_stream(opened.compute_stream)

    def memory(self) -> EngineMemory:
        """Bytes in use and in all on the whole GPU, other processes' included; nothing is known before `open`."""
        if self._open is None:
            return EngineMemory(0, 0)
        self.make_current()
        free_bytes, total_bytes = self.driver.memory_info()
        return EngineMemory(used_bytes=total_bytes - free_bytes, total_bytes=total_bytes)

    def declare(self, user: MemoryUser, activation_bytes: int) -> None:
        """Say what an engine will need for its largest shape, before the first one is warmed where possible."""
        self._users[user] = MemoryNeeds(activation_bytes=activation_bytes)

    def forget(self, user: MemoryUser) -> None:
        """An engine is closed. The memory stays as it is until the device is closed."""
        self._users.pop(user, None)

    @contextmanager
    def fitting(self, user: MemoryUser, needs: MemoryNeeds) -> Iterator[DeviceMemory]:
        """Memory for one more set of shapes, in which they are tried out inside the `with` block.

        If the block raises, the new memory is freed and every engine goes on in the old one. If not, all engines move
        and the old one is freed. Old and new stand beside each other meanwhile.

        Raises:
            EngineMemoryError: there is no room.
        """
        driver, old = self.driver, self._memory
        wanted = needs
        for other, declared in self._users.items():
            if other is not user:
                wanted = wanted.or_more(declared)
        new = grown_memory(driver, wanted, old)
        try:
            yield new
        except BaseException:
            self._quiet()
            free_memory(driver, new, keep=old)
            raise
        self._users[user] = needs
        if new is not old:
            self._move(old, new)

    def close(self) -> None:
        """Close all engines and free everything; never raises, and calling it again does nothing."""
        opened, self._open = self._open, None
        if opened is None:
            return
        opened.driver.use_context_to_free(opened.context)
        for user in list(self._users):
            user.close()  # finds its context current already
        self._users.clear()
        opened.uploads.use(None)
        opened.quiet()
        free_memory(opened.driver, self._memory)
        self._memory = None
        opened.close()

    def _move(self, old: DeviceMemory | None, new: DeviceMemory) -> None:
        """Let every engine go on in new memory; one that cannot closes itself, and the others move all the same."""
        try:
            self._quiet()
            self._memory = new
            self.uploads.use(new.buffers)
            with ExitStack() as moves:  # calls all of them whatever one raises, and raises it then
                for user in reversed(self._users):
                    moves.callback(user.move, new)
        finally:
            free_memory(self.driver, old, keep=new)

    def _quiet(self) -> None:
        self._opened().quiet()

    def _opened(self) -> _OpenDevice:
        if self._open is None:
            raise DeviceError(f"GPU {self._ordinal}: got a call on a closed device, allowed is between open and close")
        return self._open


class _OpenDevice:
    """What an open device holds besides memory."""

    def __init__(self, driver: CudaDriver, ordinal: int) -> None:
        self.driver = driver
        self._ordinal = ordinal
        self.context = driver.retain_context(ordinal)
        streams: list[int] = []
        try:
            driver.use_context(self.context)
            for _ in range(2):
                streams.append(driver.create_stream())  # noqa: PERF401 - what was made must be known if the next fails
        except BaseException:
            for stream in streams:
                driver.destroy_stream(stream)
            driver.release_context(ordinal)
            raise
        self.compute_stream, self.copy_stream = streams
        self.uploads = Uploads(driver, self.copy_stream)

    def quiet(self) -> None:
        """Wait until nothing runs, before memory is freed; a device that is lost runs nothing."""
        for stream in (self.copy_stream, self.compute_stream):
            self.driver.settle_stream(stream)

    def close(self) -> None:
        """Give streams and context back."""
        self.driver.destroy_stream(self.copy_stream)
        self.driver.destroy_stream(self.compute_stream)
        self.driver.release_context(self._ordinal)
