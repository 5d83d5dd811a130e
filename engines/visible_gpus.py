"""Which physical GPU a number means in this process. Pure: NVML's list and the environment in, a GPU out.

NVML counts all GPUs by their place on the bus. CUDA counts those of `CUDA_VISIBLE_DEVICES`, in its order, and the
numbers in it are of yet another order unless `CUDA_DEVICE_ORDER=PCI_BUS_ID`: the fastest first. UUIDs mean the same to
all. https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engines.errors import DeviceError

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
BUS_ORDER = "PCI_BUS_ID"
GPU_PREFIX, SLICE_PREFIX = "GPU-", "MIG-"


@dataclass(frozen=True, slots=True)
class ListedGpu:
    """A physical GPU; both texts are empty for one that is there but does not answer."""

    name: str
    uuid: str


def visible_gpu(ordinal: int, gpus: Sequence[ListedGpu], environ: Mapping[str, str]) -> int | str:
    """CUDA's device `ordinal` in a process with this environment: NVML's index of the GPU, or the UUID of a slice.

    As CUDA does, a list counts up to its first entry that names no GPU (`0,2,-1,1` shows two), and a UUID may be cut
    short as long as it means one GPU. A slice's UUID (`MIG-…`) is taken as it is.

    Args:
        ordinal: CUDA's number, from 0.
        gpus: all physical GPUs of the machine, in NVML's order.
        environ: the process's environment.

    Raises:
        DeviceError: the process sees no such GPU, or a number may mean one of several models.
    """
    visible = environ.get(VISIBLE)
    entries = [str(index) for index in range(len(gpus))] if visible is None else visible.split(",")
    found: list[tuple[str, int | str]] = []
    for entry in (entry.strip() for entry in entries):
        meant = _meant(entry, gpus)
        if meant is None:
            break
        found.append((entry, meant))
    if not 0 <= ordinal < len(found):
        said = "is not set" if visible is None else f"is {visible!r}"
        raise DeviceError(
            f"GPU {ordinal}: this process sees {len(found)} of the machine's {len(gpus)} GPUs ({VISIBLE} {said}); "
            f"count from 0, and give the replica a GPU (gpus: 1 in its pool)"
        )
    entry, meant = found[ordinal]
    models = {gpu.name for gpu in gpus if gpu.name}
    if entry.isdecimal() and len(models) > 1 and environ.get(ORDER) != BUS_ORDER:
        raise DeviceError(
            f"GPU {ordinal}: got number {entry} on a machine with {', '.join(sorted(models))}, where CUDA counts the "
            f"fastest first and NVML by the bus; set {ORDER}={BUS_ORDER}, or UUIDs in {VISIBLE} (nvidia-smi -L)"
        )
    return meant


def _meant(entry: str, gpus: Sequence[ListedGpu]) -> int | str | None:
    """Which GPU or slice an entry means; None: CUDA stops here."""
    if entry.isdecimal():
        return int(entry) if int(entry) < len(gpus) else None
    if entry.startswith(SLICE_PREFIX):
        return entry
    if entry.startswith(GPU_PREFIX):
        meant = [index for index, gpu in enumerate(gpus) if gpu.uuid.lower().startswith(entry.lower())]
        return meant[0] if len(meant) == 1 else None
    return None
