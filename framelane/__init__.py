"""What a program imports: `import framelane; framelane.predict("bus.jpg")`. Each name is loaded when it is first used.

The packages behind it are `serve_app` (the service, its client, plans) and `engines` (models and boxes).
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engines.detections import Detections
    from serve_app.client import Client
    from serve_app.local_detector import Detector, predict
    from serve_app.local_service import model_service
    from serve_app.prediction import Prediction
    from serve_app.results import FrameResult
    from serve_app.streams.camera_spec import CameraSpec
    from serve_app.streams.stream import Stream
    from serve_app.streams.stream_values import Answer, Gap, StreamFrame

__all__ = [
    "Answer",
    "CameraSpec",
    "Client",
    "Detections",
    "Detector",
    "FrameResult",
    "Gap",
    "Prediction",
    "Stream",
    "StreamFrame",
    "__version__",
    "model_service",
    "predict",
]

# Where each name lives: a client needs Ray, a detector does not, and neither should wait for the other.
_HOMES = {
    "Answer": "serve_app.streams.stream_values",
    "CameraSpec": "serve_app.streams.camera_spec",
    "Client": "serve_app.client",
    "Detections": "engines.detections",
    "Detector": "serve_app.local_detector",
    "FrameResult": "serve_app.results",
    "Gap": "serve_app.streams.stream_values",
    "Prediction": "serve_app.prediction",
    "Stream": "serve_app.streams.stream",
    "StreamFrame": "serve_app.streams.stream_values",
    "model_service": "serve_app.local_service",
    "predict": "serve_app.local_detector",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("framelane")
    if name not in _HOMES:
        raise AttributeError(f"module 'framelane' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
