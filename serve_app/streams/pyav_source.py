"""Network cameras through PyAV, and videos that a device decodes; needs the `video` extra.

Better than OpenCV here: opening and every read are interrupted after a time of ours, errors say what happened, a device
may decode, and FFmpeg's own log, in which addresses with passwords stand, is off.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from engines.letterbox import Image
from serve_app.streams.source import SourceError, SourceFrame, first_size_hw
from serve_app.streams.source_address import SourceKind, kind_of, name_of, without_secret

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

logger = logging.getLogger(__name__)

# A camera that accepts the connection but needs longer to describe itself is not there.
OPEN_TIMEOUT_S = 10.0
# Live: do not gather frames to guess a rate which nobody asks for, and take RTSP over TCP, as a lost packet of UDP
# costs a torn frame and many firewalls let nothing else through.
LIVE_OPTIONS = {"rtsp_transport": "tcp", "fflags": "nobuffer", "analyzeduration": "1000000"}
# So many damaged packets in a row are no camera any more.
MAX_DAMAGED = 100


@dataclass(frozen=True, slots=True)
class PyAvSource:
    """A camera's address, or a video file.

    Attributes:
        address: as the user gave it; never shown.
        timeout_s: seconds without a packet after which it counts as gone.
        hwaccel: the kind of device that decodes, such as `cuda`; None: the CPU.
        clock: seconds, for the times of frames that carry none.
    """

    address: str = field(repr=False)
    timeout_s: float
    hwaccel: str | None = None
    clock: Callable[[], float] = time.monotonic

    @property
    def name(self) -> str:
        """The file's name without its ending, or the address without its secrets."""
        return name_of(self.address)

    @property
    def num_frames(self) -> int | None:
        """Not looked for: opening a camera twice takes seconds."""
        return None

    def first_size_hw(self) -> tuple[int, int]:
        """See `Source`."""
        return first_size_hw(self)

    def frames(self) -> Iterator[SourceFrame | SourceError]:
        """See `Source`. What has a length (a file, also behind an address) ends; a camera's end is an error."""
        import av

        is_live, num_read, num_damaged = kind_of(self.address) is SourceKind.NETWORK, 0, 0
        with self._open() as container:
            has_end = not is_live or container.duration is not None
            stream = container.streams.video[0]
            # Frames side by side hold several of them back; a live camera's frame is wanted now.
            stream.thread_type = "SLICE" if is_live else "AUTO"
            try:
                for packet in container.demux(stream):
                    try:
                        frames = packet.decode()
                    except av.error.InvalidDataError as err:
                        num_damaged += 1
                        if num_damaged > MAX_DAMAGED:
                            raise self._error("sends nothing that can be decoded", err) from None
                        yield SourceError(f"source {self.name}: a frame cannot be decoded")
                        continue
                    for frame in frames:
                        num_read, num_damaged = num_read + 1, 0
                        at_s = self.clock() if is_live or frame.time is None else float(frame.time)
                        yield SourceFrame(at_s, lambda frame=frame: _pixels(frame, self.name))  # type: ignore[misc]
            except av.error.ExitError as err:
                raise self._error(f"sent nothing for {self.timeout_s:g} s, after {num_read} frames", err) from None
            except av.error.FFmpegError as err:
                raise self._error(f"broke off after {num_read} frames", err) from None
        if not has_end:
            raise SourceError(f"source {self.name}: broke off after {num_read} frames")
        if num_read == 0:
            raise SourceError(f"source {self.name}: holds no frame that can be decoded")

    def _open(self) -> InputContainer:
        import av

        open_s = min(OPEN_TIMEOUT_S, self.timeout_s)
        try:
            try:
                container = self._opened(open_s, self.hwaccel)
            except av.error.ExitError:
                raise
            except av.error.FFmpegError:
                if self.hwaccel is None:
                    raise
                # The device is not there, or does not know this codec in a way that FFmpeg finds out too late.
                logger.info("source %s: %s does not decode it, the CPU does", self.name, self.hwaccel)
                container = self._opened(open_s, None)
        except av.error.ExitError as err:
            raise self._error(f"did not answer within {open_s:g} s", err) from None
        except (av.error.FFmpegError, OSError, ValueError) as err:
            raise self._error("cannot be opened", err) from None
        if not container.streams.video:
            container.close()
            raise SourceError(f"source {self.name}: has no video, only {len(container.streams)} other streams")
        return container

    def _opened(self, open_s: float, hwaccel: str | None) -> InputContainer:
        import av
        from av.codec.hwaccel import HWAccel

        is_live = kind_of(self.address) is SourceKind.NETWORK
        return av.open(
            self.address,
            timeout=(open_s, self.timeout_s) if is_live else None,
            options=dict(LIVE_OPTIONS) if is_live else {},
            hwaccel=HWAccel(hwaccel, allow_software_fallback=True) if hwaccel else None,
        )

    def _error(self, what: str, err: Exception) -> SourceError:
        """What happened, and FFmpeg's reason; its own text repeats the address, so only the bare reason is taken."""
        reason = getattr(err, "strerror", None) or type(err).__name__
        is_timeout = type(err).__name__ == "ExitError"
        return SourceError(f"source {self.name}: {what}" + ("" if is_timeout else f" ({without_secret(str(reason))})"))


def devices() -> list[str]:
    """The kinds of device that this build of PyAV may decode on."""
    from av.codec.hwaccel import hwdevices_available

    return sorted(hwdevices_available())


def _pixels(frame: VideoFrame, name: str) -> Image:
    try:
        return np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    except (ValueError, OSError) as err:
        raise SourceError(f"source {name}: a frame cannot be converted ({type(err).__name__})") from err
