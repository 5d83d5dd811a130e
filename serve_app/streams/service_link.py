"""The line from a stream to the service: finds out that it has gone, and connects anew when it is back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from engines.letterbox import Image
from serve_app.errors import FramelaneError, ServiceUnavailableError
from serve_app.results import FrameResult
from serve_app.streams.backoff import GOOD_S, Backoff

logger = logging.getLogger(__name__)

# How often to look whether the service still stands: `framelane down` removes its note at once.
LOOK_EVERY_S = 0.5
# Calls that were on their way get so long to come back by themselves; a copy into the object store that still runs
# while Ray is shut down would start a Ray of its own.
SETTLE_S = 5.0
# Beyond its deadline: then nobody answers any more.
ANSWER_GRACE_S = 60.0
# A service that starts takes half a minute; asking every few seconds costs nothing.
RECONNECT_MOST_S = 5.0


class StreamClient(Protocol):
    """What a stream needs of a client."""

    async def submit_async(self, image_hwc: Image, *, camera: str, priority: str, slo_s: float | None) -> FrameResult:
        """The result of a frame, whatever its outcome."""

    def is_hosted(self) -> bool:
        """Whether the service that it connected to still stands."""


class ServiceAwayError(FramelaneError):
    """The service went away before it answered; of this frame nothing is known."""

    http_status = 503


class ServiceLink:
    """Sends frames while there is a service, and says when there is none.

    With `connect` a lost service is looked for until it is back; a client that was given is only asked whether it works
    again. One at a time: a process has one Ray.
    """

    def __init__(
        self,
        client: StreamClient | None,
        connect: Callable[[], StreamClient],
        *,
        backoff: Backoff,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        """Take a client, or None and how to get one; `connect` blocks and may raise anything."""
        self._client = client
        self._owns = client is None
        self._connect = connect
        self._backoff = backoff
        self._sleep = sleep
        self._calls: set[asyncio.Task[FrameResult]] = set()
        self._up = asyncio.Event()
        self._gone = asyncio.Event()
        self._tending: asyncio.Task[None] | None = None
        self.num_outages = 0
        self.problem = ""

    async def start(self) -> None:
        """Connect for the first time. Raises what `connect` raises."""
        if self._client is None:
            self._client = await asyncio.to_thread(self._connect)
        self._up.set()
        self._tending = asyncio.create_task(self._tend())

    async def close(self) -> None:
        """Cancel what is on its way."""
        if self._tending is not None:
            self._tending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._tending
        await self._settle(0.0)

    @property
    def is_up(self) -> bool:
        """Whether there is a service."""
        return self._up.is_set()

    async def wait_up(self) -> None:
        """Until there is one."""
        await self._up.wait()

    async def submit(
        self, image_hwc: Image, *, camera: str, priority: str, slo_s: float | None, timeout_s: float
    ) -> FrameResult:
        """Send a frame.

        Raises:
            ServiceAwayError: there is no service, or it went away meanwhile, or did not answer within `timeout_s`.
            FramelaneError: what the client raises for this frame.
        """
        client = self._client
        if client is None or not self._up.is_set():
            raise ServiceAwayError(f"service: it is away ({self.problem})")
        call = asyncio.ensure_future(
            client.submit_async(image_hwc, camera=camera, priority=priority, slo_s=slo_s)
        )  # fmt: skip
        self._calls.add(call)
        call.add_done_callback(self._ended)
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({call, gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if call.done():
                result = call.result()
                self._backoff.lasted(GOOD_S)
                return result
            if not gone.done():
                self._lose(f"no answer within {timeout_s:.0f} s")
            raise ServiceAwayError(f"service: it went away ({self.problem})")
        except ServiceUnavailableError as err:
            if client is self._client:
                self._lose(str(err))
            raise ServiceAwayError(f"service: it went away ({self.problem})") from err
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            gone.cancel()

    def _ended(self, call: asyncio.Task[FrameResult]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # taken, so that nobody complains about it

    def _lose(self, reason: str) -> None:
        if self._up.is_set():
            logger.info("the service went away: %s", reason)
            self.problem = reason
            self.num_outages += 1
            self._up.clear()
            self._gone.set()

    async def _tend(self) -> None:
        """Look after the service, for as long as the stream runs."""
        while True:
            if self._up.is_set():
                await self._look()
            else:
                await self._bring_back()

    async def _look(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._gone.wait(), LOOK_EVERY_S)
        if self._client is not None and not self._client.is_hosted():
            self._lose("it was stopped")

    async def _bring_back(self) -> None:
        await self._settle(SETTLE_S)
        await self._sleep(self._backoff.next_s())
        if self._owns:
            try:
                self._client = await asyncio.to_thread(self._connect)
            except Exception as err:
                # Ray raises whatever its libraries raise while a cluster comes and goes; the next attempt tells.
                self.problem = str(err).splitlines()[0][:200] if str(err) else type(err).__name__
                return
        self._gone.clear()
        self._up.set()
        logger.info("the service is back")

    async def _settle(self, seconds: float) -> None:
        """Wait for the calls that are on their way, then cancel them."""
        calls = set(self._calls)
        if calls and seconds:
            await asyncio.wait(calls, timeout=seconds)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


def connect_anew() -> StreamClient:
    """A client of the running service, after letting go of a Ray that this process was connected to.

    Raises:
        ServiceUnavailableError: there is none.
    """
    from serve_app.client import Client
    from serve_app.ray_session import stop_ray

    stop_ray()
    return Client.connect()
