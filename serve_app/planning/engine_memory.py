"""What engines hold on their device: measured by the builder where it was, estimated where it was not."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engines.spec import CanvasShape

# What activations of one canvas pixel hold at their peak. Measured with bundled:inspection-full in ONNX Runtime on a
# CPU: 28 bytes at 480×640, 34 at 1088×1920, 43 at 2176×3840 (growth of the resident memory while warming). TensorRT for
# RTX 1.7.1 reports 37 for its engine in FP16 (8×640×640), 42 for a YOLOv8s; in FP32 59 and 96.
ACTIVATION_BYTES_PER_PX = 48
# What an engine on a GPU takes however small its shapes: 32 MiB for one frame of 320×416 px (likewise, FP16).
GPU_LEAST_BYTES = 32 * 2**20


class HasActivations(Protocol):
    """An engine, by what its activations hold."""

    @property
    def activation_bytes(self) -> int:
        """For its largest shape."""


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """Predicts what one engine, and several in one replica, hold.

    Attributes:
        weights_bytes: of one engine.
        shares_arena: whether the engines of a replica run in one buffer for activations, as on a GPU; if not each has
            its own.
        built: activation bytes of engines that were built, by the pixels of their largest batch; empty: none was.
    """

    weights_bytes: int
    shares_arena: bool = False
    built: Mapping[int, int] = field(default_factory=dict)

    def activation_bytes(self, canvas: CanvasShape, batch: int) -> int:
        """Of an engine whose largest shape this is.

        As built, and between two that were, in a line; a smaller one as the smallest, a larger one in proportion to the
        largest, which is more than needed. Nothing built: `ACTIVATION_BYTES_PER_PX`, on a GPU beside `GPU_LEAST_BYTES`.
        """
        num_px = canvas.num_px * batch
        if not self.built:
            return ACTIVATION_BYTES_PER_PX * num_px + (GPU_LEAST_BYTES if self.shares_arena else 0)
        sizes_px = sorted(self.built)
        index = bisect_left(sizes_px, num_px)
        if index == 0:
            return self.built[sizes_px[0]]
        low_px, low = sizes_px[index - 1], self.built[sizes_px[index - 1]]
        if index == len(sizes_px):
            return round(low * num_px / low_px)
        high_px, high = sizes_px[index], self.built[sizes_px[index]]
        return round(low + (high - low) * (num_px - low_px) / (high_px - low_px))

    def largest(self, canvases: Sequence[CanvasShape]) -> CanvasShape:
        """The canvas that sets what an engine for all of these holds.

        On a GPU the corner of the engine's profile, which has the largest height and the largest width of all of them;
        on a CPU the one with the most pixels, as no other shape ever runs.
        """
        if self.shares_arena:
            return CanvasShape(*(max(sides) for sides in zip(*canvases, strict=True)))
        return max(canvases, key=lambda canvas: canvas.num_px)

    def alone_bytes(self, canvas: CanvasShape, batch: int) -> int:
        """What one engine of this largest shape holds."""
        return self.weights_bytes + self.activation_bytes(canvas, batch)

    def together_bytes(self, engines: Sequence[HasActivations]) -> int:
        """What these engines hold in one replica."""
        activations = [engine.activation_bytes for engine in engines]
        shared = max(activations, default=0) if self.shares_arena else sum(activations)
        return self.weights_bytes * len(engines) + shared
