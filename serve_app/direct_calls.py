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
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import ray
from ray.serve._private.common import RequestMetadata
from ray.serve.handle import DeploymentHandle

METHOD = "call_directly"
# How soon a handle is looked at again that Serve has not told of any replica yet.
LOOK_INTERVAL_S = 0.05
METHOD_FOR_REFS = "call_directly_for_refs"


def _metadata(method: str) -> bytes:
    return pickle.dumps(RequestMetadata(request_id=method, internal_request_id=method, call_method=method))


_METADATA, _METADATA_FOR_REFS = _metadata(METHOD), _metadata(METHOD_FOR_REFS)


def own_actor() -> object:
    """The actor that this code runs in, to be handed to whoever should call it directly."""
    return ray.get_runtime_context().current_actor


async def running_replicas(handle: DeploymentHandle[Any], wait_s: float) -> dict[str, Any]:
    """The actors of a deployment's replicas that Serve counts as running, by Serve's names; costs no call.

    Serve tells every handle of changes as they happen: one that is starting is not among them, one that it stops or
    has found dead is no more. Waits for so long at most until a new handle has been told of the first.
    """
    if not handle.is_initialized:
        handle._init()  # type: ignore[no-untyped-call]  # noqa: SLF001 (Serve's own calls begin so)
    give_up_s = time.monotonic() + wait_s
    while not handle.running_replicas_populated():
        if time.monotonic() >= give_up_s:
            return {}
        await asyncio.sleep(LOOK_INTERVAL_S)
    # What every call through the handle looks at; there is no public way to it.
    router: Any = handle._router  # noqa: SLF001
    replicas = router._asyncio_router.request_router.curr_replicas  # noqa: SLF001
    return {name.unique_id: each._actor_handle for name, each in list(replicas.items())}  # noqa: SLF001


class DirectlyCalled:
    """What a deployment's class needs for `ReplicaLine`; callers are our own processes, as with every Ray call."""

    async def call_directly(self, packed: bytes, refs: list[ray.ObjectRef[Any]] | None) -> bytes:
        """Run one of this object's coroutine methods; the refs, if any, are its last argument."""
        method, arguments = pickle.loads(packed)  # noqa: S301 — from `ReplicaLine`
        result = await getattr(self, method)(*arguments, *([] if refs is None else [refs]))
        return pickle.dumps(result, pickle.HIGHEST_PROTOCOL)

    async def call_directly_for_refs(self, packed: bytes, _: None) -> tuple[bytes, list[ray.ObjectRef[Any]]]:
        """The same for a method that answers refs as well: Ray itself must carry them, to count who holds them."""
        method, arguments = pickle.loads(packed)  # noqa: S301 — from `ReplicaLine`
        result, refs = await getattr(self, method)(*arguments)
        return pickle.dumps(result, pickle.HIGHEST_PROTOCOL), refs


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

    async def call_for_refs(self, method: str, *arguments: object) -> tuple[Any, list[ray.ObjectRef[Any]]]:
        """Call a method that answers with refs beside its result; see `call`."""
        packed = pickle.dumps((method, arguments), pickle.HIGHEST_PROTOCOL)
        result, refs = await self._actor.handle_request.remote(_METADATA_FOR_REFS, packed, None)
        return pickle.loads(result), refs  # noqa: S301 — from `DirectlyCalled`

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
