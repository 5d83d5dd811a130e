"""The interface that every runtime implements, so that the rest of the code names none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engines.detections import Detections
from engines.spec import ModelInfo, WarmShape


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """What an engine holds: bytes on its device, and bytes that the device has in all (0: unknown)."""

    used_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """What one call of `Engine.infer` gave.

    Attributes:
        detections: one for each frame of the batch, in canvas px, best score first; they own their arrays.
        run_s: seconds that the network ran, copies to and from the device included.
        decode_s: seconds from its output to boxes (NMS).
    """

    detections: list[Detections]
    run_s: float
    decode_s: float


class Engine(Protocol):
    """One model on one device. Not thread-safe: one thread owns it from `warm` to `close`, but for `stage`."""

    @property
    def model(self) -> ModelInfo:
        """What the model says of itself; readable before `warm`."""

    def warm(self, shapes: Sequence[WarmShape]) -> None:
        """Load the model and run every shape once, so that no later call is the first of its shape.

        Raises:
            CanvasError: a shape that the model cannot take.
            EngineMemoryError: the device is too small.
        """

    def stage(self, batch_nhwc: npt.NDArray[np.uint8]) -> None:
        """Begin to copy to the device the batch that `infer` will be given next, where that pays; it may do nothing.

        The only method that another thread may call while `infer` runs. Whether it was called changes no answer.

        Args:
            batch_nhwc: the very array that `infer` will be given; it must stay unchanged until that `infer` has ended.
                One that never comes is replaced by the next one that is staged.
        """

    def infer(self, batch_nhwc: npt.NDArray[np.uint8]) -> EngineOutput:
        """Detect on a batch.

        Args:
            batch_nhwc: uint8 `(N, height, width, 3)`, BGR, C-contiguous, of a warmed shape; only read, and free for
                reuse when the call returns.

        Raises:
            ShapeNotWarmError: a shape that `warm` has not run.
            EngineMemoryError: the device ran out; the engine stays usable.
        """

    def memory(self) -> EngineMemory:
        """What the engine holds now."""

    def close(self) -> None:
        """Free everything; calling it again does nothing. `warm` may follow, and makes the engine anew."""
