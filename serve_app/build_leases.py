"""Who builds which engine while who waits: leases of one cluster. Pure: the caller brings the time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

# A builder renews several times within it, so only one that is dead or cut off loses it; who waits for a dead one
# waits no longer than this.
LEASE_S = 30.0
# The longest build that is waited for, renewed or not: a builder that hangs must not hold up a cluster for ever.
# Large detectors on slow GPUs take a quarter of it.
MAX_BUILD_S = 3600.0
# How long a failure stands for the next try. Long enough for all who wait, and for a deployment that starts its
# replicas again and again, to get the reason at once; short enough for someone who has mended the machine.
FAILURE_KEPT_S = 60.0


class ClaimKind(Enum):
    """What somebody who wants an engine is to do."""

    BUILD = "build"
    """Build it: the lease is yours."""
    WAIT = "wait"
    """Somebody else builds it: ask again soon."""
    READY = "ready"
    """It is built: fetch it."""
    FAILED = "failed"
    """It cannot be built: give up."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to somebody who wants an engine.

    Attributes:
        kind: what to do.
        holder: who builds, has built, or has failed to.
        for_s: seconds since then; a duration, for it crosses machines.
        reason: of a failure.
    """

    kind: ClaimKind
    holder: str
    for_s: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of a key: `kind` is never WAIT; it is forgotten at `until_s`."""

    kind: ClaimKind
    holder: str
    since_s: float
    until_s: float
    reason: str = ""


class BuildLeases:
    """First come, first built: who claims a key that nobody knows gets its lease, all others wait.

    A lease that is not renewed within `lease_s` runs out, and the next who asks builds; so does one that was renewed
    for `max_build_s`. Whoever lost a lease and is done after all is welcome: two builds of one key may stand for each
    other. A failure is the answer to all who ask for `failure_kept_s`; then the next one tries again.

    Bound: nobody waits for one builder longer than `max_build_s`, nor for a dead one longer than `lease_s`. There is no
    queue: of those who wait, the next to ask builds. At most one lease is out for a key. Not thread-safe.
    """

    def __init__(
        self,
        *,
        lease_s: float = LEASE_S,
        max_build_s: float = MAX_BUILD_S,
        failure_kept_s: float = FAILURE_KEPT_S,
    ) -> None:
        """Take the three times, in seconds."""
        self._lease_s = lease_s
        self._max_build_s = max_build_s
        self._failure_kept_s = failure_kept_s
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def claim(self, key: str, claimant: str, now_s: float) -> Claim:
        """Ask for an engine. The holder of a lease who asks again still has it."""
        self._forget_old(now_s)
        entry = self._entries.get(key)
        if entry is None:
            until_s = now_s + min(self._lease_s, self._max_build_s)
            entry = self._entries[key] = _Entry(ClaimKind.BUILD, claimant, now_s, until_s)
        kind = ClaimKind.WAIT if entry.kind is ClaimKind.BUILD and entry.holder != claimant else entry.kind
        return Claim(kind, entry.holder, now_s - entry.since_s, entry.reason)

    def renew(self, key: str, claimant: str, now_s: float) -> bool:
        """Say that the build goes on; False: the lease is another's or nobody's by now."""
        self._forget_old(now_s)
        entry = self._leased(key, claimant)
        if entry is None:
            return False
        until_s = min(now_s + self._lease_s, entry.since_s + self._max_build_s)
        self._entries[key] = replace(entry, until_s=until_s)
        return True

    def done(self, key: str, claimant: str, now_s: float) -> None:
        """The engine is built and can be fetched until `forget`, whoever held the lease."""
        self._entries[key] = _Entry(ClaimKind.READY, claimant, now_s, until_s=float("inf"))

    def failed(self, key: str, claimant: str, reason: str, now_s: float) -> None:
        """The engine cannot be built; counts only from the holder of the lease."""
        if self._leased(key, claimant) is not None:
            until_s = now_s + self._failure_kept_s
            self._entries[key] = _Entry(ClaimKind.FAILED, claimant, now_s, until_s, reason)

    def release(self, key: str, claimant: str) -> None:
        """The holder gives up for reasons of its own; the next who asks builds."""
        if self._leased(key, claimant) is not None:
            del self._entries[key]

    def forget(self, key: str) -> None:
        """A built engine can be fetched no more; the next who asks builds."""
        entry = self._entries.get(key)
        if entry is not None and entry.kind is ClaimKind.READY:
            del self._entries[key]

    def _leased(self, key: str, claimant: str) -> _Entry | None:
        entry = self._entries.get(key)
        return entry if entry is not None and entry.kind is ClaimKind.BUILD and entry.holder == claimant else None

    def _forget_old(self, now_s: float) -> None:
        """Drop what has run out, of all keys: what nobody asks for again must not stay."""
        for key in [key for key, entry in self._entries.items() if entry.until_s <= now_s]:
            del self._entries[key]
