"""The running service as a source of the live page: its routers are asked one by one, on lines of their own."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import ray
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from engines.letterbox import Image
from serve_app.direct_calls import ReplicaLine, running_replicas
from serve_app.errors import ServiceUnavailableError
from serve_app.live.live_report import LiveAsk, LiveReport
from serve_app.live.source import FrameToFetch, LiveLook
from serve_app.plan import Plan
from serve_app.ray_session import router_handle
from serve_app.service_view import ServiceView

logger = logging.getLogger(__name__)

# Some questions in a row may be late before pixels go.
LEASE_S = 5.0
# A router answers from memory.
ASK_TIMEOUT_S = 3.0
# For how long Serve is awaited to tell of the first router.
FIND_TIMEOUT_S = 2.0
# A frame of another machine comes over the network.
FETCH_TIMEOUT_S = 2.0


class Status(Protocol):
    """The part of a `Gateway` that is used here."""

    @property
    def plan(self) -> Plan:
        """See `Gateway.plan`."""
        ...

    async def view(self) -> ServiceView:
        """See `Gateway.view`."""
        ...


class RaySource:
    """Looks at the service on the connected Ray."""

    def __init__(
        self, status: Status, open_handle: Callable[[], DeploymentHandle[Any]] = router_handle, name: str = ""
    ) -> None:
        """Take who tells of plan and status, how to get a handle of the routers, and this watcher's name."""
        self._status = status
        self._open_handle = open_handle
        self._handle: DeploymentHandle[Any] | None = None
        self._name = name or f"page-{uuid.uuid4().hex[:8]}"

    @property
    def plan(self) -> Plan:
        """See `LiveSource.plan`."""
        return self._status.plan

    async def look(self, known: Mapping[str, str], max_frames: int) -> LiveLook:
        """See `LiveSource.look`."""
        view = await self._status.view()
        answers = await self._ask(LiveAsk(self._name, LEASE_S, known, max_frames))
        if not answers:
            raise ServiceUnavailableError("service: none of its routers answers; look at: framelane status")
        frames = [
            FrameToFetch(seen, partial(_fetch, ref))
            for report, refs in answers
            for seen, ref in zip(report.frames, refs, strict=True)
        ]
        return LiveLook(view, tuple(report for report, _ in answers), tuple(frames[:max_frames]))

    async def rest(self) -> None:
        """See `LiveSource.rest`."""
        await self._ask(LiveAsk(self._name, 0.0))

    async def _ask(self, ask: LiveAsk) -> list[tuple[LiveReport, list[ray.ObjectRef[Any]]]]:
        """What the routers answer; those that are silent or dead are left out."""
        calls = [asyncio.wait_for(_asked(actor, ask), ASK_TIMEOUT_S) for actor in (await self._routers()).values()]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                logger.info("live page: a router did not answer: %r", answer)
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def _routers(self) -> dict[str, Any]:
        """The routers' actors; none while there is no service."""
        try:
            if self._handle is None:
                self._handle = await asyncio.to_thread(self._open_handle)
            found = await running_replicas(self._handle, FIND_TIMEOUT_S)
        except (RayError, RayServeException, KeyError) as err:
            self._handle = None
            raise ServiceUnavailableError(
                f"service: its routers cannot be found ({type(err).__name__}: {err})"
            ) from err
        if not found:
            self._handle = None  # one of an application that was deleted would stay empty
        return found


async def _asked(actor: object, ask: LiveAsk) -> tuple[LiveReport, list[ray.ObjectRef[Any]]]:
    report, refs = await ReplicaLine(actor).call_for_refs("live_here", ask)
    return report, refs


def _fetch(ref: ray.ObjectRef[Any]) -> Image:
    image_hwc: Image = ray.get(ref, timeout=FETCH_TIMEOUT_S)
    return image_hwc
