"""Rewriting an FP32 detector so that it computes in FP16, with every tensor's type written in the graph.

TensorRT takes its precision from these types and changes none. FP32 stays where 11 significant bits are too few: in
the box decoding, in sums over many elements, in what is computed from sizes, and at weights that FP16 cannot hold.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from engines.errors import UnsupportedModelError

# Operators that only move values: what goes in comes out, so they need no more bits than their input has.
MOVING = frozenset({
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
# Operators that are sound in FP16, inputs permitting. All others stay FP32: sums over many elements (ReduceMean,
# GlobalAveragePool, Softmax, the normalisations), what leaves the range quickly (Exp, Pow), and what nobody tried.
COMPUTING = frozenset({
    "Add", "AveragePool", "Clip", "Conv", "ConvTranspose", "Div", "Elu", "Gelu", "Gemm", "HardSigmoid", "HardSwish",
    "LeakyRelu", "MatMul", "Max", "MaxPool", "Min", "Mish", "Mul", "Neg", "PRelu", "Pad", "ReduceMax", "ReduceMin",
    "Relu", "Resize", "Selu", "Sigmoid", "Softplus", "Sub", "Tanh", "Upsample", "Where",
})  # fmt: skip
# The ones that are worth it.
MULTIPLYING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Of these only the first input has the type of the output; scales and regions are FP32 by definition.
FIRST_INPUT_ONLY = frozenset({"Resize", "Upsample"})
# What these answer depends on the size of their input, not on its values.
SIZE_ONLY = frozenset({"Shape", "Size"})
# Integers that FP16 holds exactly.
SMALL_INTEGERS = frozenset({TensorProto.UINT8, TensorProto.INT8, TensorProto.BOOL})
# Rounding to 11 bits costs a number at most 2^-11 of itself. Weights that lose more than twice that, taken together,
# lie below FP16's normal range (6.1e-5), where ever fewer bits are left.
MAX_WEIGHT_LOSS = 2.0**-10
# The FP16 form of a tensor is called like the FP32 one and this.
SUFFIX = "_framelane_fp16"

_log = logging.getLogger(__name__)

DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let the network up to the raw maps of its head compute in FP16; returns a new model.

    Types of inputs and outputs stay. The box decoding, which is all that lies behind the last convolutions, stays
    FP32: px beyond 2048 have no resolution of 1 px in FP16.

    Args:
        model: an FP32 detector with the input of `engines.graph.to_uint8_nhwc`.

    Raises:
        UnsupportedModelError: there is nothing to compute in FP16, or the graph has branches or operators of unknown
            type.
    """
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    graph = rewritten.graph
    _refuse_subgraphs(graph)
    _constants_to_initializers(graph)
    network = _Network.of(rewritten)
    halved = network.halved()
    if not any(network.nodes[index].op_type in MULTIPLYING for index in halved):
        raise UnsupportedModelError(
            "precision fp16: got a network of which no convolution can compute in FP16 (none stands before its box "
            "decoding, or FP16 cannot hold its weights), allowed are convolutional detectors; set precision: fp32"
        )
    kept = network.kept_for_weights(halved)
    if kept:
        _log.warning(
            "precision fp16: %d operators stay FP32, for FP16 cannot hold their constants; the first is %s %s",
            len(kept), kept[0].op_type, kept[0].name,
        )  # fmt: skip
    _rewrite(graph, network, halved)
    del graph.value_info[:]  # types and shapes of the old tensors
    onnx.checker.check_model(rewritten, full_check=True)
    return rewritten


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """A graph's nodes in their order, which is topological, and what is known of its tensors.

    Attributes:
        nodes: the graph's own.
        types: element type of every tensor.
        producers: which node writes a tensor.
        constants: the FP32 initializers by name.
        input_names, output_names: of the graph.
    """

    nodes: list[NodeProto]
    types: Mapping[str, int]
    producers: Mapping[str, int]
    constants: Mapping[str, npt.NDArray[np.float32]]
    input_names: frozenset[str]
    output_names: frozenset[str]

    @staticmethod
    def of(model: onnx.ModelProto) -> _Network:
        graph = model.graph
        types = _tensor_types(model)
        return _Network(
            nodes=list(graph.node),
            types=types,
            producers={name: index for index, node in enumerate(graph.node) for name in node.output if name},
            constants={
                initializer.name: numpy_helper.to_array(initializer)
                for initializer in graph.initializer
                if initializer.data_type == TensorProto.FLOAT
            },
            input_names=frozenset(value.name for value in graph.input),
            output_names=frozenset(value.name for value in graph.output),
        )

    def halved(self) -> frozenset[int]:
        """Which nodes compute in FP16, by index."""
        decoding = self._decoding()
        halved: set[int] = set()
        for index in self._on_pixels():
            node = self.nodes[index]
            if index in decoding:
                # The decoding's border is where bits begin to count, so the casts come behind what only moves values.
                inputs = self._float_inputs(node).values()
                if node.op_type in MOVING and inputs and all(self.producers.get(name) in halved for name in inputs):
                    halved.add(index)
            elif self._can_halve(node):
                halved.add(index)
        return frozenset(halved)

    def kept_for_weights(self, halved: AbstractSet[int]) -> list[NodeProto]:
        """The nodes that FP16 would suit but for their constants."""
        decoding = self._decoding()
        rest = [self.nodes[index] for index in self._on_pixels() if index not in decoding and index not in halved]
        return [node for node in rest if node.op_type in COMPUTING | MOVING and node.domain in DEFAULT_DOMAINS]

    def half_inputs(self, index: int, halved: AbstractSet[int]) -> frozenset[int]:
        """At which positions a node reads FP16 when the nodes `halved` compute in it."""
        node = self.nodes[index]
        if index in halved:
            return frozenset(self._float_inputs(node))
        if node.op_type in SIZE_ONLY and self.producers.get(node.input[0]) in halved:
            return frozenset(self._float_inputs(node))  # of any type: no cast only to ask for a size
        return frozenset()

    def _float_inputs(self, node: NodeProto) -> dict[int, str]:
        """The inputs by position whose type goes with that of the node's output."""
        names = node.input[:1] if node.op_type in FIRST_INPUT_ONLY else node.input
        return {place: name for place, name in enumerate(names) if self.types.get(name) == TensorProto.FLOAT}

    def _can_halve(self, node: NodeProto) -> bool:
        if node.domain not in DEFAULT_DOMAINS:
            return False
        if node.op_type == "Cast":
            return self.types[node.input[0]] in SMALL_INTEGERS and self.types[node.output[0]] == TensorProto.FLOAT
        if node.op_type not in MOVING and node.op_type not in COMPUTING:
            return False
        return all(_fits(self.constants[name]) for name in self._float_inputs(node).values() if name in self.constants)

    def _on_pixels(self) -> list[int]:
        """Nodes whose output depends on what the frame shows, not on its size alone, in order."""
        tainted = set(self.input_names - self.constants.keys())
        found = []
        for index, node in enumerate(self.nodes):
            if node.op_type not in SIZE_ONLY and not tainted.isdisjoint(node.input):
                found.append(index)
                tainted.update(node.output)
        return found

    def _decoding(self) -> frozenset[int]:
        """The nodes between the head's last convolutions and the outputs: the walk back from there ends at both."""
        reached: set[int] = set()
        waiting = list(self.output_names)
        while waiting:
            index = self.producers.get(waiting.pop())
            if index is None or index in reached:
                continue
            node = self.nodes[index]
            is_learnt = node.op_type in ("Conv", "ConvTranspose") and not self._is_expectation(node)
            if is_learnt or node.op_type in SIZE_ONLY:
                continue
            reached.add(index)
            waiting += node.input
        return frozenset(reached)

    def _is_expectation(self, conv: NodeProto) -> bool:
        """Whether a convolution weighs the bins of a softmax: the box decoding of YOLOv8 and its kin (DFL)."""
        source = self.producers.get(conv.input[0])
        while source is not None and self.nodes[source].op_type in MOVING:
            source = self.producers.get(self.nodes[source].input[0])
        return source is not None and self.nodes[source].op_type == "Softmax"


def _fits(values: npt.NDArray[np.float32]) -> bool:
    """Whether FP16 holds these weights: none overflows, and together they lose no more than rounding takes."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = values.astype(np.float16).astype(np.float64)
    if not np.array_equal(np.isfinite(rounded), np.isfinite(values)):
        return False
    finite = np.isfinite(values)
    loss = np.linalg.norm((values - rounded)[finite])
    return bool(loss <= MAX_WEIGHT_LOSS * np.linalg.norm(values[finite].astype(np.float64)))


def _rewrite(graph: GraphProto, network: _Network, halved: frozenset[int]) -> None:
    """Give the nodes `halved` FP16 tensors, with one cast for each tensor that is wanted in the other type too."""
    wanted_half: set[str] = set()
    wanted_full = set(network.output_names)
    for index, node in enumerate(network.nodes):
        taken = network.half_inputs(index, halved)
        for position, name in enumerate(node.input):
            if position in taken:
                wanted_half.add(name)
                node.input[position] = name + SUFFIX
            else:
                wanted_full.add(name)
    casts_in = [_cast(name, to_half=True) for name in sorted(wanted_half & network.input_names)]
    ordered = casts_in
    for index, node in enumerate(network.nodes):
        is_half = index in halved
        written = [name for name in node.output if network.types.get(name) == TensorProto.FLOAT]
        if is_half:
            _write_half(node, written)
        ordered.append(node)
        other = wanted_full if is_half else wanted_half
        ordered += [_cast(name, to_half=not is_half) for name in written if name in other]
    kept = GraphProto(node=ordered)
    del graph.node[:]
    graph.node.extend(kept.node)
    _store_constants(graph, network, wanted_half, wanted_full)


def _write_half(node: NodeProto, written: Iterable[str]) -> None:
    """Let a node write FP16."""
    for position, name in enumerate(node.output):
        if name in written:
            node.output[position] = name + SUFFIX
    if node.op_type == "Cast":
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("to", TensorProto.FLOAT16))


def _cast(name: str, *, to_half: bool) -> NodeProto:
    source, target = (name, name + SUFFIX) if to_half else (name + SUFFIX, name)
    wanted = TensorProto.FLOAT16 if to_half else TensorProto.FLOAT
    return helper.make_node("Cast", [source], [target], f"{target}_cast", to=wanted)


def _store_constants(graph: GraphProto, network: _Network, wanted_half: set[str], wanted_full: set[str]) -> None:
    """Keep each constant in the types that it is used in: FP16, FP32, both, or not at all."""
    for name in sorted(wanted_half & network.constants.keys()):
        graph.initializer.append(numpy_helper.from_array(network.constants[name].astype(np.float16), name + SUFFIX))
    unused = network.constants.keys() - wanted_full
    kept = GraphProto(initializer=[constant for constant in graph.initializer if constant.name not in unused])
    del graph.initializer[:]
    graph.initializer.extend(kept.initializer)


def _constants_to_initializers(graph: GraphProto) -> None:
    """Write all constants in one way: as initializers that are no inputs, read without an Identity between."""
    constants = {initializer.name for initializer in graph.initializer}
    output_names = {value.name for value in graph.output}
    sources: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = sources.get(name, name)
        value = _constant_value(node)
        if value is not None:
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
            constants.add(node.output[0])
        elif node.op_type == "Identity" and node.input[0] in constants and node.output[0] not in output_names:
            sources[node.output[0]] = node.input[0]  # how exporters write weights that happen to be equal
        else:
            nodes.append(node)
    kept = GraphProto(node=nodes, input=[value for value in graph.input if value.name not in constants])
    del graph.node[:]
    del graph.input[:]
    graph.node.extend(kept.node)
    graph.input.extend(kept.input)


def _constant_value(node: NodeProto) -> npt.NDArray[np.generic] | None:
    """The value of a Constant node; None for other nodes, and for strings and sparse tensors, which are left alone."""
    if node.op_type != "Constant" or node.domain not in DEFAULT_DOMAINS:
        return None
    (attribute,) = node.attribute
    if attribute.type == AttributeProto.TENSOR:
        return numpy_helper.to_array(attribute.t)
    if attribute.type in (AttributeProto.FLOAT, AttributeProto.FLOATS):
        return np.array(helper.get_attribute_value(attribute), np.float32)
    if attribute.type in (AttributeProto.INT, AttributeProto.INTS):
        return np.array(helper.get_attribute_value(attribute), np.int64)
    return None


def _tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor; raises `UnsupportedModelError` where inference knows none."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {initializer.name: initializer.data_type for initializer in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    for node in graph.node:
        unknown = [name for name in node.output if name and not types.get(name)]
        if unknown:
            raise UnsupportedModelError(
                f"precision fp16: got an operator {node.domain or 'ai.onnx'}.{node.op_type} whose output {unknown[0]} "
                "is of unknown type, allowed are ONNX's own operators on tensors; set precision: fp32"
            )
    return types


def _refuse_subgraphs(graph: GraphProto) -> None:
    for node in graph.node:
        if any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute):
            raise UnsupportedModelError(
                f"precision fp16: got a graph with a branch or loop ({node.op_type} {node.name or 'without name'}), "
                "allowed is a plain sequence of operators; export it again with framelane export, or set "
                "precision: fp32"
            )
