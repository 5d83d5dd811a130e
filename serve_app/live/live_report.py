"""What a router tells the live page, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app.live.spread import Spread


@dataclass(frozen=True, slots=True)
class LiveAsk:
    """What a page says when it asks.

    Attributes:
        watcher: the page's own name; pages do not disturb each other.
        lease_s: for how long it wants last frames to be kept from now on; 0: no more, it has stopped watching.
        known: by camera, the id of the frame that it shows: that one is not told again.
        max_frames: so many frames at most are told; those of the other cameras the next time.
    """

    watcher: str
    lease_s: float
    known: Mapping[str, str] = field(default_factory=dict)
    max_frames: int = 0


@dataclass(frozen=True, slots=True)
class CameraSeen:
    """One camera at a glance, by its last frame that ended at a router.

    Attributes:
        camera: its name as a client said it, cut where it is very long: nothing that may stand in a page unescaped.
        priority, size_hw: of its last frame; size in px.
        outcome, verdict: how its last frame ended, and what admission had decided; `""`: nothing, it was invalid.
        pool, bucket, model, canvas: where it was served, or was to be; None: nowhere.
        rung, num_tiles, num_boxes: as in `FrameResult`.
        total_s: what its last finished frame took; None: none has finished.
        age_s: seconds since its last frame ended.
        num_ended, num_finished: frames so far.
    """

    camera: str
    priority: str
    size_hw: tuple[int, int]
    outcome: str
    verdict: str
    pool: str | None
    bucket: str | None
    model: str | None
    canvas: CanvasShape | None
    rung: int
    num_tiles: int
    num_boxes: int
    total_s: float | None
    age_s: float
    num_ended: int
    num_finished: int


@dataclass(frozen=True, slots=True)
class FlowKey:
    """A way that finished frames went: size, canvas, bucket. A size of (0, 0) stands for all rarer ones."""

    size_hw: tuple[int, int]
    canvas: CanvasShape
    bucket: str
    pool: str
    is_tiled: bool


@dataclass(frozen=True, slots=True, eq=False)
class FrameSeen:
    """A camera's last finished frame, of which the pixels lie in the object store.

    Attributes:
        camera: as in `CameraSeen`.
        frame_id: of the frame.
        num_bytes: of its pixels.
        detections, class_names: as in `FrameResult`.
    """

    camera: str
    frame_id: str
    num_bytes: int
    detections: Detections
    class_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LiveReport:
    """One router's answer to a page; refs to the pixels of `frames` travel beside it, in their order.

    Attributes:
        router: its name.
        cameras: those that it has seen of late; of two with the same name over several routers the younger counts.
        flows: finished frames so far, by the way they went.
        total_s, queue_s: finished frames so far, by lane class: from receipt to answer, and what of it was waiting.
        frames: last frames that the page does not show yet.
    """

    router: str
    cameras: tuple[CameraSeen, ...] = ()
    flows: Mapping[FlowKey, int] = field(default_factory=dict)
    total_s: Mapping[str, Spread] = field(default_factory=dict)
    queue_s: Mapping[str, Spread] = field(default_factory=dict)
    frames: tuple[FrameSeen, ...] = ()
