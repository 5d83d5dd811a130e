"""`/v1`: images in, detections out; tickets for those who do not wait; how the service is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from engines.letterbox import Image
from serve_app.errors import FramelaneError, TicketUnknownError
from serve_app.frames import MAX_SLO_S, Priority
from serve_app.http import v1_document as document
from serve_app.http.answers import frame_answer, page_answer, ticket_answer
from serve_app.http.bodies import Door, Guest
from serve_app.http.callers import Caller, caller_of
from serve_app.http.decoding import DecodeRoom
from serve_app.http.gateway import Gateway
from serve_app.http.limits import MAX_WAIT_S, HttpLimits
from serve_app.http.problems import error_response, result_error, retry_after_header
from serve_app.http.request_images import MULTIPART_TYPE, SentImage, images_of
from serve_app.http.time_left import ASK_AGAIN_S, time_left_s
from serve_app.service_view import rates, view_as_json

CallerOf = Annotated[Caller, Depends(caller_of)]
CameraName = Annotated[
    str,
    Query(min_length=1, max_length=200, description="who took it; the plan may have rules for it", examples=["gate-1"]),
]
PriorityName = Annotated[Priority, Query(description="critical frames pass every other one")]
SloSeconds = Annotated[
    float | None,
    Query(gt=0, le=MAX_SLO_S, allow_inf_nan=False, examples=[0.5],
          description="seconds from now until it must be finished; without it, the plan's default"),
]  # fmt: skip
WaitSeconds = Annotated[
    float, Query(ge=0, le=MAX_WAIT_S, allow_inf_nan=False, description="how long to wait for an outcome")
]
TicketId = Annotated[str, Path(min_length=1, max_length=200)]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says of its frames; `begun_s` is when all of them were here, from which on the deadline counts."""

    caller: Caller
    camera: str
    priority: str
    slo_s: float | None
    begun_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Part:
    """What became of one image: the fields of its answer, and why it did not go well; None: it did."""

    fields: dict[str, Any]
    err: FramelaneError | None = None


Serve = Callable[[Image, Asked], Awaitable[Part]]


def routes(gateway: Gateway, limits: HttpLimits, room: DecodeRoom) -> APIRouter:
    """The routes of `/v1`."""
    ours = V1(gateway, limits, room)
    router = APIRouter(prefix="/v1")
    router.add_api_route("/detect", ours.detect, methods=["POST"], **document.DETECT)
    router.add_api_route("/tickets", ours.submit, methods=["POST"], **document.SUBMIT)
    router.add_api_route("/tickets/{ticket_id}", ours.result, methods=["GET"], **document.RESULT)
    router.add_api_route("/cameras/{camera:path}/results", ours.results, methods=["GET"], **document.RESULTS)
    router.add_api_route("/status", ours.status, methods=["GET"], **document.STATUS)
    router.add_api_route("/health/live", ours.live, methods=["GET"], **document.LIVE)
    router.add_api_route("/health/ready", ours.ready, methods=["GET"], **document.READY)
    return router


class V1:
    """The handlers of one application."""

    def __init__(self, gateway: Gateway, limits: HttpLimits, room: DecodeRoom) -> None:
        """Take what is behind them."""
        self._gateway = gateway
        self._limits = limits
        self._room = room

    async def detect(
        self, request: Request, caller: CallerOf, camera: CameraName = "camera",
        priority: PriorityName = Priority.NORMAL, slo_s: SloSeconds = None,
    ) -> Response:  # fmt: skip
        """Detect on one image or several, and wait for the answer."""
        return await self._frames(request, Asked(caller, camera, priority.value, slo_s), self._detected, "frames", 200)

    async def submit(
        self, request: Request, caller: CallerOf, camera: CameraName = "camera",
        priority: PriorityName = Priority.NORMAL, slo_s: SloSeconds = None,
    ) -> Response:  # fmt: skip
        """Send one image or several without waiting for their results."""
        return await self._frames(request, Asked(caller, camera, priority.value, slo_s), self._sent, "tickets", 202)

    async def result(
        self, request: Request, caller: CallerOf, ticket_id: TicketId, wait_s: WaitSeconds = 0.0
    ) -> Response:
        """How the frame of a ticket ended, whatever way; 202 while it has no outcome."""
        with _door(request).entered(Priority.NORMAL.value):
            result = await self._gateway.result(ticket_id, wait_s)
        if result is None:
            waiting = {"ticket_id": ticket_id, "state": "waiting"}
            return JSONResponse(waiting, 202, headers=retry_after_header(ASK_AGAIN_S))
        if not caller.may_name(result.camera):  # what another key's cameras see is as good as unknown
            raise TicketUnknownError(
                f"ticket: got {ticket_id[:80]!r}, which this service has not given out to this key"
            )
        return JSONResponse(frame_answer(result))

    async def results(
        self, request: Request, caller: CallerOf, camera: Annotated[str, Path(min_length=1, max_length=200)],
        cursor: Annotated[str, Query(max_length=40, description="of the last page; empty: from the oldest on")] = "",
        wait_s: WaitSeconds = 0.0,
    ) -> Response:  # fmt: skip
        """The results of a camera's tickets, in the order in which its frames ended."""
        caller.check_camera(camera)
        with _door(request).entered(Priority.NORMAL.value):
            return JSONResponse(page_answer(await self._gateway.results(camera, cursor, wait_s)))

    async def status(self, _: CallerOf) -> Response:
        """What `framelane status --json` prints."""
        view = await self._gateway.view()
        return JSONResponse(view_as_json(view, rates(view.status, None)))

    async def live(self) -> Response:
        """Whether this process can do its work."""
        is_live = await self._gateway.is_live()
        return JSONResponse({"is_live": is_live}, 200 if is_live else 503)

    async def ready(self) -> Response:
        """Whether a frame that comes now would be served."""
        told = await self._gateway.readiness()
        return JSONResponse(
            {"is_ready": told.is_ready, "reasons": list(told.reasons)},
            200 if told.is_ready else 503,
            headers={} if told.is_ready else retry_after_header(ASK_AGAIN_S),
        )

    async def _frames(self, request: Request, asked: Asked, serve: Serve, name: str, status: int) -> Response:
        """Read, decode and serve the images of a request: answered as one, or each for itself below `name`."""
        asked.caller.check_priority(asked.priority)
        asked.caller.check_camera(asked.camera)
        with _door(request).entered(asked.priority) as guest:
            asked.caller.charge(1)
            began_s = time.monotonic()
            images = await self._images(request, guest)
            asked = replace(asked, begun_s=time.monotonic())
            read_s = asked.begun_s - began_s
            if len(images) > 1:
                asked.caller.charge(len(images) - 1, num_charged=1)
            if request.headers.get("content-type", "").lower().startswith(MULTIPART_TYPE):
                parts = await asyncio.gather(*(self._part(image, guest, asked, serve) for image in images))
                response = _together(request, parts, name, status)
            else:
                response = await self._alone(request, images[0], guest, asked, serve)
        inside_s = time.monotonic() - began_s
        response.headers["Server-Timing"] = f"body;dur={read_s * 1000:.1f}, inside;dur={inside_s * 1000:.1f}"
        return response

    async def _images(self, request: Request, guest: Guest) -> list[SentImage]:
        return images_of(await guest.read(request), request.headers, self._limits)

    async def _alone(self, request: Request, image: SentImage, guest: Guest, asked: Asked, serve: Serve) -> Response:
        """The answer to a body that is one image: its fields, or a problem."""
        part = await self._served(image, guest, asked, serve)
        if part.err is not None:
            return error_response(request, part.err, **part.fields)
        if "ticket_id" in part.fields:
            return JSONResponse(part.fields, 202, headers={"Location": part.fields["result"]})
        return JSONResponse(part.fields)

    async def _part(self, image: SentImage, guest: Guest, asked: Asked, serve: Serve) -> Part:
        """What became of one part; whatever it was, it harms no other."""
        try:
            part = await self._served(image, guest, asked, serve)
        except FramelaneError as err:
            part = Part({}, err)
        return Part({"name": image.name} | part.fields, part.err)

    async def _served(self, image: SentImage, guest: Guest, asked: Asked, serve: Serve) -> Part:
        """Decode and serve one image when its turn has come."""
        self._left_s(asked, guest.wait_s())
        async with guest.turn():
            return await serve(await self._decoded(image, guest, asked), asked)

    async def _decoded(self, image: SentImage, guest: Guest, asked: Asked) -> Image:
        if image.err is not None:
            raise image.err
        guest.hold(image.num_bytes)
        return await self._room.decoded(image.decode, asked.priority)

    async def _detected(self, image_hwc: Image, asked: Asked) -> Part:
        result = await self._gateway.detect(
            image_hwc, camera=asked.camera, priority=asked.priority, slo_s=self._left_s(asked)
        )
        return Part(frame_answer(result), result_error(result))

    async def _sent(self, image_hwc: Image, asked: Asked) -> Part:
        ticket = await self._gateway.submit(
            image_hwc, camera=asked.camera, priority=asked.priority, slo_s=self._left_s(asked)
        )
        return Part(ticket_answer(ticket))

    def _left_s(self, asked: Asked, wait_s: float = 0.0) -> float | None:
        """See `time_left_s`."""
        default_s = self._gateway.plan.slo_s[Priority(asked.priority)]
        return time_left_s(asked.slo_s, default_s, time.monotonic() - asked.begun_s, wait_s)


def _together(request: Request, parts: list[Part], name: str, status: int) -> Response:
    """The answer to several images: as one that went well if one of them did, else as the first one's problem."""
    fields = {name: [_told(part, status) for part in parts]}
    problems = [part.err for part in parts if part.err is not None]
    if len(problems) < len(parts):
        return JSONResponse(fields, status)
    waits_s = [err.retry_after_s for err in problems if err.retry_after_s is not None]
    return error_response(request, problems[0], retry_after_s=max(waits_s, default=None), **fields)


def _told(part: Part, status: int) -> dict[str, Any]:
    """One of several parts, with the status that it would have had alone."""
    err = part.err
    if err is None:
        return {"name": "", "status": status, "error": None, "retry_after_s": None} | part.fields
    told = {"status": err.http_status, "error": str(err), "retry_after_s": err.retry_after_s}
    return {"name": ""} | part.fields | told


def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door
