"""Tiny ONNX detectors whose answers can be worked out by hand; built with `onnx.helper`, so without torch.

The colour detectors answer three constant boxes; the score of box 0, 1, 2 is the mean of the frame's red, green, blue
in 0..1, and so is its class. The grid detector answers one box a cell of 32 px from random weights: its output depends
on where each pixel lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ColourModel = Callable[..., onnx.ModelProto]
SaveModel = Callable[[onnx.ModelProto], Path]

# What ORT of every supported version reads.
OPSET, IR_VERSION = 18, 10
FREE_AXES = ("batch", 3, "height", "width")
BOXES_XYXY = np.array([[4, 2, 24, 10], [30, 40, 60, 44], [8, 16, 16, 48]], np.float32)
COLOUR_METADATA = {"task": "detect", "names": "{0: 'red', 1: 'green', 2: 'blue'}", "stride": "32"}


@pytest.fixture
def boxes_xyxy():
    """The boxes of the colour detectors, in canvas px; none overlaps another."""
    return BOXES_XYXY.copy()


@pytest.fixture
def raw_model() -> ColourModel:
    """Builds the colour detector with the raw head `(N, 4 + 3, 3)`."""

    def build(metadata=COLOUR_METADATA, axes: Sequence[str | int] = FREE_AXES) -> onnx.ModelProto:
        # Column a: the box of anchor a as centre and size, then its three class scores, of which one is not 0.
        centres, sizes = (BOXES_XYXY[:, :2] + BOXES_XYXY[:, 2:]) / 2, BOXES_XYXY[:, 2:] - BOXES_XYXY[:, :2]
        offset = np.vstack([centres.T, sizes.T, np.zeros((3, 3))]).astype(np.float32)[None]
        factor = np.vstack([np.zeros((4, 3)), np.eye(3)]).astype(np.float32)[None]
        spread = np.vstack([np.zeros((4, 3)), np.eye(3)]).astype(np.float32)  # colour c into row 4 + c
        return _colour_model(factor, offset, spread, metadata, axes, output_dims=[axes[0], 7, 3])

    return build


@pytest.fixture
def end_to_end_model() -> ColourModel:
    """Builds the colour detector with the end-to-end head `(N, 3, 6)`."""

    def build(metadata=COLOUR_METADATA, axes: Sequence[str | int] = FREE_AXES) -> onnx.ModelProto:
        offset = np.hstack([BOXES_XYXY, np.zeros((3, 1)), np.arange(3)[:, None]]).astype(np.float32)[None]
        factor = np.zeros((1, 3, 6), np.float32)
        factor[..., 4] = 1
        return _colour_model(factor, offset, np.eye(3, dtype=np.float32), metadata, axes, output_dims=[axes[0], 3, 6])

    return build


@pytest.fixture
def grid_model() -> ColourModel:
    """Builds a fully convolutional detector `(N, 4 + 3, cells)` with random weights."""

    def build(metadata=COLOUR_METADATA, axes: Sequence[str | int] = FREE_AXES) -> onnx.ModelProto:
        weights = np.random.default_rng(0).normal(size=(7, 3, 32, 32)).astype(np.float32)
        nodes = [
            helper.make_node("Conv", ["images", "weights"], ["grid"], kernel_shape=[32, 32], strides=[32, 32]),
            helper.make_node("Reshape", ["grid", "flat"], ["output0"]),
        ]
        constants = {"weights": weights, "flat": np.array([0, 7, -1], np.int64)}
        return _model(nodes, constants, metadata, axes, [axes[0], 7, "anchors"])

    return build


@pytest.fixture
def classifier() -> onnx.ModelProto:
    """A sound ONNX model that is no detector: `(N, 3)`, the mean colour."""
    nodes = [helper.make_node("ReduceMean", ["images", "image_axes"], ["output0"], keepdims=0)]
    return _model(nodes, {"image_axes": np.array([2, 3], np.int64)}, {}, FREE_AXES, ["batch", 3])


@pytest.fixture
def save(tmp_path) -> SaveModel:
    """Writes a model to a file and returns its path."""

    def write(model: onnx.ModelProto) -> Path:
        path = tmp_path / "tiny.onnx"
        onnx.save_model(model, str(path))
        return path

    return write


def _colour_model(factor, offset, spread, metadata, axes, *, output_dims) -> onnx.ModelProto:
    """`spread @ mean colour`, times `factor`, plus `offset`."""
    nodes = [
        helper.make_node("ReduceMean", ["images", "image_axes"], ["colour"], keepdims=0),
        helper.make_node("Unsqueeze", ["colour", "last_axis"], ["colour_column"]),
        helper.make_node("MatMul", ["spread", "colour_column"], ["spread_colour"]),
        helper.make_node("Mul", ["spread_colour", "factor"], ["scores"]),
        helper.make_node("Add", ["scores", "offset"], ["output0"]),
    ]
    constants = {
        "image_axes": np.array([2, 3], np.int64),
        "last_axis": np.array([2], np.int64),
        "spread": spread,
        "factor": factor,
        "offset": offset,
    }
    return _model(nodes, constants, metadata, axes, output_dims)


def _model(nodes, constants, metadata, axes, output_dims) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, list(axes))],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, list(output_dims))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return model
