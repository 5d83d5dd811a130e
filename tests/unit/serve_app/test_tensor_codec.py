"""Tensors come back as they were sent, or are refused in words; never by an error of numpy's or of the JSON's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app.http.tensor_codec import (
    DATATYPES,
    Tensor,
    TensorError,
    check_shape,
    from_binary,
    from_json,
    to_binary,
    to_json,
)

DTYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
    "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


def as_objects(elements, shape):
    """An array of BYTES."""
    values = np.empty(len(elements), object)
    values[:] = elements
    return values.reshape(shape)


@st.composite
def tensors(draw, *, as_text=False):
    """A tensor of any datatype and shape; as text, of those that JSON can hold."""
    datatype = draw(st.sampled_from([name for name in DATATYPES if not (as_text and name == "FP16")]))
    shape = draw(SHAPES)
    if datatype == "BYTES":
        element = st.text(max_size=9).map(str.encode) if as_text else st.binary(max_size=9)
        elements = draw(st.lists(element, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        return Tensor("t", datatype, as_objects(elements, shape))
    numbers = {"allow_nan": False, "allow_infinity": False} if datatype.startswith("FP") else {}
    return Tensor("t", datatype, draw(hnp.arrays(DTYPES[datatype], shape, elements=numbers or None)))


def assert_same(values, tensor):
    """The same dtype, shape and elements."""
    assert (values.dtype.newbyteorder("="), values.shape) == (tensor.values.dtype, tensor.values.shape)
    np.testing.assert_array_equal(values, tensor.values)


@given(tensors())
def test_binary_comes_back_as_it_was(tensor):
    """Every datatype and shape, empty ones included."""
    data = memoryview(to_binary(tensor))
    assert_same(from_binary("t", tensor.datatype, tensor.values.shape, data), tensor)


@given(tensors(as_text=True), st.booleans())
def test_json_comes_back_as_it_was(tensor, is_nested):
    """Flat or nested, through real JSON."""
    flat = json.loads(json.dumps(to_json(tensor)))
    data = as_objects(flat, tensor.values.shape).tolist() if is_nested else flat
    if tensor.values.size:
        assert_same(from_json("t", tensor.datatype, tensor.values.shape, data), tensor)


@given(st.sampled_from([*DATATYPES, "FP8", ""]), SHAPES, st.binary(max_size=64))
def test_any_bytes_are_a_tensor_or_an_error_of_ours(datatype, shape, data):
    """Lengths that lie, datatypes that are none."""
    try:
        values = from_binary("t", datatype, shape, memoryview(data))
    except TensorError:
        return
    assert values.shape == shape


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=20,
)


@given(st.sampled_from([*DATATYPES, "FP8"]), JSON_VALUES, JSON_VALUES)
def test_any_json_is_a_tensor_or_an_error_of_ours(datatype, shape, data):
    """Ragged lists, numbers that do not fit, texts among numbers, objects."""
    try:
        sides = check_shape("t", shape)
        values = from_json("t", datatype, sides, data)
    except TensorError:
        return
    assert values.shape == sides


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("UINT8", [2], [1, 256], "no UINT8"),
        ("UINT8", [2], [1, -1], "no UINT8"),
        ("UINT8", [2], [1, 0.5], "no UINT8"),
        ("UINT8", [2], [1, "2"], "no UINT8"),
        ("UINT8", [2], [1], r"got 1 elements, allowed are 2 for shape \[2\]"),
        ("UINT8", [2, 2], [[1, 2, 3], [4]], "not nested as its shape"),
        ("UINT8", [2, 2], [[1, 2], "34"], "not nested as its shape"),
        ("UINT8", [2], "12", "allowed is a list"),
        ("BYTES", [1], [7], "allowed are texts"),
        ("BYTES", [1], ["\ud800"], "lone surrogate"),
        ("FP16", [1], [1.0], "allowed is its binary form"),
        ("FLOAT", [1], [1.0], "allowed are BOOL, UINT8"),
    ],
)
def test_json_that_does_not_add_up_is_refused_in_words(datatype, shape, data, message):
    """The message says what was got and what is allowed."""
    with pytest.raises(TensorError, match=message):
        from_json("inputs[0]", datatype, check_shape("inputs[0]", shape), data)


@pytest.mark.parametrize(
    "shape", [[-1], [True], [1.0], "1", {"0": 1}, None, [2**62] * 2, [0, 2**61], [1] * 17], ids=str
)
def test_a_shape_is_a_list_of_whole_numbers(shape):
    """And no larger than any body, even where another side is 0."""
    with pytest.raises(TensorError, match=r"t\.shape: got"):
        check_shape("t", shape)


def test_lengths_of_bytes_must_use_up_the_data():
    """An element that reaches beyond the end, and bytes behind the last one."""
    for data, message in (
        (b"\xff\xff\xff\xffabc", "element 0 that ends at byte 4294967299 of 7"),
        (b"\x01\x00\x00\x00abc", "got 2 bytes behind its 1 elements"),
        (b"abc", "which have 4 or more each"),
    ):
        with pytest.raises(TensorError, match=message):
            from_binary("t", "BYTES", (1,), memoryview(data))


def test_numbers_are_a_view_of_the_body():
    """A batch of raw images costs no second buffer."""
    body = bytes(range(12))
    assert np.shares_memory(from_binary("t", "UINT8", (3, 4), memoryview(body)), np.frombuffer(body, np.uint8))
