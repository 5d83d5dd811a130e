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
    from serve_app.prediction import Prediction
    from serve_app.results import FrameResult

__all__ = ["Client", "Detections", "Detector", "FrameResult", "Prediction", "__version__", "predict"]

# Where each name lives: a client needs Ray, a detector does not, and neither should wait for the other.
_HOMES = {
    "Client": "serve_app.client",
    "Detections": "engines.detections",
    "Detector": "serve_app.local_detector",
    "FrameResult": "serve_app.results",
    "Prediction": "serve_app.prediction",
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
