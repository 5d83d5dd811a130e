"""The composition of the HTTP door: one application of all its routes. What is behind it comes as a `Gateway`."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

from fastapi import APIRouter, FastAPI

from serve_app.http import problems
from serve_app.http.bodies import Door
from serve_app.http.callers import CallerBook
from serve_app.http.gateway import Gateway
from serve_app.http.limits import HttpLimits

TITLE = "Framelane"
# Each has `routes(gateway, limits) -> APIRouter`.
ROUTERS = ("serve_app.http.v1", "serve_app.http.inference_protocol", "serve_app.live.routes")


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """What this door allows.

    Attributes:
        limits: how much.
        callers: whom.
        cors_origins: from whose pages.
    """

    limits: HttpLimits
    callers: CallerBook
    cors_origins: tuple[str, ...] = ()


def build_http_app(gateway: Gateway, settings: HttpSettings) -> FastAPI:
    """The whole application. Its `state` has the `callers` (for `caller_of`) and the `door` (for reading bodies)."""
    app = FastAPI(title=TITLE)
    app.state.callers = settings.callers
    app.state.door = Door(settings.limits)
    problems.install(app)
    for name in ROUTERS:
        if _is_there(name):
            router: APIRouter = importlib.import_module(name).routes(gateway, settings.limits)
            app.include_router(router)
    return app


def _is_there(name: str) -> bool:
    package = name.rpartition(".")[0]
    return importlib.util.find_spec(package) is not None and importlib.util.find_spec(name) is not None
