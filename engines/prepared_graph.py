"""From a model file to the ONNX graph that an engine is built from: camera bytes in, FP32 boxes out."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from engines.engine_spec import Precision
from engines.errors import UnsupportedModelError
from engines.fp16 import MOVING, to_fp16
from engines.graph import load_model, read_info, to_uint8_nhwc
from engines.spec import ModelInfo

# Operators of graphs that compute in 8 bits.
QUANTIZED_OPERATORS = frozenset({
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
    "QuantizeLinear",
})  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class PreparedGraph:
    """A graph that is ready to be built or run.

    Attributes:
        onnx_bytes: the graph; its input is uint8 NHWC, its output FP32.
        info: what the model says of itself.
        sha256: of `onnx_bytes`, in hexadecimal; the same file gives the same one.
        weights_bytes: bytes of its weights.
    """

    onnx_bytes: bytes
    info: ModelInfo
    sha256: str
    weights_bytes: int


def prepared_onnx(model_path: Path, precision: Precision) -> PreparedGraph:
    """Read a detector and rewrite it for a precision.

    A graph that computes in FP16 already is taken as it is where FP16 is asked.

    Raises:
        ModelFileError: missing or not ONNX.
        UnsupportedModelError: no detector, or one that does not compute, or cannot be made to, in this precision.
    """
    model = load_model(model_path)
    info = read_info(model, model_path.name)
    graph = _with_cast_first(to_uint8_nhwc(model))
    if precision is not Precision.AS_IS:
        graph = _in_precision(graph, precision, model_path.name)
    graph = _with_float_output(graph)
    onnx_bytes = graph.SerializeToString(deterministic=True)
    return PreparedGraph(
        onnx_bytes=onnx_bytes,
        info=info,
        sha256=hashlib.sha256(onnx_bytes).hexdigest(),
        weights_bytes=sum(_size_bytes(initializer) for initializer in graph.graph.initializer),
    )


def _in_precision(model: onnx.ModelProto, precision: Precision, name: str) -> onnx.ModelProto:
    quantized = sorted({node.op_type for node in model.graph.node} & QUANTIZED_OPERATORS)
    if quantized:
        raise UnsupportedModelError(
            f"model {name}: got a graph that computes in 8 bits ({', '.join(quantized)}) for precision "
            f"{precision.value}, allowed is as_is; set precision: as_is"
        )
    if not _computes_in_fp16(model):
        return to_fp16(model) if precision is Precision.FP16 else model
    if precision is Precision.FP32:
        raise UnsupportedModelError(
            f"model {name}: got a graph that computes in FP16 for precision fp32, allowed are fp16 and as_is: the bits "
            "are gone; set precision: fp16, or export it again with framelane export"
        )
    return model


def _computes_in_fp16(model: onnx.ModelProto) -> bool:
    """Whether weights or casts of the graph are FP16."""
    graph = model.graph
    if any(initializer.data_type == TensorProto.FLOAT16 for initializer in graph.initializer):
        return True
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    return any(
        (attribute.name == "to" and attribute.i == TensorProto.FLOAT16)
        or (attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT16)
        for attribute in attributes
    )


def _with_cast_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn the input's bytes into floats before anything moves them; the values are the same to the bit.

    TensorRT knows uint8 only as the input of a cast, while on a CPU single bytes are cheaper to move.
    """
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    graph = rewritten.graph
    name = graph.input[0].name
    moving: list[onnx.NodeProto] = []
    reader = _only_reader(graph, name)
    while reader is not None and reader.op_type in MOVING:
        moving.append(reader)
        reader = _only_reader(graph, reader.output[0])
    if not moving or reader is None or reader.op_type != "Cast":
        return model
    cast = onnx.NodeProto()
    cast.CopyFrom(reader)
    graph.node.remove(reader)
    moving[-1].output[0] = cast.output[0]
    cast.input[0], cast.output[0] = name, f"{name}_float"
    moving[0].input[0] = cast.output[0]
    graph.node.insert(0, cast)
    del graph.value_info[:]  # types of what was bytes
    onnx.checker.check_model(rewritten)
    return rewritten


def _only_reader(graph: onnx.GraphProto, name: str) -> onnx.NodeProto | None:
    """The node whose first input is this tensor, if no other reads it."""
    readers = [node for node in graph.node if name in node.input]
    return readers[0] if len(readers) == 1 and readers[0].input[0] == name else None


def _with_float_output(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with an output of FP32, which is what every runner reads; itself if it has one."""
    output = model.graph.output[0]
    if output.type.tensor_type.elem_type == TensorProto.FLOAT:
        return model
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    output = rewritten.graph.output[0]
    float_output = helper.make_tensor_value_info(f"{output.name}_fp32", TensorProto.FLOAT, None)
    float_output.type.tensor_type.shape.CopyFrom(output.type.tensor_type.shape)
    rewritten.graph.node.append(helper.make_node("Cast", [output.name], [float_output.name], to=TensorProto.FLOAT))
    rewritten.graph.value_info.append(output)
    output.CopyFrom(float_output)
    return rewritten


def _size_bytes(initializer: onnx.TensorProto) -> int:
    item_bytes = int(helper.tensor_dtype_to_np_dtype(initializer.data_type).itemsize)
    return item_bytes * math.prod(int(side) for side in initializer.dims)
