"""Calls to one named replica of a deployment, past Serve's own choice of replica and its queue.

Serve's handle starts a stream for every call, in which the replica first says whether it accepts; with credits of our
own it always does, and we know which replica is meant. Calling the replica's actor costs half the CPU (2 cores, Ray
2.60: 3.8 instead of 8.2 ms a call, both sides together), and messages that are packed here, by the C pickler, spare
Ray's own, slower one. Serve still starts, watches, counts and drains replicas. This is the only file that knows what
Serve's replica actor looks like.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import ray
from ray.serve._private.common import RequestMetadata

METHOD = "call_directly"
_METADATA = pickle.dumps(RequestMetadata(request_id=METHOD, internal_request_id=METHOD, call_method=METHOD))


def own_actor() -> object:
    """The actor that this code runs in, to be handed to whoever should call it directly."""
    return ray.get_runtime_context().current_actor


class DirectlyCalled:
    """What a deployment's class needs for `ReplicaLine`; callers are our own processes, as with every Ray call."""

    async def call_directly(self, packed: bytes, refs: list[ray.ObjectRef[Any]] | None) -> bytes:
        """Run one of this object's coroutine methods; the refs, if any, are its last argument."""
        method, arguments = pickle.loads(packed)  # noqa: S301 — from `ReplicaLine`
        result = await getattr(self, method)(*arguments, *([] if refs is None else [refs]))
        return pickle.dumps(result, pickle.HIGHEST_PROTOCOL)


class ReplicaLine:
    """A line to one replica. Calls are not retried: a dead replica is the caller's business."""

    def __init__(self, actor: Any) -> None:
        """Take what `own_actor` gave inside the replica, whose class is `DirectlyCalled`."""
        self._actor = actor

    @property
    def actor(self) -> object:
        """The replica's actor, for lines of others."""
        return self._actor

    async def call(self, method: str, *arguments: object, refs: Sequence[ray.ObjectRef[Any]] | None = None) -> Any:
        """Call `method` of the deployment's class; cancelling cancels it there, but not what it has set off.

        Raises:
            RayActorError: the replica is dead.
        """
        answer = self._start(method, arguments, refs)
        try:
            return pickle.loads(await answer)  # noqa: S301 — from `DirectlyCalled`
        except asyncio.CancelledError:
            ray.cancel(answer, recursive=False)
            raise

    def call_and_wait(
        self, method: str, *arguments: object, refs: Sequence[ray.ObjectRef[Any]] | None = None, timeout_s: float
    ) -> Any:
        """The same outside an event loop; what runs on for nobody is cancelled.

        Raises:
            RayActorError: the replica is dead.
            TimeoutError: no answer in time.
        """
        answer = self._start(method, arguments, refs)
        try:
            return pickle.loads(ray.get(answer, timeout=timeout_s))  # noqa: S301
        except (TimeoutError, KeyboardInterrupt):
            ray.cancel(answer, recursive=False)
            raise

    def start(self, method: str, *arguments: object) -> Future[bytes]:
        """Begin a call without refs and go on; `unpacked` makes its result of what comes."""
        future: Future[bytes] = self._start(method, arguments, None).future()
        return future

    def unpacked(self, packed: bytes) -> Any:
        """The result of a call that `start` began."""
        return pickle.loads(packed)  # noqa: S301

    def _start(self, method: str, arguments: tuple[object, ...], refs: Sequence[ray.ObjectRef[Any]] | None) -> Any:
        packed = pickle.dumps((method, arguments), pickle.HIGHEST_PROTOCOL)
        return self._actor.handle_request.remote(_METADATA, packed, None if refs is None else list(refs))
