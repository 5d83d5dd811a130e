"""Who calls, what they may do, and how many frames a second of theirs are left; pure but for `caller_of`."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hmac
from collections.abc import Callable, Sequence

from fastapi import Request

from serve_app.frames import Priority
from serve_app.http.errors import KeyMissingError, NotAllowedError, RateExceededError
from serve_app.http.key_rules import KeyRule, hash_of

KEY_HEADER = "x-api-key"
# Without a rate of its own a key has none.
ANONYMOUS = "anonymous"


class Caller:
    """The holder of one key, with what is left of its rate: a token bucket, filled at `frames_hz`, `burst` deep."""

    def __init__(self, rule: KeyRule, clock_s: Callable[[], float]) -> None:
        """Take the key's rule and a monotonic clock; the bucket begins full."""
        self._rule = rule
        self._clock_s = clock_s
        self._tokens = float(rule.burst)
        self._at_s = clock_s()

    @property
    def name(self) -> str:
        """How logs and errors call it."""
        return self._rule.name

    @property
    def may_be_critical(self) -> bool:
        """Whether it may send critical frames."""
        return self._rule.may_be_critical

    def check_priority(self, priority: str) -> None:
        """Raise `NotAllowedError` if this caller may not send frames of this priority."""
        if priority == Priority.CRITICAL.value and not self.may_be_critical:
            raise NotAllowedError(
                f"priority: got 'critical' from key {self.name!r}, allowed is 'normal': set critical: true for it in "
                "the service's file of keys"
            )

    def check_camera(self, camera: str) -> None:
        """Raise `NotAllowedError` if this caller may not name this camera."""
        if not self.may_name(camera):
            raise NotAllowedError(
                f"camera: got {camera[:80]!r} from key {self.name!r}, allowed are {', '.join(self._rule.cameras)}"
            )

    def may_name(self, camera: str) -> bool:
        """Whether it may send frames of this camera, and see its results."""
        return any(fnmatch.fnmatchcase(camera, pattern) for pattern in self._rule.cameras)

    def charge(self, num_frames: int, num_charged: int = 0) -> None:
        """Take so many frames off its rate.

        Args:
            num_frames: how many.
            num_charged: of the same request, before.

        Raises:
            RateExceededError: there are not so many left; nothing was taken.
        """
        rate_hz = self._rule.frames_hz
        if rate_hz is None:
            return
        now_s = self._clock_s()
        self._tokens = min(float(self._rule.burst), self._tokens + (now_s - self._at_s) * rate_hz)
        self._at_s = now_s
        if num_frames + num_charged > self._rule.burst:
            raise RateExceededError(
                f"rate: got {num_frames + num_charged} frames at once from key {self.name!r}, allowed are "
                f"{self._rule.burst}; send fewer in one request"
            )
        if self._tokens < num_frames:
            wait_s = (num_frames - self._tokens) / rate_hz
            raise RateExceededError(
                f"rate: key {self.name!r} has sent its {rate_hz:g} frames a second; try again in {wait_s:.3f} s", wait_s
            )
        self._tokens -= num_frames


class CallerBook:
    """All callers of one process, by key."""

    def __init__(
        self, rules: Sequence[KeyRule] | None, clock_s: Callable[[], float], *, only_critical: bool = False
    ) -> None:
        """Take the keys' rules; None: there are no keys, and anybody may do anything.

        `only_critical`: keys that may not send critical frames are refused, whatever they ask for.
        """
        self._clock_s = clock_s
        self._only_critical = only_critical
        self._callers: dict[str, Caller] = {}
        self._anonymous = None if rules is not None else Caller(KeyRule(ANONYMOUS, "", may_be_critical=True), clock_s)
        self._rules: tuple[KeyRule, ...] = ()
        self.replace(rules or ())

    def replace(self, rules: Sequence[KeyRule]) -> None:
        """Use these keys from now on; one whose rule is the same keeps what is left of its rate."""
        kept = {rule.sha256: self._callers[rule.sha256] for rule in self._rules if rule in rules}
        self._rules = tuple(rules)
        self._callers = {rule.sha256: kept.get(rule.sha256) or Caller(rule, self._clock_s) for rule in rules}

    def caller(self, key: str | None) -> Caller:
        """Who holds this key.

        Every stored hash is compared in full, so that the time tells nothing of how near a guess was.

        Raises:
            KeyMissingError: there is none, or nobody holds it.
            NotAllowedError: this is the port of critical keys, and it is none.
        """
        if self._anonymous is not None:
            return self._anonymous
        if not key:
            raise KeyMissingError(
                "key: got none, allowed is one of this service's API keys; send it as 'Authorization: Bearer KEY'"
            )
        got = hash_of(key)
        found = [caller for sha256, caller in self._callers.items() if hmac.compare_digest(sha256, got)]
        if not found:
            raise KeyMissingError("key: got one that this service does not know; ask whoever runs it for another")
        if self._only_critical and not found[0].may_be_critical:
            raise NotAllowedError(
                f"port: got key {found[0].name!r}, allowed here are keys that may send critical frames; use the "
                "service's other port"
            )
        return found[0]


async def caller_of(request: Request) -> Caller:
    """The dependency of every path that is not open to all; no thread for it, so async. Raises `KeyMissingError`."""
    book: CallerBook = request.app.state.callers
    return book.caller(key_in(request))


def key_in(request: Request) -> str | None:
    """The key that a request carries.

    As `Authorization: Bearer KEY`, as `X-API-Key: KEY`, or as the password of Basic authentication, which is what
    browsers ask people for. The last is taken for reading only: browsers send it along unasked, from other sites' pages
    too.
    """
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic" and request.method in ("GET", "HEAD"):
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return request.headers.get(KEY_HEADER)
