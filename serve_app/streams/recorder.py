"""One camera's annotated frames as H.264 in MP4, which browsers play; needs the `video` extra.

PyAV, not OpenCV: OpenCV's writer says nothing when the disk is full, has no times but a fixed rate, and its wheels have
no H.264. The file is fragmented: it can be played up to its last two seconds however the process ends, and no index of
it grows in memory.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from engines.letterbox import Image
from serve_app.errors import FramelaneError

if TYPE_CHECKING:
    from av.container import OutputContainer

# Best first; a build of FFmpeg need not have the first two.
ENCODERS = ("libx264", "libopenh264", "mpeg4")
# Of libx264: a fifth of the CPU of its own default, for files a third larger; no frame is held back.
ENCODER_OPTIONS = {"libx264": {"preset": "veryfast", "tune": "zerolatency", "crf": "23"}}
CONTAINER_OPTIONS = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "frag_duration": "2000000",
    "flush_packets": "1",
}
# Of players' times; frames come at any of them.
TIME_BASE = Fraction(1, 1000)
NOMINAL_RATE = 25
GOP_FRAMES = 50


class RecordingError(FramelaneError):
    """A recording cannot be written: the disk, the folder, or no encoder."""

    http_status = 507


class Recorder:
    """One file, of one frame size. Used by one thread at a time."""

    def __init__(self, path: Path, size_hw: tuple[int, int]) -> None:
        """Take where to, and (height, width) px of all frames; the file is opened by `open`."""
        self.path = path
        self.size_hw = size_hw
        self._container: OutputContainer | None = None
        self._stream: Any = None
        self._last_pts = -1

    def open(self) -> None:
        """Get ready; the file is there from the first frame on. Raises `RecordingError`."""
        import av

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self.path), "w", format="mp4", container_options=CONTAINER_OPTIONS)
            self._stream = self._added_stream(self._container)
        except (av.error.FFmpegError, OSError, ValueError) as err:
            self._drop()
            raise self._error(err) from err

    def write(self, image_hwc: Image, at_s: float) -> None:
        """Append a frame of the recorder's size, to be shown at `at_s`. Raises `RecordingError`; then it is closed."""
        import av

        if self._container is None:
            return
        height, width = image_hwc.shape[:2]
        if height % 2 or width % 2:
            # H.264's colour has half the resolution: sides must be even. The border repeats the last pixels.
            image_hwc = cv2.copyMakeBorder(image_hwc, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)  # type: ignore[assignment]
        frame = av.VideoFrame.from_ndarray(image_hwc, format="bgr24")
        self._last_pts = max(self._last_pts + 1, round(at_s / TIME_BASE))
        frame.pts, frame.time_base = self._last_pts, TIME_BASE
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.error.FFmpegError, OSError) as err:
            self._drop()
            raise self._error(err) from err

    def close(self) -> None:
        """Finish the file. Raises `RecordingError` if its end cannot be written."""
        import av

        container, self._container = self._container, None
        if container is None:
            return
        try:
            container.mux(self._stream.encode(None))
            container.close()
        except (av.error.FFmpegError, OSError) as err:
            raise self._error(err) from err

    def _added_stream(self, container: OutputContainer) -> Any:
        from av.codec.codec import UnknownCodecError

        for encoder in ENCODERS:
            try:
                stream: Any = container.add_stream(encoder, rate=NOMINAL_RATE, options=ENCODER_OPTIONS.get(encoder, {}))
            except UnknownCodecError:
                continue
            height, width = self.size_hw
            stream.height, stream.width = height + height % 2, width + width % 2
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = TIME_BASE
            stream.codec_context.gop_size = GOP_FRAMES
            # The cores belong to the detector.
            stream.codec_context.thread_count = 1
            return stream
        raise ValueError(f"this build of PyAV has none of the encoders {', '.join(ENCODERS)}")

    def _drop(self) -> None:
        """Let go of a file that cannot be finished."""
        container, self._container = self._container, None
        if container is not None:
            try:
                container.close()
            except OSError:
                return  # its trailer cannot be written either; why, is being told already

    def _error(self, err: Exception) -> RecordingError:
        reason = getattr(err, "strerror", None) or str(err)
        return RecordingError(
            f"recording {self.path}: cannot be written ({str(reason).lower()}); make room or choose another folder"
        )
