"""The Open Inference Protocol v2 (KServe's, Triton's), so that their clients detect here unchanged.

One model, `framelane`; `inference_protocol_model.py` has its inputs and outputs, docs/inference-protocol.md the rest.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from serve_app.frames import Priority
from serve_app.http import inference_protocol_document as document
from serve_app.http.bodies import Door, Guest
from serve_app.http.callers import Caller, caller_of
from serve_app.http.content_encoding import pack, unpack, unpacked_bytes_at_most
from serve_app.http.decoding import DecodeRoom
from serve_app.http.errors import HttpError
from serve_app.http.gateway import Gateway
from serve_app.http.inference_protocol_model import (
    MODEL_NAME,
    MODEL_VERSION,
    OUTPUT_NAMES,
    ImageBatch,
    error_of,
    model_config,
    model_metadata,
    output_tensors,
)
from serve_app.http.inference_protocol_request import (
    InferRequest,
    RequestedOutput,
    json_cost_bytes,
    json_length,
    read_request,
)
from serve_app.http.limits import HttpLimits
from serve_app.http.tensor_codec import Tensor, to_binary, to_json
from serve_app.http.time_left import time_left_s
from serve_app.results import FrameResult

HEADER_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository")
DEFAULT_CAMERA = "camera"
# A number of bytes of a body has no more digits.
MAX_LENGTH_DIGITS = 18

CallerOf = Annotated[Caller, Depends(caller_of)]
PriorityQuery = Annotated[
    Priority, Query(description="critical lets the request in before others; may stand in the body too")
]
CameraQuery = Annotated[str, Query(min_length=1, max_length=200, description="as the parameter of the body")]
ModelName = Annotated[str, Path(examples=[MODEL_NAME])]
ModelVersion = Annotated[str, Path(examples=[MODEL_VERSION])]
HeaderLength = Annotated[
    str | None,
    Header(alias=HEADER_LENGTH, description="where the JSON ends and binary tensors begin; 0: the body is one image"),
]


class ModelUnknownError(HttpError):
    """There is one model here, and its name or version was not this."""

    http_status = 404


def routes(gateway: Gateway, limits: HttpLimits, room: DecodeRoom) -> APIRouter:
    """The routes of `/v2`."""
    ours = InferenceProtocol(gateway, limits, room)
    router = APIRouter(tags=["Open Inference Protocol v2"])
    add = router.add_api_route
    add("/v2/health/live", ours.live, methods=["GET"], **document.LIVE)
    add("/v2/health/ready", ours.ready, methods=["GET"], **document.READY)
    add("/v2", ours.server, methods=["GET"], **document.SERVER)
    add("/v2/repository/index", ours.index, methods=["POST"], **document.INDEX)
    named, versioned = [Depends(caller_of), Depends(_check_name)], [Depends(_check_version)]
    one = "/v2/models/{model_name}"
    for path, checks in ((one, named), (one + "/versions/{model_version}", named + versioned)):
        add(path, ours.model, methods=["GET"], dependencies=checks, **document.MODEL)
        add(f"{path}/ready", ours.model_ready, methods=["GET"], dependencies=checks, **document.MODEL_READY)
        add(f"{path}/config", ours.config, methods=["GET"], dependencies=checks, **document.CONFIG)
        add(f"{path}/infer", ours.infer, methods=["POST"], dependencies=checks, **document.INFER)
    return router


def _check_name(model_name: ModelName) -> None:
    """The dependency of all paths of a model. Raises `ModelUnknownError`."""
    if model_name != MODEL_NAME:
        raise ModelUnknownError(
            f"model: got {model_name[:80]!a}, allowed is {MODEL_NAME!r}: the camera decides on the plan's model"
        )


def _check_version(model_version: ModelVersion) -> None:
    """The dependency of the paths that name a version. Raises `ModelUnknownError`."""
    if model_version != MODEL_VERSION:
        raise ModelUnknownError(f"version: got {model_version[:80]!a}, allowed is {MODEL_VERSION!r}, or none")


class InferenceProtocol:
    """The handlers of one application."""

    def __init__(self, gateway: Gateway, limits: HttpLimits, room: DecodeRoom) -> None:
        """Take what is behind them."""
        self._gateway = gateway
        self._limits = limits
        self._room = room

    async def live(self) -> Response:
        """Whether this process can do its work."""
        is_live = await self._gateway.is_live()
        return JSONResponse({"live": is_live}, 200 if is_live else 503)

    async def ready(self) -> Response:
        """Whether a frame that comes now would be served."""
        told = await self._gateway.readiness()
        return JSONResponse({"ready": told.is_ready, "reasons": list(told.reasons)}, 200 if told.is_ready else 503)

    async def server(self, _: CallerOf) -> Response:
        """Name, version, extensions."""
        return JSONResponse({"name": MODEL_NAME, "version": version("framelane"), "extensions": list(EXTENSIONS)})

    async def index(self, _: CallerOf) -> Response:
        """The one model, and whether it is ready. What a body asks for beside that is not looked at."""
        told = await self._gateway.readiness()
        state = {"state": "READY" if told.is_ready else "UNAVAILABLE", "reason": "; ".join(told.reasons)}
        return JSONResponse([{"name": MODEL_NAME, "version": MODEL_VERSION} | state])

    async def model(self) -> Response:
        """Inputs and outputs."""
        return JSONResponse(model_metadata())

    async def model_ready(self) -> Response:
        """As `/v2/health/ready`: there is one model."""
        told = await self._gateway.readiness()
        body = {"name": MODEL_NAME, "ready": told.is_ready, "reasons": list(told.reasons)}
        return JSONResponse(body, 200 if told.is_ready else 503)

    async def config(self) -> Response:
        """Triton's model configuration."""
        limits = self._limits
        return JSONResponse(model_config(self._gateway.plan, limits.max_parts, limits.max_image_px))

    async def infer(
        self, request: Request, caller: CallerOf, camera: CameraQuery = DEFAULT_CAMERA,
        priority: PriorityQuery = Priority.NORMAL, header_length: HeaderLength = None,
    ) -> Response:  # fmt: skip
        """Detect on a batch of images, and wait for all of them."""
        begun_s = time.monotonic()
        caller.check_priority(priority.value)
        door: Door = request.app.state.door
        with door.entered(priority.value) as guest:
            caller.charge(1)
            asked, batch = await self._read(request, guest, _length(header_length), priority.value)
            camera = asked.parameters.camera if asked.parameters.camera is not None else camera
            chosen = asked.parameters.priority if asked.parameters.priority is not None else priority.value
            caller.check_priority(chosen)
            caller.check_camera(camera)
            if batch.num_images > 1:
                caller.charge(batch.num_images - 1)
            guest.hold(batch.decoded_bytes)
            async with door.turns.taken(chosen):
                results = await self._detect(batch, camera, chosen, self._left_s(asked, chosen, begun_s))
        err = error_of(results)
        is_partial = asked.parameters.allow_partial and any(result.error is None for result in results)
        if err is not None and not is_partial:
            raise err
        accept = request.headers.get("accept-encoding", "")
        return await self._room.decoded(partial(_answer, asked, results, accept), chosen)

    async def _read(
        self, request: Request, guest: Guest, header: int | None, priority: str
    ) -> tuple[InferRequest, ImageBatch]:
        """Read, unpack and check a request, in threads beside the event loop, and with room for it at the door."""
        body = await guest.read(request)
        encoding = request.headers.get("content-encoding", "")
        most_bytes = unpacked_bytes_at_most(len(body), encoding, self._limits.max_body_bytes)
        if most_bytes:
            guest.hold(most_bytes)
            num_packed = len(body)
            body = await self._room.decoded(partial(unpack, body, encoding, self._limits.max_body_bytes), priority)
            guest.let_go(most_bytes - len(body) + num_packed)
        num_json = json_length(body, header)
        cost_bytes = await self._room.decoded(lambda: json_cost_bytes(body[:num_json]), priority)
        guest.hold(cost_bytes)
        read = partial(read_request, body, num_json, self._limits.max_parts, OUTPUT_NAMES)
        asked = await self._room.decoded(read, priority)
        guest.let_go(cost_bytes)
        return asked, await self._room.decoded(partial(ImageBatch, asked, self._limits.max_image_px), priority)

    def _left_s(self, asked: InferRequest, priority: str, begun_s: float) -> float | None:
        """See `time_left_s`."""
        default_s = self._gateway.plan.slo_s[Priority(priority)]
        return time_left_s(asked.parameters.slo_s, default_s, time.monotonic() - begun_s)

    async def _detect(self, batch: ImageBatch, camera: str, priority: str, slo_s: float | None) -> list[FrameResult]:
        """All frames of a batch at once, so that they can share batches; decoding is over before the first is sent."""
        images = [await self._room.decoded(partial(batch.decoded, i), priority) for i in range(batch.num_images)]
        calls = [self._gateway.detect(image, camera=camera, priority=priority, slo_s=slo_s) for image in images]
        results: list[FrameResult] = []
        for ended in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
            results.append(ended)
        return results


def _length(header: str | None) -> int | None:
    """What the header says. Raises `HttpError`."""
    if header is None:
        return None
    if not (header.isascii() and header.isdigit()) or len(header) > MAX_LENGTH_DIGITS:
        raise HttpError(f"{HEADER_LENGTH}: got {header[:80]!a}, allowed is a whole number of bytes")
    return int(header)


def _answer(asked: InferRequest, results: Sequence[FrameResult], accept_encoding: str) -> Response:
    """JSON, or JSON and then the outputs that are wanted as binary, in their order; packed if the caller takes that."""
    wanted = asked.outputs
    if wanted is None:
        wanted = tuple(RequestedOutput(name, asked.parameters.is_binary) for name in OUTPUT_NAMES)
    specs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for tensor, output in zip(output_tensors(results, [o.name for o in wanted]), wanted, strict=True):
        spec = _spec(tensor)
        if output.is_binary:
            tail.append(to_binary(tensor))
            spec["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            spec["data"] = to_json(tensor)
        specs.append(spec)
    document = {"model_name": MODEL_NAME, "model_version": MODEL_VERSION, "outputs": specs}
    if asked.request_id:
        document["id"] = asked.request_id
    head = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    headers = {HEADER_LENGTH: str(len(head))} if tail else {}
    body, encoding = pack(b"".join([head, *tail]), accept_encoding)
    if encoding:
        headers["Content-Encoding"] = encoding
    return Response(body, 200, headers, "application/octet-stream" if tail else "application/json")


def _spec(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.values.shape)}
