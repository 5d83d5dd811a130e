"""The door: how many requests may be inside, and how many bytes their bodies and images may hold together.

A slow client holds its place for `read_timeout_s` at most, whatever it sends meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

from serve_app.frames import Priority
from serve_app.http.errors import BodyTooLargeError, DoorFullError, HttpError, SlowClientError
from serve_app.http.limits import NONCRITICAL_FRACTION, HttpLimits

# Bodies are gone as soon as their frames are decoded, which takes milliseconds.
RETRY_S = 1.0


class Door:
    """How many requests, and bytes of them, are in this process; critical ones find a fifth of both free."""

    def __init__(self, limits: HttpLimits) -> None:
        """Begin empty."""
        self._limits = limits
        self.num_requests = 0
        self.num_bytes = 0

    @contextmanager
    def entered(self, priority: str) -> Iterator[Guest]:
        """Be inside for as long as the block lasts. Raises `DoorFullError`."""
        is_critical = priority == Priority.CRITICAL.value
        most = self._limits.max_requests if is_critical else int(self._limits.max_requests * NONCRITICAL_FRACTION)
        if self.num_requests >= max(1, most):
            raise DoorFullError(
                f"requests: {self.num_requests} are being served, {most} allowed for {priority} frames; try again in "
                f"{RETRY_S:g} s",
                RETRY_S,
            )
        self.num_requests += 1
        guest = Guest(self, self._limits, is_critical=is_critical)
        try:
            yield guest
        finally:
            self.num_requests -= 1
            guest.let_go()


class Guest:
    """One request inside, and the bytes that it holds: its body, and its decoded images."""

    def __init__(self, door: Door, limits: HttpLimits, *, is_critical: bool) -> None:
        """`Door.entered` makes them."""
        self._door = door
        self._limits = limits
        self._most_bytes = int(limits.max_bodies_bytes * (1.0 if is_critical else NONCRITICAL_FRACTION))
        self._num_bytes = 0

    async def read(self, request: Request) -> bytes:
        """The whole body, which is held until `let_go`, or until the request leaves.

        Raises:
            HttpError: its length is no number, or the client went away.
            BodyTooLargeError, SlowClientError, DoorFullError: see there.
        """
        announced = _announced_bytes(request)
        if announced is not None:
            self._check(announced)
            self.hold(announced)
        try:
            return await asyncio.wait_for(self._read(request, announced or 0), self._limits.read_timeout_s)
        except asyncio.TimeoutError as err:
            raise SlowClientError(
                f"body: it has not come within {self._limits.read_timeout_s:g} s, which are allowed; send it faster, "
                "or raise http.read_timeout_s in the plan"
            ) from err
        except ClientDisconnect as err:
            raise HttpError("body: the client went away") from err

    def hold(self, num_bytes: int) -> None:
        """Take room for so many bytes more. Raises `DoorFullError`; whoever is alone inside always has room."""
        others = self._door.num_bytes - self._num_bytes
        if others and self._door.num_bytes + num_bytes > self._most_bytes:
            raise DoorFullError(
                f"bodies: {self._door.num_bytes:,} bytes of requests and images are held, {self._most_bytes:,} "
                f"allowed; try again in {RETRY_S:g} s",
                RETRY_S,
            )
        self._door.num_bytes += num_bytes
        self._num_bytes += num_bytes

    def let_go(self, num_bytes: int | None = None) -> None:
        """So many bytes are used, and not referred to any more; None: all of them."""
        given = self._num_bytes if num_bytes is None else min(num_bytes, self._num_bytes)
        self._door.num_bytes -= given
        self._num_bytes -= given

    async def _read(self, request: Request, num_held: int) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            num_bytes = len(body) + len(chunk)
            self._check(num_bytes)
            if num_bytes > num_held:
                self.hold(num_bytes - num_held)
                num_held = num_bytes
            body += chunk
        return bytes(body)

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._limits.max_body_bytes:
            raise BodyTooLargeError(
                f"body: got {num_bytes:,} bytes or more, allowed are {self._limits.max_body_bytes:,}; send fewer or "
                "smaller images, or raise http.max_body_bytes in the plan"
            )


def _announced_bytes(request: Request) -> int | None:
    """What `Content-Length` says; None: nothing. Raises `HttpError`."""
    value = request.headers.get("content-length")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > 18:
        raise HttpError(f"content-length: got {value[:80]!r}, allowed is a whole number of bytes")
    return int(value)
