"""A request for inference of the Open Inference Protocol v2, from its body to checked values; pure.

The body is JSON, or with the binary extension JSON followed by the bytes of tensors, in the order of the inputs.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from serve_app.errors import FramelaneError
from serve_app.frames import Priority
from serve_app.http.tensor_codec import BYTES, Array, check_shape, from_binary, from_json

# A 1-megapixel image as numbers has 3 million. Python reads so many in a tenth of a second, in which this process
# answers nobody else; whatever is larger goes as binary.
MAX_JSON_VALUES = 4_000_000
# A camera's name stands in every record and metric of it.
MAX_TEXT = 200
# What JSON takes in CPython, rounded up: a number with its place in a list or half a text, a list, an object.
_VALUE_BYTES, _LIST_BYTES, _OBJECT_BYTES = 40, 64, 240

# The two inputs, of which a request has one.
IMAGES, ENCODED_IMAGES = "images", "encoded_images"

_REQUEST_KEYS = ("id", "parameters", "inputs", "outputs")
_INPUT_KEYS = ("name", "datatype", "shape", "parameters", "data")
_OUTPUT_KEYS = ("name", "parameters")
_PARAMETERS = ("camera", "priority", "timeout", "slo_s", "allow_partial", "binary_data_output")
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_MICROSECONDS = 1e-6


class InferRequestError(FramelaneError):
    """A request for inference that is no JSON of that protocol, or asks for what this model does not do."""

    http_status = 400


@dataclass(frozen=True, slots=True)
class InferParameters:
    """What a request says beside its tensors; None: nothing.

    Attributes:
        camera: who took the frames.
        priority: `critical` or `normal`.
        slo_s: seconds from now until they must be finished.
        allow_partial: whether frames that finished are answered although others did not.
        is_binary: whether outputs that do not say it themselves are answered as binary.
    """

    camera: str | None = None
    priority: str | None = None
    slo_s: float | None = None
    allow_partial: bool = False
    is_binary: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class InputTensor:
    """One input, decoded; attributes as in `Tensor`, and whether it came as binary."""

    name: str
    datatype: str
    values: Array
    is_binary: bool


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output: its name, and whether as binary."""

    name: str
    is_binary: bool


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """A checked request.

    Attributes:
        request_id: the caller's own name for it; empty if there is none.
        inputs: as sent.
        outputs: in the order in which they are wanted; None: all.
        parameters: see there.
    """

    request_id: str
    inputs: tuple[InputTensor, ...]
    outputs: tuple[RequestedOutput, ...] | None
    parameters: InferParameters = field(default_factory=InferParameters)


def json_cost_bytes(data: bytes) -> int:
    """What reading this JSON takes at most, in bytes: a body of brackets grows twentyfold. Never below the truth."""
    # Python keeps a text that has one character beyond 16 bits in 32 bits a character: the document, and its texts.
    is_narrow = data.isascii() and b"\\u" not in data
    return (
        (2 if is_narrow else 8) * len(data)
        + _VALUE_BYTES * (data.count(b",") + data.count(b'"'))
        + _LIST_BYTES * data.count(b"[")
        + _OBJECT_BYTES * data.count(b"{")
    )


def json_length(body: bytes, header: int | None) -> int:
    """Where the JSON of a body ends. Raises `InferRequestError`.

    Args:
        body: all of it.
        header: what `Inference-Header-Content-Length` says; None: there is none, and all is JSON.
    """
    if header is None:
        return len(body)
    if not 0 <= header <= len(body):
        raise InferRequestError(
            f"Inference-Header-Content-Length: got {_told(header)}, allowed is a number of bytes of the body, up to "
            f"{len(body)}"
        )
    return header


def read_request(body: bytes, num_json: int, max_images: int, outputs: Collection[str]) -> InferRequest:
    """Read a body.

    Args:
        body: all of it, unpacked.
        num_json: where its JSON ends, by `json_length`; 0: there is none, and the body is one encoded image.
        max_images: how many elements the first axis of an input may have.
        outputs: the names that may be asked for.

    Raises:
        InferRequestError, TensorError: the message says where.
    """
    if num_json == 0 and body:
        values = from_binary(ENCODED_IMAGES, BYTES, (1,), memoryview(len(body).to_bytes(4, "little") + body))
        return InferRequest("", (InputTensor(ENCODED_IMAGES, BYTES, values, is_binary=True),), None)
    document = _known_keys("request", _read_json(body[:num_json]), _REQUEST_KEYS)
    parameters = read_parameters(_known_keys("parameters", document.get("parameters", {}), None))
    return InferRequest(
        _text("id", document.get("id", "")),
        _read_inputs(document.get("inputs"), memoryview(body)[num_json:], max_images),
        _read_outputs(document.get("outputs"), parameters, outputs),
        parameters,
    )


def read_parameters(values: Mapping[str, Any]) -> InferParameters:
    """The parameters of a request. Raises `InferRequestError` for one that is unknown, of another type or twofold."""
    for name in values:
        if name in _SEQUENCE:
            raise InferRequestError(
                f"parameters.{name[:20]}: got a sequence, allowed are single requests: no state is kept"
            )
        if name not in _PARAMETERS:
            raise _unknown("parameters", name, _PARAMETERS)
    camera = values.get("camera")
    priority = values.get("priority")
    timeout, slo_s = (_number(name, values.get(name)) for name in ("timeout", "slo_s"))
    if timeout is not None and slo_s is not None:
        raise InferRequestError("parameters: got timeout and slo_s, allowed is one: they say the same, in µs and in s")
    if timeout is not None:
        slo_s = timeout * _MICROSECONDS
    return InferParameters(
        None if camera is None else _text("parameters.camera", camera),
        None if priority is None else priority_of(priority),
        slo_s,
        _switch("allow_partial", values.get("allow_partial", False)),
        _switch("binary_data_output", values.get("binary_data_output", False)),
    )


def priority_of(value: object) -> str:
    """The name of a priority: of the protocol's numbers 1 is the highest, 0 means the default."""
    if type(value) is int and 0 <= value < 2**64:
        return "critical" if value == 1 else "normal"
    for priority in Priority:
        if value == priority.value:
            return priority.value
    raise InferRequestError(
        f"parameters.priority: got {_told(value)}, allowed are 'critical', 'normal', 1 (the highest), 0 and more"
    )


def _read_json(data: bytes) -> Any:
    num_values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if num_values > MAX_JSON_VALUES:
        raise InferRequestError(
            f"body: got JSON of {num_values:,} values, allowed are {MAX_JSON_VALUES:,}; send tensors as binary "
            "data, or encoded images"
        )
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as err:
        raise InferRequestError(f"body: got {len(data)} bytes that are no JSON ({_told(str(err))})") from err


def _read_inputs(specs: object, tail: memoryview, max_images: int) -> tuple[InputTensor, ...]:
    if not isinstance(specs, list) or not 1 <= len(specs) <= max_images:
        raise InferRequestError(f"inputs: got {_told(specs)}, allowed is a list of at least one tensor")
    inputs, offset = [], 0
    for index, raw in enumerate(specs):
        where = f"inputs[{index}]"
        spec = _known_keys(where, raw, _INPUT_KEYS)
        name, datatype = _text(f"{where}.name", spec.get("name")), _text(f"{where}.datatype", spec.get("datatype"))
        shape = check_shape(where, spec.get("shape"))
        if not shape or shape[0] > max_images:
            raise InferRequestError(
                f"{where}.shape: got {list(shape)}, allowed are up to {max_images} images in a request, the first axis"
            )
        size = _binary_size(where, _known_keys(f"{where}.parameters", spec.get("parameters", {}), None))
        if size is None:
            values = from_json(where, datatype, shape, spec.get("data"))
        else:
            if "data" in spec:
                raise InferRequestError(f"{where}: got data and binary_data_size, allowed is one of them")
            if size > len(tail) - offset:
                raise InferRequestError(
                    f"{where}.parameters.binary_data_size: got {_told(size)}, allowed are the {len(tail) - offset} "
                    "bytes that are left behind the JSON; is Inference-Header-Content-Length right?"
                )
            values = from_binary(where, datatype, shape, tail[offset : offset + size])
            offset += size
        inputs.append(InputTensor(name, datatype, values, is_binary=size is not None))
    if offset != len(tail):
        raise InferRequestError(
            f"body: got {len(tail) - offset} bytes behind the JSON that no binary_data_size claims, allowed is none"
        )
    return tuple(inputs)


def _binary_size(where: str, parameters: Mapping[str, Any]) -> int | None:
    for name in parameters:
        if name.startswith("shared_memory"):
            raise InferRequestError(f"{where}: got shared memory, allowed is data in the request; set data instead")
        if name not in ("binary_data_size", "content_type"):
            raise _unknown(f"{where}.parameters", name, ("binary_data_size", "content_type"))
    if parameters.get("content_type", "base64") != "base64":
        raise InferRequestError(
            f"{where}.parameters.content_type: got {_told(parameters['content_type'])}, allowed is 'base64'"
        )
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise InferRequestError(f"{where}.parameters.binary_data_size: got {_told(size)}, allowed is a number of bytes")
    return size


def _read_outputs(
    specs: object, parameters: InferParameters, allowed: Collection[str]
) -> tuple[RequestedOutput, ...] | None:
    if specs is None or specs == []:
        return None
    if not isinstance(specs, list) or len(specs) > len(allowed):
        raise InferRequestError(f"outputs: got {_told(specs)}, allowed is a list of some of {', '.join(allowed)}")
    outputs: list[RequestedOutput] = []
    for index, raw in enumerate(specs):
        where = f"outputs[{index}]"
        spec = _known_keys(where, raw, _OUTPUT_KEYS)
        name = _text(f"{where}.name", spec.get("name"))
        if name not in allowed:
            raise _unknown(where, name, allowed)
        if any(name == output.name for output in outputs):
            raise InferRequestError(f"{where}.name: got {name} a second time, allowed is once")
        asked = _known_keys(f"{where}.parameters", spec.get("parameters", {}), None)
        for key in asked:
            if key != "binary_data":
                raise _unknown(f"{where}.parameters", key, ("binary_data",))
        outputs.append(RequestedOutput(name, _switch("binary_data", asked.get("binary_data", parameters.is_binary))))
    return tuple(outputs)


def _known_keys(where: str, value: object, allowed: Collection[str] | None) -> dict[str, Any]:
    """A JSON object with no other keys than these; None: any."""
    if not isinstance(value, dict):
        raise InferRequestError(f"{where}: got {_told(value)}, allowed is an object")
    for key in value:
        if allowed is not None and key not in allowed:
            raise _unknown(where, key, allowed)
    return value


def _text(where: str, value: object) -> str:
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            return value
    raise InferRequestError(f"{where}: got {_told(value)}, allowed is a text of up to {MAX_TEXT} characters")


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 2**63:
        return float(value)
    raise InferRequestError(f"parameters.{name}: got {_told(value)}, allowed is a number above 0")


def _switch(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise InferRequestError(f"parameters.{name}: got {_told(value)}, allowed are true and false")


def _unknown(where: str, key: str, allowed: Collection[str]) -> InferRequestError:
    near = difflib.get_close_matches(key[:MAX_TEXT], list(allowed), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return InferRequestError(f"{where}: got {_told(key)}, allowed are {', '.join(allowed)}{hint}")


def _told(value: object) -> str:
    """A value of the caller's, as ASCII, quoted so far and no further."""
    if isinstance(value, (list, dict)):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 2**64:
        return "a huge number"
    told = ascii(value[:MAX_TEXT] if isinstance(value, str) else value)
    return told if len(told) <= 80 else f"{told[:80]}…"
