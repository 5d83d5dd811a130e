"""Which source reads what a camera's text names; the only place that chooses between PyAV and OpenCV."""

from __future__ import annotations

from importlib.util import find_spec

from serve_app.streams.camera_spec import CameraListError, CameraSpec
from serve_app.streams.opencv_source import OpenCvCamera, VideoFile
from serve_app.streams.pyav_source import PyAvSource, devices
from serve_app.streams.source import Source
from serve_app.streams.source_address import SourceKind, kind_of
from serve_app.streams.still_sources import image_source


def open_source(spec: CameraSpec) -> Source:
    """The source of a camera; opens nothing yet, but a folder is listed.

    Raises:
        SourceError: a folder without images.
        CameraListError: it needs the `video` extra.
    """
    kind = kind_of(spec.source)
    if kind is SourceKind.IMAGES:
        return image_source(spec.source)
    if kind is SourceKind.WEBCAM:
        return OpenCvCamera(spec.source, spec.stall_s)
    if spec.hwaccel is not None and not has_pyav():
        raise CameraListError(
            f"camera {spec.name}: hwaccel: got {spec.hwaccel!r}, which needs PyAV: pip install 'framelane[video]'"
        )
    if spec.hwaccel is not None and spec.hwaccel not in devices():
        raise CameraListError(
            f"camera {spec.name}: hwaccel: got {spec.hwaccel!r}, allowed with this PyAV are {', '.join(devices())}"
        )
    if kind is SourceKind.NETWORK:
        return (
            PyAvSource(spec.source, spec.stall_s, spec.hwaccel)
            if has_pyav()
            else OpenCvCamera(spec.source, spec.stall_s)
        )
    return VideoFile(spec.source) if spec.hwaccel is None else PyAvSource(spec.source, spec.stall_s, spec.hwaccel)


def has_pyav() -> bool:
    """Whether the `video` extra is installed."""
    return find_spec("av") is not None
