"""What all engines of one replica share on a device: one arena for activations, two sets of input and output buffers.

Contexts of strategy USER_MANAGED that never run at the same time may use the same memory, so the arena is as large as
the largest need and not as the sum. It has run on a stand-in of the driver, never on a device.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from engines.cuda_driver import CudaDriver

# What TensorRT asks of the memory that `set_device_memory` is given; `cuMemAlloc` aligns at least so.
ARENA_ALIGNMENT_BYTES = 256


@dataclass(frozen=True, slots=True)
class MemoryNeeds:
    """Bytes that the largest shape of somebody needs.

    Attributes:
        activation_bytes: what a network computes with.
        input_bytes, output_bytes: one batch, and what comes out of it.
    """

    activation_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0

    def or_more(self, other: MemoryNeeds) -> MemoryNeeds:
        """The larger of each."""
        return MemoryNeeds(
            max(self.activation_bytes, other.activation_bytes),
            max(self.input_bytes, other.input_bytes),
            max(self.output_bytes, other.output_bytes),
        )


@dataclass(frozen=True, slots=True)
class Arena:
    """One block of device memory."""

    address: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class BufferSet:
    """Where one batch lies on its way: pinned host memory, device memory, and back.

    Attributes:
        pinned_input, device_input, device_output, pinned_output: addresses.
        input_bytes, output_bytes: how much they hold.
        uploaded: event: `device_input` holds the batch, `pinned_input` is free again.
        answered: event: `pinned_output` holds the answer, and nothing on the device is in use any more.
    """

    pinned_input: int
    device_input: int
    device_output: int
    pinned_output: int
    input_bytes: int
    output_bytes: int
    uploaded: int
    answered: int


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """The arena and the two sets: one runs while the other is filled."""

    arena: Arena
    buffers: tuple[BufferSet, BufferSet]

    @property
    def needs(self) -> MemoryNeeds:
        """What it has room for."""
        return MemoryNeeds(self.arena.num_bytes, self.buffers[0].input_bytes, self.buffers[0].output_bytes)


def grown_memory(driver: CudaDriver, needs: MemoryNeeds, current: DeviceMemory | None) -> DeviceMemory:
    """Memory with room for `needs`: `current` itself, or one that shares with it what is large enough.

    Nothing of `current` is freed, so that its users can go on if theirs is not the fault. Free what is left with
    `free_memory`.

    Raises:
        EngineMemoryError: there is no room; whatever was allocated is freed again.
    """
    room = current.needs if current is not None else MemoryNeeds()
    needs = needs.or_more(room)
    if current is not None and needs == room:
        return current
    with ExitStack() as undo:
        if current is not None and needs.activation_bytes == room.activation_bytes:
            arena = current.arena
        else:
            num_bytes = -(-needs.activation_bytes // ARENA_ALIGNMENT_BYTES) * ARENA_ALIGNMENT_BYTES
            # A network may need no activations; the driver allocates no empty block.
            arena = Arena(driver.allocate(max(num_bytes, ARENA_ALIGNMENT_BYTES)), num_bytes)
            undo.callback(driver.free, arena.address)
        if current is not None and (needs.input_bytes, needs.output_bytes) == (room.input_bytes, room.output_bytes):
            buffers = current.buffers
        else:
            buffers = (_allocate_buffers(driver, needs, undo), _allocate_buffers(driver, needs, undo))
        undo.pop_all()
    return DeviceMemory(arena, buffers)


def free_memory(driver: CudaDriver, memory: DeviceMemory | None, keep: DeviceMemory | None = None) -> None:
    """Free what `memory` does not share with `keep`; nothing may be running on it. Never raises."""
    if memory is None:
        return
    if keep is None or memory.arena is not keep.arena:
        driver.free(memory.arena.address)
    if keep is None or memory.buffers is not keep.buffers:
        for buffers in memory.buffers:
            driver.free_pinned(buffers.pinned_input)
            driver.free(buffers.device_input)
            driver.free(buffers.device_output)
            driver.free_pinned(buffers.pinned_output)
            driver.destroy_event(buffers.uploaded)
            driver.destroy_event(buffers.answered)


def _allocate_buffers(driver: CudaDriver, needs: MemoryNeeds, undo: ExitStack) -> BufferSet:
    def pinned(num_bytes: int) -> int:
        address = driver.allocate_pinned(num_bytes)
        undo.callback(driver.free_pinned, address)
        return address

    def on_device(num_bytes: int) -> int:
        address = driver.allocate(num_bytes)
        undo.callback(driver.free, address)
        return address

    def event() -> int:
        handle = driver.create_event()
        undo.callback(driver.destroy_event, handle)
        return handle

    return BufferSet(
        pinned_input=pinned(needs.input_bytes),
        device_input=on_device(needs.input_bytes),
        device_output=on_device(needs.output_bytes),
        pinned_output=pinned(needs.output_bytes),
        input_bytes=needs.input_bytes,
        output_bytes=needs.output_bytes,
        uploaded=event(),
        answered=event(),
    )
