"""The composition of the HTTP door: one application of all its routes. What is behind it comes as a `Gateway`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from serve_app.http import inference_protocol, problems, v1
from serve_app.http.answers import Problem
from serve_app.http.bodies import Door
from serve_app.http.callers import CallerBook
from serve_app.http.decoding import DecodeRoom
from serve_app.http.gateway import Gateway
from serve_app.http.limits import HttpLimits
from serve_app.http.v1_document import SECURITY
from serve_app.live import routes as live

TITLE = "Framelane"
ABOUT = (
    "Detectors for fleets of cameras: every frame at its own size, critical ones first. "
    "Below /v1 errors are RFC 9457 problem details; /v2 is the Open Inference Protocol."
)


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
    # FastAPI's own pages of the document load scripts from another host.
    app = FastAPI(title=TITLE, description=ABOUT, version=metadata.version("framelane"), docs_url=None, redoc_url=None)
    app.state.callers = settings.callers
    app.state.door = Door(settings.limits)
    problems.install(app)
    room = DecodeRoom()
    app.include_router(v1.routes(gateway, settings.limits, room))
    app.include_router(inference_protocol.routes(gateway, settings.limits, room))
    app.include_router(live.routes(gateway))
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["Location", "Retry-After"],
        )
    _document(app)
    return app


def _document(app: FastAPI) -> None:
    """Add to the OpenAPI document what no route says: the shape of problems, and how keys are sent."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        parts = document.setdefault("components", {})
        parts.setdefault("schemas", {})[Problem.__name__] = Problem.model_json_schema()
        parts["securitySchemes"] = SECURITY
        return document

    app.openapi = openapi  # type: ignore[method-assign]
