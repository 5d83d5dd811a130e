"""The page as the HTTP door includes it: on the running service, for those whose key may look."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from serve_app.http.callers import Caller, caller_of
from serve_app.http.errors import NotAllowedError
from serve_app.http.gateway import Gateway
from serve_app.live.collector import Collector
from serve_app.live.page import MaySee, page_routes
from serve_app.live.ray_source import RaySource


def routes(gateway: Gateway) -> APIRouter:
    """The page at `/`, and what it loads."""
    return page_routes(Collector(RaySource(gateway)), may_see)


def may_see(caller: Annotated[Caller, Depends(caller_of)]) -> MaySee:
    """Which cameras a caller may see: those that its key may name. Raises `KeyMissingError`."""

    def sees(camera: str) -> bool:
        try:
            caller.check_camera(camera)
        except NotAllowedError:
            return False
        return True

    return sees
