"""The fleet of `framelane demo`: five cameras of an inspection line, each looking at a belt that moves past it."""

from __future__ import annotations

from dataclasses import dataclass

from framelane_inspection.scenes import draw_scene
from serve_app.streams.camera_spec import CameraSpec
from serve_app.streams.still_sources import ScrollingSource


@dataclass(frozen=True, slots=True)
class DemoCamera:
    """One camera of the fleet: frame size in px, frames a second, and how urgent its frames are."""

    name: str
    size_hw: tuple[int, int]
    fps: float
    priority: str


# Together they ask for about 0.4 s of work a second on two cores, so that a slower machine keeps up as well.
FLEET = (
    DemoCamera("gate", (480, 640), 2.0, "critical"),
    DemoCamera("belt-1", (600, 800), 1.0, "normal"),
    DemoCamera("belt-2", (720, 1280), 0.6, "normal"),
    DemoCamera("belt-3", (1080, 1920), 0.3, "normal"),
    DemoCamera("overview", (720, 1280), 0.7, "normal"),
)
# How much further the belt reaches than one camera sees, and how far it moves between two frames.
EXTRA_BELT_PX = 480
STEP_PX = 60
FIRST_SEED = 3_000_000
# Its frames come from no file.
DRAWN = "drawn"


def demo_camera(index: int, seconds: float) -> tuple[CameraSpec, ScrollingSource]:
    """Draw the belt of camera `index` of `FLEET` for so many seconds, and say how it is played."""
    camera = FLEET[index]
    height, width = camera.size_hw
    belt = draw_scene((height, width + EXTRA_BELT_PX), FIRST_SEED + index).image_hwc
    count = max(1, round(seconds * camera.fps))
    source = ScrollingSource(camera.name, belt, width, STEP_PX, count)
    return CameraSpec(DRAWN, name=camera.name, priority=camera.priority, fps=camera.fps), source
