"""Many cameras at once: sources, their clocks and reconnections, and the `Stream` API. Imports nothing until asked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve_app.streams.camera_list import load_cameras
    from serve_app.streams.camera_spec import CameraListError, CameraSpec
    from serve_app.streams.source import SourceError
    from serve_app.streams.stream import Stream
    from serve_app.streams.stream_values import Answer, Gap, GapCause, StreamFrame

__all__ = [
    "Answer",
    "CameraListError",
    "CameraSpec",
    "Gap",
    "GapCause",
    "SourceError",
    "Stream",
    "StreamFrame",
    "load_cameras",
]

_HOMES = {
    "Answer": "stream_values",
    "CameraListError": "camera_spec",
    "CameraSpec": "camera_spec",
    "Gap": "stream_values",
    "GapCause": "stream_values",
    "SourceError": "source",
    "Stream": "stream",
    "StreamFrame": "stream_values",
    "load_cameras": "camera_list",
}


def __getattr__(name: str) -> Any:
    """Import a name's module when it is first asked for: the pure modules beside it need neither OpenCV nor asyncio."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
