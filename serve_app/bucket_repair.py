"""Buckets whose engine had no memory for its smallest batch: tried again, rebuilt when memory allows, or given up.

Knows engines and an event loop, and no Ray. Which frames go where meanwhile is the router's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from engines.base import Engine
from engines.errors import DeviceLostError, EngineMemoryError
from engines.letterbox import FILL
from engines.spec import WarmShape
from serve_app.plan import Bucket

logger = logging.getLogger(__name__)

# From one attempt to the next, the last one for all that follow. Whoever took the memory for a moment has given it back
# after the first; what takes longer is looked for once in half a minute, as an attempt keeps the device for its time.
RETRY_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
# So many attempts without success, a minute in all, and this process will not get its memory back.
MAX_ATTEMPTS = len(RETRY_S)

OutOfMemory = (EngineMemoryError, MemoryError)
# Runs a function on the thread that owns the engines, between two batches.
OnEngineThread = Callable[[Callable[[], object]], Awaitable[object]]


@dataclass(slots=True)
class _State:
    """One bucket.

    Attributes:
        reason: why its smallest batch cannot be served; None: it can.
        num_attempts: in vain, since it broke last.
        missing: larger shapes for which no memory was left when the engine was rebuilt.
        is_closed: whether its engine was closed and has not been warm since.
    """

    reason: str | None = None
    num_attempts: int = 0
    missing: set[WarmShape] = field(default_factory=set)
    is_closed: bool = False


class BucketRepair:
    """Repairs the buckets of one replica, each by itself, while the others are served.

    Algorithm: a bucket that had no memory for its smallest batch is broken. An attempt runs that batch again on the
    engine as it is; if that fails too, closes the engine and warms it anew, the smallest shape first, then the others
    from the largest on. It is mended when the smallest runs; shapes that did not fit are warmed later, likewise.
    Bound: one attempt after each of `RETRY_S`, one shape at a time on the engines' thread, so that batches of other
    buckets pass in between.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        buckets: Sequence[Bucket],
        on_engine_thread: OnEngineThread,
        lost: Callable[[DeviceLostError], None],
    ) -> None:
        """Take warm engines by bucket, how to run something on their thread, and whom to tell of a lost device."""
        self._engines = dict(engines)
        self._shapes = {bucket.name: bucket.warm_shapes() for bucket in buckets}
        self._smallest = {name: min(shapes, key=_num_px) for name, shapes in self._shapes.items()}
        self._on_engine_thread = on_engine_thread
        self._lost = lost
        self._states = {name: _State() for name in self._shapes}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def broken(self) -> tuple[tuple[str, str], ...]:
        """Buckets of which not even the smallest batch can be served, each with the reason."""
        return tuple((name, state.reason) for name, state in self._states.items() if state.reason is not None)

    def refusal(self, bucket: str, shape: WarmShape) -> str | None:
        """Why a batch of this shape must not be given to its engine now; None: it may. Any thread may ask."""
        state = self._states.get(bucket)
        if state is None:  # no bucket of this replica: its engine's absence is told elsewhere
            return None
        if state.reason is not None:
            return state.reason
        return f"no memory was left for shape {shape} when it was rebuilt" if shape in state.missing else None

    def out_of_memory(self, bucket: str, shape: WarmShape, reason: str) -> bool:
        """A batch had no memory; returns whether that breaks its bucket, which is then repaired in this event loop."""
        state = self._states[bucket]
        if state.reason is None and _num_px(shape) <= _num_px(self._smallest[bucket]):
            state.reason, state.num_attempts = reason, 0
            logger.error("bucket %s: no memory for its smallest batch (%s); rebuilding it", bucket, reason)
            self._start(bucket)
        return state.reason is not None

    def given_up(self) -> str | None:
        """Why this replica should be replaced: its smallest canvas cannot be served, and attempts were in vain."""
        least_px = min(shape.canvas.num_px for shape in self._smallest.values())
        smallest = [name for name, shape in self._smallest.items() if shape.canvas.num_px == least_px]
        states = [self._states[name] for name in smallest]
        if any(state.reason is None or state.num_attempts < MAX_ATTEMPTS for state in states):
            return None
        return (
            f"buckets {', '.join(smallest)}: no memory for the smallest batch, and none after {MAX_ATTEMPTS} attempts "
            f"({states[0].reason})"
        )

    def _start(self, bucket: str) -> None:
        task = self._tasks.get(bucket)
        if task is None or task.done():  # else it is under way, for what is missing
            self._tasks[bucket] = asyncio.get_running_loop().create_task(self._repair(bucket))

    async def _repair(self, bucket: str) -> None:
        state = self._states[bucket]
        num_rounds = 0
        while state.reason is not None or state.missing:
            if state.reason is not None and await self._mend(bucket):
                num_rounds = 0
                logger.warning("bucket %s: served again", bucket)
            if state.reason is None:
                await self._warm_missing(bucket)
            if state.reason is not None or state.missing:
                await asyncio.sleep(RETRY_S[min(num_rounds, len(RETRY_S) - 1)])
                num_rounds += 1

    async def _mend(self, bucket: str) -> bool:
        """One attempt; whether the smallest batch can be served again."""
        engine, state, smallest = self._engines[bucket], self._states[bucket], self._smallest[bucket]
        reason = None if state.is_closed else await self._tried(bucket, partial(_run_grey, engine, smallest))
        if state.is_closed or reason is not None:
            state.is_closed = True
            reason = await self._tried(bucket, engine.close)
            reason = reason or await self._tried(bucket, partial(engine.warm, [smallest]))
            if reason is None:
                state.is_closed = False
                state.missing = set(self._shapes[bucket]) - {smallest}
        if reason is not None:
            state.reason = reason
            state.num_attempts += 1
            if state.num_attempts == MAX_ATTEMPTS:
                logger.error("bucket %s: %d attempts were in vain: %s", bucket, MAX_ATTEMPTS, reason)
            return False
        state.reason = None
        return True

    async def _warm_missing(self, bucket: str) -> None:
        """Warm what is missing, the largest first, so that memory grows once where it can."""
        missing = self._states[bucket].missing
        for shape in sorted(missing, key=_num_px, reverse=True):
            if self._states[bucket].reason is not None:
                return  # it broke anew
            if await self._tried(bucket, partial(self._engines[bucket].warm, [shape])) is None:
                missing.discard(shape)

    async def _tried(self, bucket: str, act: Callable[[], object]) -> str | None:
        """Why something could not be done on the engines' thread; None: it was."""
        try:
            await self._on_engine_thread(act)
        except DeviceLostError as err:
            self._lost(err)
            return str(err)
        except OutOfMemory as err:
            return str(err) or type(err).__name__
        except Exception as err:  # whatever else it is, it is tried again and told
            logger.exception("bucket %s: cannot be rebuilt", bucket)
            return f"{type(err).__name__}: {err}"
        return None


def _run_grey(engine: Engine, shape: WarmShape) -> None:
    canvas, batch = shape
    engine.infer(np.full((batch, canvas.height, canvas.width, 3), FILL, np.uint8))


def _num_px(shape: WarmShape) -> int:
    return shape.canvas.num_px * shape.batch
