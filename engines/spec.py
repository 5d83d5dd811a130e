"""What an engine is asked to be: canvases, exact shapes, and what its model says of itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from engines.errors import CanvasError


class CanvasShape(NamedTuple):
    """A (height, width) in px that an engine is warmed for."""

    height: int
    width: int

    @property
    def num_px(self) -> int:
        """Pixels of one frame on this canvas."""
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


class WarmShape(NamedTuple):
    """One exact input shape of an engine: a canvas and a batch size."""

    canvas: CanvasShape
    batch: int


class HeadKind(Enum):
    """How a detector writes its boxes (ultralytics' two conventions)."""

    RAW = "raw"
    """`(N, 4 + num_classes, anchors)`, rows `(x_centre, y_centre, width, height, score…)`; needs NMS."""
    END_TO_END = "end_to_end"
    """`(N, max_boxes, 6)`, rows `(x_min, y_min, x_max, y_max, score, class)`; needs none."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a detector says of itself.

    Attributes:
        class_names: the name of each class, by class id.
        stride_px: canvases must be multiples of this.
        head: how its output is to be read.
        fixed_canvas: the only canvas of a model exported without dynamic axes, else None.
        fixed_batch: likewise its only batch size.
    """

    class_names: tuple[str, ...]
    stride_px: int
    head: HeadKind
    fixed_canvas: CanvasShape | None = None
    fixed_batch: int | None = None

    def class_name(self, class_id: int) -> str:
        """The name of a class; `class N` where the model names none."""
        return self.class_names[class_id] if class_id < len(self.class_names) else f"class {class_id}"


def check_shapes(shapes: Iterable[WarmShape], model: ModelInfo) -> None:
    """Raise `CanvasError` for the first shape that this model cannot run."""
    for canvas, batch in shapes:
        if min(canvas) < model.stride_px or canvas.height % model.stride_px or canvas.width % model.stride_px:
            raise CanvasError(
                f"canvas {canvas}: got height {canvas.height} and width {canvas.width} px, allowed are positive "
                f"multiples of the model's stride, {model.stride_px}; the next one up is "
                f"{fitting_canvas(canvas, model.stride_px)}"
            )
        if batch < 1:
            raise CanvasError(f"canvas {canvas}: got batch size {batch}, allowed is 1 or more")
        if model.fixed_canvas not in (None, canvas) or model.fixed_batch not in (None, batch):
            raise CanvasError(
                f"canvas {canvas}, batch {batch}: this model was exported for canvas {model.fixed_canvas or 'any'} and "
                f"batch {model.fixed_batch or 'any'} only; export it with free axes: framelane export MODEL.pt"
            )


def fitting_canvas(size_hw: tuple[int, int], stride_px: int) -> CanvasShape:
    """The smallest canvas of this stride that holds `size_hw` (height, width) px whole."""
    height, width = (max(1, -(-side // stride_px)) * stride_px for side in size_hw)
    return CanvasShape(height, width)
