"""Everything that can go wrong between a model file and its detections.

    EngineError
    ├── ModelFileError          the file is missing, unreadable or no ONNX model
    ├── UnsupportedModelError   a sound ONNX model, but not a detector that these runners can serve
    ├── CanvasError             a canvas that the model's strides cannot take
    ├── ShapeNotWarmError       a batch whose shape was not warmed: it would stall on the device
    ├── EngineMemoryError       the device has no memory for this shape
    ├── FrameArrayError         an array that is no uint8 BGR image
    └── ImageFileError          a file that is no complete image

All of them take positional arguments and hand every one to `super().__init__`, so that they survive pickling.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of all errors of this package; carries one message that names what, got, allowed and the cure."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class ModelFileError(EngineError):
    """The model file is missing, unreadable or not ONNX."""


class UnsupportedModelError(EngineError):
    """The file is an ONNX model, but not a detector with one of the two known heads."""


class CanvasError(EngineError):
    """A canvas that is not positive or not a multiple of the model's stride."""


class ShapeNotWarmError(EngineError):
    """A batch of a shape that `Engine.warm` has not run; no such shape may reach a device."""


class EngineMemoryError(EngineError):
    """The device could not allocate what this shape needs."""


class FrameArrayError(EngineError):
    """An array that is not a uint8 image `(H, W, 3)`."""


class ImageFileError(EngineError):
    """A file that is missing or that holds no complete image."""
