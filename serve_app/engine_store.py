"""The cluster's built engines: one Ray actor with their bytes and their leases, and a replica's line to it."""

from __future__ import annotations

import concurrent.futures
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import RayError

from engines.engine_spec import BuiltEngine, EngineFacts
from serve_app.build_leases import LEASE_S, BuildLeases, Claim
from serve_app.errors import ServiceUnavailableError

NAMESPACE = "framelane"
# The number goes up when what is said between the two changes: a cluster may hold an older store for a while.
STORE_NAME = "engine-store-1"
# Ten to two hundred MB an engine, a few per plan. Above it the one that was not asked for the longest goes.
MAX_HELD_BYTES = 2**30
# The store only looks into dictionaries; what takes longer is a dead node that Ray has not noticed yet.
CALL_TIMEOUT_S = 30.0
# 200 MB over a slow network, twice.
TRANSFER_TIMEOUT_S = 120.0

PlanBytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """An engine on the shelf; `kept` is a ref to its bytes."""

    facts: EngineFacts
    kept: Any
    num_bytes: int


class EngineStore:
    """Leases, and the bytes of engines in Ray's object store, owned by this actor: they survive who built them.

    Bounds: it holds at most `max_bytes`, or the newest engine alone if that is larger; the least recently fetched goes
    first, and the next node that needs it builds it. Ray moves bytes to disk when its memory is short of room. A store
    that died starts again empty: leases that were out are not known any more, so an engine may be built twice, and
    whoever is done gives it to the new one.
    """

    def __init__(
        self,
        *,
        lease_s: float = LEASE_S,
        max_bytes: int = MAX_HELD_BYTES,
        clock: Callable[[], float] = time.monotonic,
        keep: Callable[[PlanBytes], Any] = ray.put,
    ) -> None:
        """Store what is injected: the time, and where bytes are kept."""
        self._leases = BuildLeases(lease_s=lease_s)
        self._max_bytes = max_bytes
        self._clock = clock
        self._keep = keep
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def claim(self, key: str, claimant: str) -> Claim:
        """See `BuildLeases.claim`."""
        return self._leases.claim(key, claimant, self._clock())

    def renew(self, key: str, claimant: str) -> bool:
        """See `BuildLeases.renew`."""
        return self._leases.renew(key, claimant, self._clock())

    def failed(self, key: str, claimant: str, reason: str) -> None:
        """See `BuildLeases.failed`."""
        self._leases.failed(key, claimant, reason, self._clock())

    def release(self, key: str, claimant: str) -> None:
        """See `BuildLeases.release`."""
        self._leases.release(key, claimant)

    def publish(self, key: str, claimant: str, facts: EngineFacts, plan: PlanBytes) -> None:
        """Keep an engine; one that is here already stays. `plan` is the caller's, and is copied."""
        if key not in self._held:
            self._held[key] = _Held(facts, self._keep(plan), plan.nbytes)
            self._leases.done(key, claimant, self._clock())
            while self._held_bytes() > self._max_bytes and len(self._held) > 1:
                pushed_out, _ = self._held.popitem(last=False)
                self._leases.forget(pushed_out)

    def fetch(self, key: str) -> tuple[EngineFacts, list[Any]] | None:
        """An engine's facts and a ref to its bytes, in a list so that Ray passes it on as it is."""
        held = self._held.get(key)
        if held is None:
            return None
        self._held.move_to_end(key)
        return held.facts, [held.kept]

    def _held_bytes(self) -> int:
        return sum(held.num_bytes for held in self._held.values())


class StoreLine:
    """A line to the store; the `Store` of `engine_supply`. It needs no event loop: constructors of replicas use it."""

    def __init__(self, actor: Any) -> None:
        """Take the actor of `EngineStore`."""
        self._actor = actor

    def claim(self, key: str, claimant: str) -> Claim:
        """See `EngineStore.claim`."""
        claim: Claim = self._call("claim", key, claimant)
        return claim

    def renew(self, key: str, claimant: str) -> bool:
        """See `EngineStore.renew`."""
        return bool(self._call("renew", key, claimant))

    def publish(self, key: str, claimant: str, built: BuiltEngine) -> None:
        """Give an engine to all; the bytes lie in the object store twice until the store has its own copy."""
        plan = self._asked(lambda: ray.put(np.frombuffer(built.plan_bytes, np.uint8)))
        self._call("publish", key, claimant, built.facts, plan, timeout_s=TRANSFER_TIMEOUT_S)

    def failed(self, key: str, claimant: str, reason: str) -> None:
        """See `EngineStore.failed`."""
        self._call("failed", key, claimant, reason)

    def release(self, key: str, claimant: str) -> None:
        """See `EngineStore.release`."""
        self._call("release", key, claimant)

    def fetch(self, key: str) -> BuiltEngine | None:
        """An engine, copied out of the object store; None: it was pushed out."""
        found = self._call("fetch", key)
        if found is None:
            return None
        facts, (kept,) = found
        plan = self._asked(lambda: kept.future().result(TRANSFER_TIMEOUT_S))
        return BuiltEngine(plan.tobytes(), facts)

    def _call(self, method: str, *arguments: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        # Not `ray.get`, which warns in a replica that it would stop the event loop: nothing runs there yet.
        return self._asked(lambda: getattr(self._actor, method).remote(*arguments).future().result(timeout_s))

    def _asked(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except (RayError, concurrent.futures.TimeoutError) as err:
            reason = (str(err).strip().splitlines() or [""])[0][:150]
            raise ServiceUnavailableError(
                f"engine store: no answer ({type(err).__name__}: {reason}); look for actor {STORE_NAME} in: ray list "
                f"actors"
            ) from err


def open_store(*, name: str = STORE_NAME, lease_s: float = LEASE_S) -> StoreLine:
    """A line to the store of the connected Ray; whoever comes first starts it.

    It is detached: it outlives the replica that started it, and its next deployment finds the engines. It takes no CPU
    and restarts when it dies. `remove_store` ends it, and the end of the Ray cluster does; Serve's own delete does not.

    Raises:
        ServiceUnavailableError: Ray cannot start it.
    """
    actor = ray.remote(EngineStore).options(
        name=name, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", num_cpus=0, max_restarts=-1
    )
    try:
        return StoreLine(actor.remote(lease_s=lease_s))
    except (RayError, ValueError) as err:
        raise ServiceUnavailableError(f"engine store: cannot be started ({err}); look at: ray status") from err


def remove_store(*, name: str = STORE_NAME) -> None:
    """End the store of the connected Ray and let go of its bytes; nothing happens if there is none."""
    try:
        actor = ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return
    ray.kill(actor, no_restart=True)
