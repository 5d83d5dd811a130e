"""What the OpenAPI document says of `/v2`: names, examples, and the shapes of bodies."""

from __future__ import annotations

from typing import Any

_ERROR = {
    "description": "what is wrong",
    "content": {
        "application/json": {
            "schema": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
            "example": {"error": "outputs[0]: got 'boxes', allowed are num_detections, boxes_xyxy, …"},
        }
    },
}


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return dict.fromkeys(statuses, _ERROR)


def _answer(schema: dict[str, Any], example: object) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "as asked", "content": {"application/json": {"schema": schema, "example": example}}}}


_ANY: dict[str, Any] = {"type": "object"}
_NO_MODEL = _responses(401, 404, 422)
_UNREADY = {503: {"description": "not now", "content": {"application/json": {"schema": _ANY}}}}

LIVE: dict[str, Any] = {"summary": "Is the process alive", "responses": _answer(_ANY, {"live": True}) | _UNREADY}
READY: dict[str, Any] = {"summary": "Would a frame be served", "responses": _answer(_ANY, {"ready": True}) | _UNREADY}
SERVER: dict[str, Any] = {
    "summary": "Name, version and extensions of the server",
    "responses": _answer(_ANY, {"name": "framelane", "version": "0.1.0", "extensions": ["binary_tensor_data"]})
    | _responses(401),
}
INDEX: dict[str, Any] = {
    "summary": "The models here: one",
    "responses": _answer({"type": "array", "items": _ANY}, [{"name": "framelane", "version": "1", "state": "READY"}])
    | _responses(401, 503),
}
MODEL: dict[str, Any] = {
    "summary": "Inputs and outputs of the model",
    "responses": _answer(_ANY, {"name": "framelane", "versions": ["1"], "platform": "framelane"}) | _NO_MODEL,
}
MODEL_READY: dict[str, Any] = {
    "summary": "Is the model ready",
    "responses": _answer(_ANY, {"name": "framelane", "ready": True}) | _NO_MODEL | _UNREADY,
}
CONFIG: dict[str, Any] = {
    "summary": "Triton's model configuration",
    "responses": _answer(_ANY, {"name": "framelane", "max_batch_size": 16}) | _NO_MODEL,
}

_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string", "enum": ["images", "encoded_images"]},
        "datatype": {"type": "string", "enum": ["UINT8", "BYTES"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 4},
        "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer", "minimum": 0}}},
        "data": {"type": "array", "items": {}},
    },
    "additionalProperties": False,
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 200},
        "inputs": {"type": "array", "items": _TENSOR, "minItems": 1, "maxItems": 1},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "parameters": {"type": "object", "properties": {"binary_data": {"type": "boolean"}}},
                },
            },
        },
        "parameters": {
            "type": "object",
            "properties": {
                "camera": {"type": "string", "minLength": 1, "maxLength": 200},
                "priority": {"anyOf": [{"enum": ["critical", "normal"]}, {"type": "integer", "minimum": 0}]},
                "timeout": {"type": "integer", "exclusiveMinimum": 0, "description": "µs"},
                "slo_s": {"type": "number", "exclusiveMinimum": 0, "description": "seconds"},
                "allow_partial": {"type": "boolean"},
                "binary_data_output": {"type": "boolean"},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
_EXAMPLE = {
    "id": "42",
    "inputs": [{"name": "encoded_images", "datatype": "BYTES", "shape": [1], "data": ["/9j/4AAQSkZJRgABAQ…"]}],
    "outputs": [{"name": "num_detections"}, {"name": "boxes_xyxy"}],
    "parameters": {"camera": "gate-1", "priority": "critical"},
}
INFER: dict[str, Any] = {
    "summary": "Detect on a batch of images",
    "responses": {
        200: {
            "description": "the outputs, as JSON or with the binary extension",
            "content": {
                "application/json": {"schema": _ANY},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    }
    | _responses(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 499, 503, 504),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _REQUEST, "example": _EXAMPLE},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
}
