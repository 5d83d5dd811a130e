"""What holds for callers over HTTP, as the plan says it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from serve_app.errors import InvalidPlanError

DEFAULT_PORT = 8000
# Whoever wants more than this machine to call says so.
DEFAULT_HOST = "127.0.0.1"
# A 4K frame as PNG, with room; raw, 8 megapixels.
DEFAULT_MAX_BODY_BYTES = 32 * 1024**2
# What all bodies of one replica may hold together while they are read and decoded.
DEFAULT_MAX_BODIES_BYTES = 512 * 1024**2
DEFAULT_MAX_PARTS = 16
# A camera's frame takes less than a second over any line that carries live pictures.
DEFAULT_READ_TIMEOUT_S = 10.0
DEFAULT_MAX_REQUESTS = 1000
# A connection that asks nothing is closed after this.
KEEP_ALIVE_S = 30


@dataclass(frozen=True, slots=True)
class HttpRules:
    """The plan's `http` section.

    Attributes:
        is_on: whether `framelane up` serves HTTP without being asked on the command line.
        port, host: where to listen.
        critical_port: another port at that address, for keys that may send critical frames alone; None: there is none.
        num_replicas: how many processes decode and answer; each has its share of every key's rate.
        keys: file of the API keys; None: anybody may call.
        allow_anonymous: whether it may listen on other addresses than this machine's own without keys.
        max_body_bytes: of one request, whatever it holds.
        max_bodies_bytes: of all requests of one replica together; noncritical ones may take 80 % of it.
        max_image_px: of one image; None: the plan's `limits.max_frame_px`.
        max_parts: images, or other parts, of one request.
        read_timeout_s: for how long the body of a request may take.
        max_requests: requests at a time in one replica; noncritical ones may take 80 % of them.
        cors_origins: from whose pages browsers may call; none by default.
    """

    is_on: bool = False
    port: int = DEFAULT_PORT
    host: str = DEFAULT_HOST
    critical_port: int | None = None
    num_replicas: int = 1
    keys: str | None = None
    allow_anonymous: bool = False
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    max_bodies_bytes: int = DEFAULT_MAX_BODIES_BYTES
    max_image_px: int | None = None
    max_parts: int = DEFAULT_MAX_PARTS
    read_timeout_s: float = DEFAULT_READ_TIMEOUT_S
    max_requests: int = DEFAULT_MAX_REQUESTS
    cors_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_bodies_bytes < self.max_body_bytes:
            raise InvalidPlanError(
                f"http.max_bodies_bytes: got {self.max_bodies_bytes}, allowed is at least max_body_bytes "
                f"({self.max_body_bytes}): else no body of that size would ever have room"
            )
        if self.critical_port == self.port:
            raise InvalidPlanError(
                f"http.critical_port: got {self.port}, which is http.port too; allowed is another port: what comes "
                "there passes by all that waits at this one"
            )
        if "*" in self.cors_origins:
            raise InvalidPlanError(
                "http.cors_origins: got '*', allowed are origins such as https://line.example: with '*' every page "
                "that somebody opens could call"
            )

    def check_reach(self, *, has_keys: bool) -> None:
        """Raise `InvalidPlanError` if anybody on the network could call without having been asked in."""
        if has_keys or self.allow_anonymous or is_loopback(self.host):
            return
        raise InvalidPlanError(
            f"http.host: got {self.host} without API keys, allowed is 127.0.0.1: anybody who reaches the port could "
            "send critical frames; make keys (framelane key) and name their file in http.keys, or set "
            "http.allow_anonymous: true"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
