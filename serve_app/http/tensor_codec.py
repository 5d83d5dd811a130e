"""Tensors of the Open Inference Protocol v2, from JSON or the binary extension to numpy and back; pure.

Nothing is allocated for a shape before the data that it speaks of is there: memory is bounded by the bytes that came.
Binary tensors are little-endian and row-major; an element of BYTES is its length in four bytes, then itself.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.errors import FramelaneError

BYTES = "BYTES"
# Name in the protocol → element in binary, and the array type whose checks its JSON numbers pass ("" for none).
_ELEMENTS: dict[str, tuple[np.dtype[Any], str]] = {
    "BOOL": (np.dtype(np.bool_), "B"),
    "UINT8": (np.dtype("<u1"), "B"),
    "UINT16": (np.dtype("<u2"), "H"),
    "UINT32": (np.dtype("<u4"), "I"),
    "UINT64": (np.dtype("<u8"), "Q"),
    "INT8": (np.dtype("<i1"), "b"),
    "INT16": (np.dtype("<i2"), "h"),
    "INT32": (np.dtype("<i4"), "i"),
    "INT64": (np.dtype("<i8"), "q"),
    "FP16": (np.dtype("<f2"), ""),
    "FP32": (np.dtype("<f4"), "f"),
    "FP64": (np.dtype("<f8"), "d"),
}
DATATYPES = (*_ELEMENTS, BYTES)
# numpy's own are 64; an image batch has four.
MAX_AXES = 16
# What no body holds; keeps numpy's own arithmetic of sizes within its bounds.
MAX_ELEMENTS = 2**40
_LENGTH = struct.Struct("<I")

Array = npt.NDArray[Any]


class TensorError(FramelaneError):
    """A tensor whose datatype, shape and data contradict each other, or that is none."""

    http_status = 400


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A named array.

    Attributes:
        name: as the protocol calls it.
        datatype: one of `DATATYPES`.
        values: of that datatype's dtype; for BYTES an object array of `bytes`.
    """

    name: str
    datatype: str
    values: Array


def check_shape(name: str, shape: object) -> tuple[int, ...]:
    """The shape of a tensor, as JSON gave it. Raises `TensorError` unless it is a list of whole numbers from 0 on."""
    sides = tuple(shape) if isinstance(shape, list) else None
    if sides is None or len(sides) > MAX_AXES or not all(type(side) is int and side >= 0 for side in sides):
        raise TensorError(
            f"{name}.shape: got {_told(shape)}, allowed is a list of up to {MAX_AXES} whole numbers from 0 on"
        )
    if math.prod(side or 1 for side in sides) > MAX_ELEMENTS:
        raise TensorError(f"{name}.shape: got {_told(shape)}, allowed are up to {MAX_ELEMENTS:,} elements")
    return sides


def from_binary(name: str, datatype: str, shape: tuple[int, ...], data: memoryview) -> Array:
    """A tensor of the binary extension.

    Args:
        name: how errors call it.
        datatype: one of `DATATYPES`.
        shape: checked by `check_shape`.
        data: exactly its bytes.

    Returns:
        Of this shape; for all but BYTES and BOOL a read-only view of `data`.

    Raises:
        TensorError: an unknown datatype, or other bytes than the shape needs.
    """
    count = math.prod(shape)
    if datatype == BYTES:
        return _objects(_split(name, count, data), shape)
    dtype, _ = _element(name, datatype)
    if count * dtype.itemsize != len(data):
        raise TensorError(
            f"{name}: got {len(data)} bytes of binary data, allowed are {count * dtype.itemsize} for {datatype} of "
            f"shape {list(shape)}"
        )
    if datatype == "BOOL":
        return np.not_equal(np.frombuffer(data, np.uint8), 0).reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape)


def from_json(name: str, datatype: str, shape: tuple[int, ...], data: object) -> Array:
    """A tensor whose `data` stands in the JSON, flat in row-major order or nested as its shape is.

    Text elements of BYTES become their UTF-8. Arguments, result and errors as for `from_binary`.
    """
    flat = _flat(name, shape, data)
    if datatype == BYTES:
        if set(map(type, flat)) - {str}:
            raise TensorError(f"{name}.data: got something else than texts, allowed are texts for {BYTES}")
        try:
            return _objects([text.encode() for text in flat], shape)
        except UnicodeEncodeError as err:
            raise TensorError(f"{name}.data: got text with a lone surrogate, allowed is valid Unicode") from err
    dtype, typecode = _element(name, datatype)
    if not typecode:
        raise TensorError(f"{name}: got {datatype} as JSON, allowed is its binary form")
    try:
        values = np.asarray(array(typecode, flat))
    except (TypeError, OverflowError, ValueError) as err:
        raise TensorError(f"{name}.data: got a value that is no {datatype} ({err})") from err
    return values.astype(dtype, copy=False).reshape(shape)


def to_binary(tensor: Tensor) -> bytes:
    """The bytes of a tensor in the binary extension."""
    if tensor.datatype == BYTES:
        return b"".join(_LENGTH.pack(len(element)) + element for element in tensor.values.flat)
    dtype, _ = _ELEMENTS[tensor.datatype]
    return tensor.values.astype(dtype, copy=False).tobytes()


def to_json(tensor: Tensor) -> list[Any]:
    """The `data` of a tensor in JSON: flat, row-major; elements of BYTES must be UTF-8."""
    if tensor.datatype == BYTES:
        return [element.decode() for element in tensor.values.flat]
    values: list[Any] = tensor.values.ravel().tolist()
    return values


def texts(values: Sequence[str], shape: tuple[int, ...]) -> Array:
    """Texts as an array of BYTES."""
    return _objects([value.encode() for value in values], shape)


def _element(name: str, datatype: str) -> tuple[np.dtype[Any], str]:
    element = _ELEMENTS.get(datatype)
    if element is None:
        raise TensorError(f"{name}.datatype: got {_told(datatype)}, allowed are {', '.join(DATATYPES)}")
    return element


def _split(name: str, count: int, data: memoryview) -> list[bytes]:
    """The elements of a BYTES tensor; their lengths must use up the data exactly."""
    if count * _LENGTH.size > len(data):
        raise TensorError(
            f"{name}: got {len(data)} bytes of binary data for {count} elements, which have 4 or more each"
        )
    elements, offset = [], 0
    for index in range(count):
        start = offset + _LENGTH.size
        end = start + _LENGTH.unpack_from(data, offset)[0] if start <= len(data) else start
        if end > len(data):
            raise TensorError(
                f"{name}: got element {index} that ends at byte {end} of {len(data)}; each is its length (4 bytes, "
                "little-endian) and then itself"
            )
        elements.append(bytes(data[start:end]))
        offset = end
    if offset != len(data):
        raise TensorError(f"{name}: got {len(data) - offset} bytes behind its {count} elements, allowed is none")
    return elements


def _flat(name: str, shape: tuple[int, ...], data: object) -> list[Any]:
    """The elements in row-major order, all loops in C: this may be millions of them."""
    if not isinstance(data, list):
        raise TensorError(f"{name}.data: got {_told(data)}, allowed is a list")
    level: list[Any] = data
    if data and isinstance(data[0], list):
        level = [data]
        for side in shape:
            if set(map(type, level)) - {list} or set(map(len, level)) - {side}:
                raise TensorError(
                    f"{name}.data: is not nested as its shape {list(shape)} says; send it flat, or so nested"
                )
            level = list(chain.from_iterable(level))
    if len(level) != math.prod(shape):
        raise TensorError(
            f"{name}.data: got {len(level)} elements, allowed are {math.prod(shape)} for shape {list(shape)}"
        )
    return level


def _objects(elements: Sequence[bytes], shape: tuple[int, ...]) -> Array:
    values = np.empty(len(elements), object)
    values[:] = elements
    return values.reshape(shape)


def _told(value: object) -> str:
    """A value of the caller's, quoted so far and no further."""
    told = repr(value) if not isinstance(value, (list, dict, str)) or len(value) <= MAX_AXES else type(value).__name__
    return told if len(told) <= 80 else f"{told[:80]}…"
