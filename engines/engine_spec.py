"""What a built engine is asked to be and what it turned out to be: profile, precision, memory. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from engines.spec import CanvasShape, WarmShape


class Precision(Enum):
    """In which numbers a network computes; TensorRT takes it from the types of the graph."""

    FP32 = "fp32"
    FP16 = "fp16"
    """Rewritten by `engines.fp16`; what must stay FP32 does."""
    AS_IS = "as_is"
    """The graph as it comes, such as an INT8 one with Q/DQ nodes."""


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """The range of shapes that one engine is built for, and the one that its kernels are tuned for.

    Attributes:
        min_shape, max_shape: smallest and largest height, width and batch, each for itself.
        opt_shape: the most used canvas at the largest batch, where a device that is behind spends its time.
    """

    min_shape: WarmShape
    opt_shape: WarmShape
    max_shape: WarmShape

    @staticmethod
    def around(canvases: Sequence[CanvasShape], batches: Sequence[int]) -> ShapeProfile:
        """The narrowest profile of a bucket: its canvases, the most used in front, and its batch sizes."""
        heights, widths = zip(*canvases, strict=True)
        return ShapeProfile(
            WarmShape(CanvasShape(min(heights), min(widths)), min(batches)),
            WarmShape(canvases[0], max(batches)),
            WarmShape(CanvasShape(max(heights), max(widths)), max(batches)),
        )

    def __str__(self) -> str:
        shapes = (f"{shape.batch}x{shape.canvas}" for shape in (self.min_shape, self.opt_shape, self.max_shape))
        return " ".join(shapes)


@dataclass(frozen=True, slots=True)
class ComputeCapability:
    """A GPU's architecture, such as 8.9."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What to build.

    Attributes:
        model_path: the ONNX detector.
        profile: which shapes.
        precision: in which numbers.
        compute_capability: for which GPU; TensorRT for RTX builds for any, TensorRT for the one that is there.
        workspace_bytes: what a kernel may take for itself while it runs; None: the builder's own choice.
    """

    model_path: Path
    profile: ShapeProfile
    precision: Precision
    compute_capability: ComputeCapability
    workspace_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What a built engine is; stored beside it, and read again before it is used.

    Attributes:
        library, library_version: who built it: `tensorrt` or `tensorrt_rtx`.
        compute_capability, precision, profile: as asked.
        onnx_sha256: of the graph that was built, after all rewriting.
        activation_bytes: device memory of one execution context, for the largest shape of the profile.
        weights_bytes: device memory of the weights.
        build_s: seconds that the build took.
    """

    library: str
    library_version: str
    compute_capability: ComputeCapability
    precision: Precision
    profile: ShapeProfile
    onnx_sha256: str
    activation_bytes: int
    weights_bytes: int
    build_s: float


@dataclass(frozen=True, slots=True, eq=False)
class BuiltEngine:
    """A serialised engine and what it is."""

    plan_bytes: bytes
    facts: EngineFacts
