"""What the page's collector asks: one look at the whole service, and pixels to fetch. Tests bring their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from engines.letterbox import Image
from serve_app.live.live_report import FrameSeen, LiveReport
from serve_app.plan import Plan
from serve_app.service_view import ServiceView


@dataclass(frozen=True, slots=True, eq=False)
class FrameToFetch:
    """A last frame with the way to its pixels.

    Attributes:
        seen: what was found on it.
        fetch: blocks and gives uint8 `(height, width, 3)` BGR, read-only, which lies in the object store as long as it,
            or this function, is held; raises whatever Ray does when its sender has died.
    """

    seen: FrameSeen
    fetch: Callable[[], Image]


@dataclass(frozen=True, slots=True, eq=False)
class LiveLook:
    """One look at a service.

    Attributes:
        view: what `framelane status` shows.
        reports: what each of its routers tells.
        frames: last frames that the page does not show yet.
    """

    view: ServiceView
    reports: tuple[LiveReport, ...]
    frames: tuple[FrameToFetch, ...] = ()


class LiveSource(Protocol):
    """A service to look at. Its methods run in one event loop, one at a time."""

    @property
    def plan(self) -> Plan:
        """The plan that is served, or was when this was last known."""
        ...

    async def look(self, known: Mapping[str, str], max_frames: int) -> LiveLook:
        """Look, and let routers keep last frames for some seconds more.

        Args:
            known: by camera, the id of the frame whose picture is there.
            max_frames: how many frames are wanted at most.

        Raises:
            ServiceUnavailableError: nothing answers.
        """
        ...

    async def rest(self) -> None:
        """Nobody watches any more: routers let go of pixels at once, those that do not hear it within seconds."""
        ...
