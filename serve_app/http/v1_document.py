"""What the OpenAPI document says of `/v1`: bodies, answers and examples, beside the handlers' own parameters."""

from __future__ import annotations

from typing import Any

from serve_app.http.answers import (
    CameraPageAnswer,
    FrameAnswer,
    FramesAnswer,
    HealthAnswer,
    LiveAnswer,
    Problem,
    TicketAnswer,
    TicketsAnswer,
    WaitingAnswer,
)
from serve_app.http.problems import PROBLEM_TYPE
from serve_app.http.request_images import (
    HEIGHT_HEADER,
    IMAGE_TYPES,
    LAYOUT_HEADER,
    MULTIPART_TYPE,
    RAW_TYPE,
    WIDTH_HEADER,
)

Options = dict[str, Any]

FRAME = {
    "frame_id": "0b9d6c3f5a1e4d0c8b7a695847362514",
    "camera": "gate-1",
    "priority": "critical",
    "outcome": "finished",
    "size_hw": [480, 640],
    "detections": [{"box_xyxy": [101.5, 40.0, 113.25, 52.5], "score": 0.91, "class_id": 0, "class_name": "scratch"}],
    "verdict": {"kind": "admit", "reason": "in time: 0.041 s of 0.25 s", "rung": 0, "retry_after_s": None},
    "error": None,
    "model": "full",
    "bucket": "small",
    "pool": "cpu",
    "canvas_hw": [480, 640],
    "rung": 0,
    "num_tiles": 0,
    "batch_size": 1,
    "padding_fraction": 0.0,
    "replica": "cpu-0a41be22",
    "router": "router-4be10077",
    "times_ms": {"queue": 1.2, "transfer": 2.1, "preprocess": 0.9, "infer": 33.0, "postprocess": 0.4, "total": 37.6},
}
TICKET = {
    "ticket_id": "0b9d6c3f5a1e4d0c8b7a695847362514",
    "camera": "belt-1",
    "verdict": {"kind": "defer", "reason": "larger than scheduling.defer_above_px", "rung": 0, "retry_after_s": None},
    "expires_in_s": 60.0,
    "is_durable": False,
    "result": "/v1/tickets/0b9d6c3f5a1e4d0c8b7a695847362514",
}
REJECTED = {
    "type": "about:blank", "title": "Too Many Requests", "status": 429, "outcome": "rejected", "retry_after_s": 0.8,
    "detail": "frame: predicted to be late by 0.4 s; try again in 0.8 s",
}  # fmt: skip

# By status: whose fault it is, in words for people.
PROBLEMS = {
    400: "the request makes no sense",
    401: "no API key, or one that is not known",
    403: "the key may not send critical frames, or name this camera",
    404: "no such ticket or cursor",
    408: "the body did not come in time",
    409: "a newer frame of the camera took its place (`keep: latest`)",
    410: "the frame has ended, but its result is kept no more",
    413: "more bytes, parts or pixels than allowed",
    415: "neither JPEG, PNG nor raw pixels",
    422: "a parameter or an image is not as it must be",
    429: "no room for the frame, or the key's rate is used up; see Retry-After",
    499: "the frame was cancelled while it waited",
    500: "ours",
    503: "no service, or no room for the request; see Retry-After",
    504: "the frame waited until it could not be in time",
    507: "no room for a durable frame",
}
OF_ALL = (401, 422, 500, 503)
OF_FRAMES = (400, 401, 403, 408, 409, 413, 415, 422, 429, 499, 500, 503, 504)


def _problems(*statuses: int) -> dict[int | str, Options]:
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    told: dict[int | str, Options] = {
        status: {"description": PROBLEMS[status], "content": {PROBLEM_TYPE: {"schema": schema}}} for status in statuses
    }
    if 429 in told:
        told[429]["content"][PROBLEM_TYPE]["example"] = REJECTED
    for status in {429, 503} & told.keys():
        told[int(status)]["headers"] = {
            "Retry-After": {"description": "whole seconds, rounded up", "schema": {"type": "integer"}}
        }
    return told


def _header(name: str, schema: Options, told: str) -> Options:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": told}


_BYTES: Options = {"schema": {"type": "string", "format": "binary"}}
_BODY: Options = {
    "requestBody": {
        "required": True,
        "content": {
            **dict.fromkeys((*IMAGE_TYPES, RAW_TYPE), _BYTES),
            MULTIPART_TYPE: {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    "required": ["image"],
                },
            },
        },
    },
    "parameters": [
        _header(HEIGHT_HEADER, {"type": "integer", "minimum": 1}, "of raw pixels"),
        _header(WIDTH_HEADER, {"type": "integer", "minimum": 1}, "of raw pixels"),
        _header(LAYOUT_HEADER, {"type": "string", "enum": ["bgr", "rgb", "grey"]}, "of raw pixels; bgr without it"),
    ],
    "security": [{"bearer": []}, {"header": []}],
}
_READING: Options = {"security": [{"bearer": []}, {"header": []}]}


def _both(one: type, several: type) -> Options:
    return {"model": one | several}


DETECT: Options = {
    "summary": "Detect on one image or several",
    "tags": ["frames"],
    "responses": {
        200: _both(FrameAnswer, FramesAnswer)
        | {
            "description": "a frame that finished; of several parts, how each ended",
            "content": {"application/json": {"example": FRAME}},
        },
        **_problems(*OF_FRAMES),
    },
    "openapi_extra": _BODY,
}
SUBMIT: Options = {
    "summary": "Send one image or several without waiting",
    "tags": ["tickets"],
    "status_code": 202,
    "responses": {
        202: _both(TicketAnswer, TicketsAnswer)
        | {"description": "a ticket; of several parts, one each", "content": {"application/json": {"example": TICKET}}},
        **_problems(*OF_FRAMES, 507),
    },
    "openapi_extra": _BODY,
}
RESULT: Options = {
    "summary": "How the frame of a ticket ended",
    "tags": ["tickets"],
    "responses": {
        200: {"model": FrameAnswer, "content": {"application/json": {"example": FRAME}}},
        202: {"model": WaitingAnswer, "description": "no outcome yet"},
        **_problems(404, 410, *OF_ALL),
    },
    "openapi_extra": _READING,
}
RESULTS: Options = {
    "summary": "The results of a camera's tickets",
    "tags": ["tickets"],
    "responses": {200: {"model": CameraPageAnswer}, **_problems(403, 404, *OF_ALL)},
    "openapi_extra": _READING,
}
STATUS: Options = {
    "summary": "The service at a glance",
    "tags": ["service"],
    "responses": {200: {"description": "as `framelane status --json`"}, **_problems(401, 500, 503)},
    "openapi_extra": _READING,
}
LIVE: Options = {
    "summary": "Whether this process can do its work",
    "tags": ["service"],
    "responses": {200: {"model": LiveAnswer}, 503: {"model": LiveAnswer, "description": "it should be replaced"}},
}
READY: Options = {
    "summary": "Whether a frame that comes now would be served",
    "tags": ["service"],
    "responses": {200: {"model": HealthAnswer}, 503: {"model": HealthAnswer, "description": "it would not; and why"}},
}
# Of the whole document.
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
