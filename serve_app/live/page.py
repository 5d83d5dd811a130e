"""The page's addresses: the page itself and its assets, open to all; events and pictures, for those who may look."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from serve_app.live.collector import Collector
from serve_app.live.viewers import Event, TooManyViewersError, Viewer

MaySee = Callable[[str], bool]

# Whatever is between may close a line on which nothing comes; and the page looks for another one after three of them.
HEARTBEAT_S = 5.0
# How soon a browser comes back when its line broke.
RETRY_MS = 1000
# What the page may load, all of it from here. Pictures come by `fetch`, which can carry a key, and are shown as blobs.
POLICIES = (
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "font-src 'self'", "connect-src 'self'",
    "img-src 'self' blob:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    "require-trusted-types-for 'script'", "trusted-types 'none'",
)  # fmt: skip
CONTENT_POLICY = "; ".join(POLICIES)
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NEVER_KEPT = SAFE_HEADERS | {"Cache-Control": "no-store"}
TYPES = {
    "html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml", "woff2": "font/woff2",
}  # fmt: skip
PAGE = "index.html"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page, with the tag by which a browser knows whether it has it."""

    content: bytes
    media_type: str
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """Every file of the page, by name."""
    found = {}
    for path in files("serve_app.live").joinpath("assets").iterdir():
        kind = path.name.rpartition(".")[2]
        if kind in TYPES:
            content = path.read_bytes()
            found[path.name] = Asset(content, TYPES[kind], f'"{hashlib.sha256(content).hexdigest()[:16]}"')
    return found


def page_routes(collector: Collector, may_see: Callable[..., MaySee | None]) -> APIRouter:
    """The routes of a page.

    Args:
        collector: what the page shows.
        may_see: a FastAPI dependency of what is not open to all: raises for callers who may not look, and gives which
            cameras they may see; None: all.
    """

    @asynccontextmanager
    async def until_the_end(_: object) -> AsyncGenerator[None, None]:
        yield
        await collector.close()

    routes = APIRouter(include_in_schema=False, lifespan=until_the_end)
    allowed = Depends(may_see)

    @routes.get("/")
    async def page(request: Request) -> Response:
        return _asset(request, PAGE)

    @routes.get("/live/assets/{name}")
    async def asset(request: Request, name: str) -> Response:
        return _asset(request, name)

    @routes.get("/live/events")
    async def events(request: Request, sees: Any = allowed) -> Response:
        try:
            viewer = collector.join(sees, request.headers.get("last-event-id", "")[:64])
        except TooManyViewersError as err:
            retry = {"Retry-After": f"{err.retry_after_s or 1:.0f}"}
            return JSONResponse({"detail": str(err)}, err.http_status, headers=NEVER_KEPT | retry)
        # Told to proxies: what comes must go on at once.
        headers = NEVER_KEPT | {"X-Accel-Buffering": "no"}
        return _EventStream(collector, viewer, headers)

    @routes.get("/live/pictures/{key}")
    async def picture(key: str, sees: Any = allowed) -> Response:
        found = collector.picture(key)
        if found is None or (sees is not None and not sees(found.camera)):
            return JSONResponse({"detail": "picture: there is none of this camera now"}, 404, headers=NEVER_KEPT)
        return Response(found.jpeg, media_type="image/jpeg", headers=NEVER_KEPT)

    return routes


def _asset(request: Request, name: str) -> Response:
    found = assets().get(name)
    if found is None:
        return JSONResponse({"detail": "live page: it has no such file"}, 404, headers=SAFE_HEADERS)
    headers = SAFE_HEADERS | {"ETag": found.etag, "Cache-Control": "no-cache"}
    if name == PAGE:
        headers["Content-Security-Policy"] = CONTENT_POLICY
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


class _EventStream(StreamingResponse):
    """What a viewer gets until it goes: events as they come, and a sign of life in between."""

    media_type = "text/event-stream"

    def __init__(self, collector: Collector, viewer: Viewer, headers: Mapping[str, str]) -> None:
        super().__init__(_stream(collector, viewer), headers=headers)
        self._collector, self._viewer = collector, viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it; the viewer leaves however that ends, even before the first event."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._collector.leave(self._viewer)


async def _stream(collector: Collector, viewer: Viewer) -> AsyncGenerator[bytes, None]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    while viewer.is_here:
        event = await viewer.next(HEARTBEAT_S)
        yield b": alive\n\n" if event is None else packed(event, collector.event_id(event), viewer.may_see)


def packed(event: Event, event_id: str, may_see: MaySee | None) -> bytes:
    """An event as its line of the stream, with the cameras that this viewer may see."""
    content = event.content
    cameras = content.get("cameras")
    if may_see is not None and isinstance(cameras, list):
        content = content | {"cameras": [camera for camera in cameras if may_see(camera["name"])]}
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return f"id: {event_id}\nevent: {event.kind}\ndata: {text}\n\n".encode()
