"""What a user wants of one camera. A value; opens nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from serve_app.errors import FramelaneError
from serve_app.plan import Keep
from serve_app.streams.source_address import SourceKind, kind_of, name_of

# A camera that says nothing for so long is asked anew: the slowest of inspection lines send one frame in some seconds.
DEFAULT_STALL_S = 10.0
# Names stand in tables, records and file names.
MAX_NAME_LETTERS = 120


class CameraListError(FramelaneError):
    """What was said of the cameras contradicts itself, or is not allowed."""

    http_status = 400


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """One camera of a stream.

    Attributes:
        source: a video, an image, a folder of images, an address such as `rtsp://…`, or a webcam: `0`. Never shown.
        name: what it is called; empty: by its source.
        priority, slo_s: as in `Client.detect`.
        fps: play a file at so many frames a second. Of a live camera it is the same as `max_fps`.
        realtime: play a file by its own times.
        max_fps: take no more frames a second than this; the others are passed over before they are converted.
        loop: play a file again and again.
        keep: `latest`: a frame that still waits here gives way to a newer one; `all`: the source waits. None: `latest`
            for live cameras and files with a clock, else `all`.
        limit: at most so many frames.
        stall_s: seconds without a frame after which a live camera is connected anew.
        reconnect: whether a live camera that has gone is connected anew.
        hwaccel: decode on a device, such as `cuda` or `qsv`; needs the `video` extra; falls back to the CPU.
        record: whether its annotated frames are recorded where the stream records.
    """

    source: str = field(repr=False)
    name: str = ""
    priority: str = "normal"
    slo_s: float | None = None
    fps: float | None = None
    realtime: bool = False
    max_fps: float | None = None
    loop: bool = False
    keep: Keep | None = None
    limit: int | None = None
    stall_s: float = DEFAULT_STALL_S
    reconnect: bool = True
    hwaccel: str | None = None
    record: bool = True

    def __post_init__(self) -> None:
        """Name it, and refuse what contradicts itself."""
        if not self.name:
            object.__setattr__(self, "name", name_of(self.source)[:MAX_NAME_LETTERS])
        if not self.source:
            raise CameraListError(f"camera {self.name}: source: got nothing, allowed is a path, an address or a webcam")
        if self.fps is not None and self.realtime:
            raise CameraListError(
                f"camera {self.name}: fps and realtime: allowed is one of them; realtime is its own rate"
            )
        if self.loop and self.is_live:
            raise CameraListError(f"camera {self.name}: loop: allowed for files only, and this is a live camera")
        if len(self.name) > MAX_NAME_LETTERS or not self.name.isprintable():
            raise CameraListError(
                f"camera {self.name[:40]!r}: name: allowed are up to {MAX_NAME_LETTERS} printable letters"
            )

    @property
    def is_live(self) -> bool:
        """Whether frames come at their own time, and are stale when they are not taken."""
        return kind_of(self.source) in (SourceKind.NETWORK, SourceKind.WEBCAM)

    @property
    def has_clock(self) -> bool:
        """Whether frames have a time at which they are due, whatever the service does."""
        return self.is_live or self.realtime or self.fps is not None

    @property
    def keeps_latest(self) -> bool:
        """Whether a newer frame takes the place of one that waits."""
        return self.keep is Keep.LATEST if self.keep is not None else self.has_clock

    @property
    def most_fps(self) -> float | None:
        """The cap on its rate."""
        caps = [cap for cap in (self.max_fps, self.fps if self.is_live else None) if cap is not None]
        return min(caps, default=None)


def named_apart(specs: list[CameraSpec]) -> list[CameraSpec]:
    """The same, unless two have one name: then raises `CameraListError` that says which."""
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CameraListError(
            f"--camera: got a name twice ({', '.join(twice)}), allowed are different ones; give them names"
        )
    return specs
