"""Several asynchronous generators as one, each item as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

T = TypeVar("T")


async def merged(sources: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """The items of all of them; those of one stay in their order. All are closed when this one is."""
    waiting = {_next_of(source): source for source in sources}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                source = waiting.pop(task)
                try:
                    item = task.result()
                except StopAsyncIteration:
                    continue
                waiting[_next_of(source)] = source
                yield item
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for source in sources:
            await source.aclose()


def _next_of(source: AsyncGenerator[T, None]) -> asyncio.Task[T]:
    async def following() -> T:
        return await source.__anext__()

    return asyncio.get_running_loop().create_task(following())
