"""Wakes those who wait for something of a name to happen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class News:
    """Events by name; callers choose the names, so none is remembered that nobody waits for."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._watchers: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def watched(self, name: str) -> Iterator[asyncio.Event]:
        """An event that `tell` sets. Clear it before looking at what may have happened, and nothing is missed."""
        event = asyncio.Event()
        watchers = self._watchers.setdefault(name, set())
        watchers.add(event)
        try:
            yield event
        finally:
            watchers.discard(event)
            if not watchers and self._watchers.get(name) is watchers:
                del self._watchers[name]

    def tell(self, *names: str) -> None:
        """Something of these names has happened."""
        for name in names:
            for event in self._watchers.get(name, ()):
                event.set()


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event for so long; whether it is set then.

    Before Python 3.12 `asyncio.wait_for` may lose a cancellation that comes together with the event.
    """
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(max(0.0, seconds), over.set_result, None)
    waiting = loop.create_task(event.wait())
    try:
        await asyncio.wait((waiting, over), return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        over.cancel()
        waiting.cancel()
    return event.is_set()
