"""API keys as the service knows them: what their holders may do, and a hash; pure.

Keys are kept as SHA-256 only. They are 256 random bits, which no list of passwords has, so a slow hash would protect
nothing more.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

# So that people and scanners for leaked secrets know one when they see it.
KEY_PREFIX = "fl_"
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class KeyRule:
    """One API key, as its file says.

    Attributes:
        name: how logs and errors call its holder.
        sha256: of the key, in hexadecimal.
        may_be_critical: whether it may send critical frames.
        frames_hz: frames a second it may send in the long run; None: any.
        burst: frames it may send at once after a pause.
        cameras: patterns of the cameras that it may name.
    """

    name: str
    sha256: str
    may_be_critical: bool = False
    frames_hz: float | None = None
    burst: int = 1
    cameras: tuple[str, ...] = ("*",)


def new_key() -> str:
    """A key that nobody has yet."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def hash_of(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def shares_of(rules: Sequence[KeyRule], num_replicas: int) -> tuple[KeyRule, ...]:
    """The rules of one of so many replicas, among which calls are spread: each has its share of every rate."""
    return tuple(
        replace(
            rule,
            frames_hz=None if rule.frames_hz is None else rule.frames_hz / num_replicas,
            burst=math.ceil(rule.burst / num_replicas),
        )
        for rule in rules
    )
