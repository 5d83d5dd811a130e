"""Writes that come while one is under way go together in the next: one wait for the disk for all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# A transaction stands in SQLite's log, and in memory, before it is in the file.
MAX_GROUP_BYTES = 32 * 2**20


class GroupedWrites(Generic[T, R]):
    """Groups items for a function that blocks, and hands each caller the answer for its own item.

    Order is that of the calls; one group runs at a time, in a thread. An error of the function is every caller's of
    its group. A caller that is cancelled does not take back its item.
    """

    def __init__(
        self,
        write: Callable[[Sequence[T]], Sequence[R]],
        num_bytes: Callable[[T], int],
        *,
        max_group_bytes: int = MAX_GROUP_BYTES,
    ) -> None:
        """Take what writes a group and answers one result an item, and how large an item is."""
        self._write = write
        self._num_bytes = num_bytes
        self._max_group_bytes = max_group_bytes
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def write(self, item: T) -> R:
        """Write one item; its answer when its group was written."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain())
        return await answer

    async def _drain(self) -> None:
        while self._waiting:
            group = self._next_group()
            try:
                told = await asyncio.to_thread(self._write, [item for item, _ in group])
            except Exception as err:  # a thread's error belongs to those who wait for it
                for _, answer in group:
                    if not answer.done():
                        answer.set_exception(err)
            else:
                for (_, answer), result in zip(group, told, strict=True):
                    if not answer.done():
                        answer.set_result(result)

    def _next_group(self) -> list[tuple[T, asyncio.Future[R]]]:
        """The first item, and those behind it that fit."""
        group = [self._waiting.popleft()]
        size = self._num_bytes(group[0][0])
        while self._waiting and size + self._num_bytes(self._waiting[0][0]) <= self._max_group_bytes:
            item, answer = self._waiting.popleft()
            size += self._num_bytes(item)
            group.append((item, answer))
        return group
