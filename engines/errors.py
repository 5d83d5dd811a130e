"""Everything that can go wrong between a model file and its detections.

    EngineError
    ├── ModelFileError          the file is missing, unreadable or no ONNX model
    ├── UnsupportedModelError   a sound ONNX model, but not a detector that these runners can serve
    ├── CanvasError             a canvas that the model's strides cannot take
    ├── ShapeNotWarmError       a batch whose shape was not warmed: it would stall on the device
    ├── EngineMemoryError       the device has no memory for this shape
    ├── EngineLibraryError      a library that this runner needs is missing, or of a version that it does not know
    ├── EngineBuildError        the builder refused the model, the profile or the machine
    ├── EngineFileError         a file of the engine cache cannot be written, or is not what its name says
    ├── PrecisionError          the graph in fewer bits does not find what the full one finds
    ├── DeviceError             the driver or the runtime refused a call
    │   └── DeviceLostError     the device is gone: nothing on this process's context will work again
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


class EngineLibraryError(EngineError):
    """A library that a runner needs is missing, cannot be loaded, or is of a version that it does not know."""


class EngineBuildError(EngineError):
    """The builder refused the model, the profile or the machine."""


class EngineFileError(EngineError):
    """The engine cache cannot be written or read, or a file in it is not what its name says."""


class PrecisionError(EngineError):
    """The graph in fewer bits does not find on real frames what the full one finds."""


class DeviceError(EngineError):
    """The driver, NVML or the runtime refused a call; names the call and its answer."""


class DeviceLostError(DeviceError):
    """The device is gone or its context is broken: no call of this process will work again, it must be replaced."""
