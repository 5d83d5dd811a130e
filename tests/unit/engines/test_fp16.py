"""The rewriting into FP16: what computes in it, what must not, and that the graph stays a sound one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.errors import UnsupportedModelError
from engines.fp16 import to_fp16
from engines.graph import INPUT_NAME, to_uint8_nhwc
from engines.onnx_library import onnxruntime

FP16, FP32 = TensorProto.FLOAT16, TensorProto.FLOAT
NUM_BINS = 16
# Sound in both types, to the bit.
SIMPLE_WEIGHTS = np.array([0.5, -0.25, 2.0], np.float32).reshape(1, 3, 1, 1)


def network(nodes, constants, *, inputs=(), outputs=("output0",), rank=4):
    """A detector of these nodes with the uint8 input; `inputs` lists further graph inputs, `rank` is the outputs'."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", FP32, ["batch", 3, "height", "width"]), *inputs],
        [helper.make_tensor_value_info(name, FP32, [f"{name}_{axis}" for axis in range(rank)]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return to_uint8_nhwc(model)


def conv(source, target, weights="weights", bias=None):
    """A convolution node that is called like its output."""
    return helper.make_node("Conv", [source, weights, *([bias] if bias else [])], [target], target)


@pytest.fixture
def dfl_model():
    """A head as YOLOv8 writes it: raw maps, softmax over bins, expectation by a 1x1 convolution, anchors, stride 4."""
    rng = np.random.default_rng(3)
    nodes = [
        conv("images", "stem", "stem_weights"),
        helper.make_node("Sigmoid", ["stem"], ["gate"], "gate"),
        helper.make_node("Mul", ["stem", "gate"], ["features"], "features"),
        conv("features", "box_map", "box_weights"),
        conv("features", "score_map", "score_weights"),
        helper.make_node("Reshape", ["box_map", "flat_boxes"], ["box_rows"], "box_rows"),
        helper.make_node("Reshape", ["score_map", "flat_scores"], ["score_rows"], "score_rows"),
        helper.make_node("Reshape", ["box_rows", "by_bin"], ["bins"], "bins"),
        helper.make_node("Transpose", ["bins"], ["bins_first"], "bins_first", perm=[0, 2, 1, 3]),
        helper.make_node("Softmax", ["bins_first"], ["shares"], "shares", axis=1),
        conv("shares", "expectation", "bin_numbers"),
        helper.make_node("Reshape", ["expectation", "four_rows"], ["distances"], "distances"),
        helper.make_node("Shape", ["features"], ["feature_size"], "feature_size"),
        helper.make_node("Gather", ["feature_size", "last_axis"], ["width"], "width"),
        helper.make_node("Cast", ["width"], ["width_fp32"], "width_fp32", to=FP32),
        helper.make_node("Range", ["zero", "width_fp32", "one"], ["columns"], "columns"),
        helper.make_node("Add", ["columns", "half"], ["anchors"], "anchors"),
        helper.make_node("Add", ["anchors", "distances"], ["corners"], "corners"),
        helper.make_node("Mul", ["corners", "stride"], ["boxes_px"], "boxes_px"),
        helper.make_node("Sigmoid", ["score_rows"], ["scores"], "scores"),
        helper.make_node("Concat", ["boxes_px", "scores"], ["output0"], "output0", axis=1),
    ]
    constants = {
        "stem_weights": rng.normal(size=(8, 3, 1, 1)).astype(np.float32),
        "box_weights": np.zeros((4 * NUM_BINS, 8, 1, 1), np.float32),
        "score_weights": rng.normal(size=(2, 8, 1, 1)).astype(np.float32),
        "bin_numbers": np.arange(NUM_BINS, dtype=np.float32).reshape(1, NUM_BINS, 1, 1),
        "flat_boxes": np.array([0, 4 * NUM_BINS, -1]),
        "flat_scores": np.array([0, 2, -1]),
        "by_bin": np.array([0, 4, NUM_BINS, -1]),
        "four_rows": np.array([0, 4, -1]),
        "last_axis": np.array(3),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
        "half": np.array(0.5, np.float32),
        "stride": np.array(4.0, np.float32),
    }
    return network(nodes, constants, rank=3)


def types(model):
    """The type that each node writes, by node name."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True).graph
    by_tensor = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    return {node.name: by_tensor[node.output[0]] for node in inferred.node}


def frames(height=2, width=3, seed=0):
    """Two random frames."""
    return np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), np.uint8)


def run(model, batch_nhwc=None):
    """All outputs for a batch."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {INPUT_NAME: frames() if batch_nhwc is None else batch_nhwc})


def num_casts(model):
    """How many Cast nodes there are."""
    return sum(node.op_type == "Cast" for node in model.graph.node)


def assert_close(reduced, full):
    """Both give the same but for the last bits of FP16."""
    for mine, theirs in zip(run(reduced), run(full), strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-3)


def test_the_network_computes_in_fp16_and_the_box_decoding_in_fp32(dfl_model):
    """Up to the raw maps FP16; softmax over bins, its expectation, anchors, strides and scores FP32."""
    found = types(to_fp16(dfl_model))
    assert {found[name] for name in ("stem", "gate", "features", "box_map", "score_map")} == {FP16}
    decoding = ("shares", "expectation", "distances", "anchors", "corners", "boxes_px", "scores", "output0")
    assert {found[name] for name in decoding} == {FP32}


def test_values_are_cast_behind_what_only_moves_them(dfl_model):
    """Reshaping the raw maps needs no more bits, so one cast each for boxes and scores stands behind it."""
    reduced = to_fp16(dfl_model)
    found = types(reduced)
    assert {found[name] for name in ("box_rows", "bins", "bins_first", "score_rows")} == {FP16}
    assert num_casts(reduced) == num_casts(dfl_model) + 2


def test_boxes_beyond_2048_px_keep_their_place(dfl_model):
    """Where the raw maps are exact in both types, so are the boxes: 4096 px wide, to the bit."""
    batch_nhwc = frames(1, 1024)
    (full,), (reduced,) = run(dfl_model, batch_nhwc), run(to_fp16(dfl_model), batch_nhwc)
    assert full[:, :4].max() > 4096
    np.testing.assert_array_equal(reduced[:, :4], full[:, :4])
    np.testing.assert_allclose(reduced[:, 4:], full[:, 4:], atol=2e-3)


def test_the_model_that_is_given_stays_as_it_is(dfl_model):
    """A new model is answered."""
    before = dfl_model.SerializeToString()
    to_fp16(dfl_model)
    assert dfl_model.SerializeToString() == before


def test_inputs_outputs_and_metadata_keep_their_types_and_names(grid_model):
    """Bytes in, FP32 out, and what the model says of itself."""
    model = to_uint8_nhwc(grid_model())
    reduced = to_fp16(model)
    assert (reduced.graph.input, reduced.graph.output) == (model.graph.input, model.graph.output)
    assert reduced.metadata_props == model.metadata_props


def test_the_tail_of_an_end_to_end_head_stays_fp32():
    """TopK and what it picks from: two scores that FP16 holds equal must not change places."""
    nodes = [
        conv("images", "map"),
        helper.make_node("Reshape", ["map", "flat"], ["rows"], "rows"),
        helper.make_node("Sigmoid", ["rows"], ["scores"], "scores"),
        helper.make_node("TopK", ["scores", "two"], ["best", "places"], "best", axis=2),
        helper.make_node("GatherElements", ["rows", "places"], ["picked"], "picked", axis=2),
        helper.make_node("Concat", ["best", "picked"], ["output0"], "output0", axis=1),
    ]
    model = network(nodes, {"weights": SIMPLE_WEIGHTS, "flat": np.array([0, 1, -1]), "two": np.array([2])}, rank=3)
    reduced = to_fp16(model)
    assert Counter(types(reduced)[name] for name in ("scores", "best", "picked", "output0")) == {FP32: 4}
    assert types(reduced)["rows"] == FP16
    assert_close(reduced, model)


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        pytest.param("GlobalAveragePool", {}, id="mean-of-a-map"),
        pytest.param("ReduceMean", {"keepdims": 1}, id="mean-of-all"),
        pytest.param("LogSoftmax", {"axis": 3}, id="softmax"),
        pytest.param("Exp", {}, id="leaves-the-range"),
    ],
)
def test_what_sums_or_leaves_the_range_stays_fp32_within_the_network(operator, attributes):
    """Between two FP16 convolutions, with one cast on each side."""
    nodes = [
        conv("images", "first"),
        helper.make_node(operator, ["first"], ["middle"], "middle", **attributes),
        conv("middle", "output0", "last_weights"),
    ]
    model = network(nodes, {"weights": SIMPLE_WEIGHTS, "last_weights": np.ones((1, 1, 1, 1), np.float32)})
    reduced = to_fp16(model)
    assert [types(reduced)[name] for name in ("first", "middle", "output0")] == [FP16, FP32, FP16]
    assert num_casts(reduced) == num_casts(model) + 3  # before, behind, and at the output
    assert_close(reduced, model)


@pytest.mark.parametrize("factor", [1e6, 1e-9], ids=["overflow", "underflow"])
def test_weights_that_fp16_cannot_hold_keep_their_node_in_fp32(factor, caplog):
    """Neither infinite nor nought: the node stays, the rest is rewritten, and the log says which it is."""
    nodes = [conv("images", "first"), conv("first", "second", "extreme"), conv("second", "output0", "back")]
    extreme, back = np.full((1, 1, 1, 1), factor, np.float32), np.full((1, 1, 1, 1), 1 / factor, np.float32)
    model = network(nodes, {"weights": SIMPLE_WEIGHTS, "extreme": extreme, "back": back})
    reduced = to_fp16(model)
    assert [types(reduced)[name] for name in ("first", "second", "output0")] == [FP16, FP32, FP32]
    assert "2 operators stay FP32" in caplog.text
    assert "Conv second" in caplog.text
    assert_close(reduced, model)


def test_a_few_weights_below_the_range_hold_nothing_back(caplog):
    """Channels that training switched off are nought in effect, beside others that count."""
    weights = np.concatenate([SIMPLE_WEIGHTS, np.full((1, 3, 1, 1), 1e-9, np.float32)])
    reduced = to_fp16(network([conv("images", "output0")], {"weights": weights}))
    assert types(reduced)["output0"] == FP16
    assert caplog.text == ""


def test_weights_that_both_types_use_exist_in_both():
    """The FP32 copy keeps all its bits: 0.1 is another number in FP16."""
    nodes = [
        conv("images", "first"),
        helper.make_node("Add", ["first", "tenth"], ["raised"], "raised"),
        conv("raised", "map", "unit"),
        helper.make_node("Sigmoid", ["map"], ["scores"], "scores"),
        helper.make_node("Add", ["scores", "tenth"], ["output0"], "output0"),
    ]
    constants = {"weights": SIMPLE_WEIGHTS, "unit": np.ones((1, 1, 1, 1), np.float32), "tenth": np.float32([0.1])}
    model = network(nodes, constants)
    reduced = to_fp16(model)
    tenths = [a for a in map(numpy_helper.to_array, reduced.graph.initializer) if np.isclose(a, 0.1, 1e-3).all()]
    assert sorted((str(a.dtype), float(a[0])) for a in tenths) == [
        ("float16", float(np.float16(0.1))),
        ("float32", float(np.float32(0.1))),
    ]
    assert_close(reduced, model)


@pytest.mark.parametrize("how", ["constant-node", "float-attribute", "identity", "input"])
def test_a_constant_may_be_written_in_any_way(how):
    """As a node, as a number in a node, behind an Identity, or as an initializer that is listed as an input."""
    nodes = [conv("images", "first"), helper.make_node("Mul", ["first", "factor"], ["second"], "second")]
    nodes += [conv("second", "output0", "unit")]
    constants = {"weights": SIMPLE_WEIGHTS, "unit": np.ones((1, 1, 1, 1), np.float32)}
    half, inputs = np.array([0.5], np.float32), []
    if how == "constant-node":
        nodes.insert(0, helper.make_node("Constant", [], ["factor"], "factor", value=numpy_helper.from_array(half)))
    elif how == "float-attribute":
        nodes.insert(0, helper.make_node("Constant", [], ["factor"], "factor", value_float=0.5))
    elif how == "identity":
        nodes.insert(0, helper.make_node("Identity", ["half"], ["factor"], "factor"))
        constants["half"] = half
    else:
        constants["factor"] = half
        inputs = [helper.make_tensor_value_info("factor", FP32, [1])]
    model = network(nodes, constants, inputs=inputs)
    reduced = to_fp16(model)
    assert [value.name for value in reduced.graph.input] == [INPUT_NAME]
    assert {types(reduced)[name] for name in ("first", "second", "output0")} == {FP16}
    assert num_casts(reduced) == num_casts(model) + 1
    assert_close(reduced, model)


def test_an_output_that_is_read_inside_too_is_cast_once():
    """The outside gets FP32 under the old name, the inside goes on in FP16."""
    nodes = [conv("images", "early"), conv("early", "output0", "unit"), conv("early", "late", "unit")]
    model = network(
        nodes,
        {"weights": SIMPLE_WEIGHTS, "unit": np.ones((1, 1, 1, 1), np.float32)},
        outputs=("output0", "early", "late"),
    )
    reduced = to_fp16(model)
    assert {types(reduced)[name] for name in ("early", "output0", "late")} == {FP16}
    assert num_casts(reduced) == num_casts(model) + 3
    assert_close(reduced, model)


def test_the_scales_of_a_resize_stay_fp32():
    """ONNX allows them no other type."""
    nodes = [
        conv("images", "first"),
        helper.make_node("Resize", ["first", "", "scales"], ["larger"], "larger", mode="nearest"),
        conv("larger", "output0", "unit"),
    ]
    constants = {"weights": SIMPLE_WEIGHTS, "unit": np.ones((1, 1, 1, 1), np.float32)}
    model = network(nodes, constants | {"scales": np.array([1, 1, 2, 2], np.float32)})
    reduced = to_fp16(model)
    assert types(reduced)["larger"] == FP16
    assert {i.name: i.data_type for i in reduced.graph.initializer}["scales"] == FP32
    assert_close(reduced, model)


def test_the_limits_of_a_clip_become_fp16_with_it():
    """They must have the type of the data."""
    nodes = [
        conv("images", "first"),
        helper.make_node("Clip", ["first", "least", "most"], ["clipped"], "clipped"),
        conv("clipped", "output0", "unit"),
    ]
    constants = {"weights": SIMPLE_WEIGHTS, "unit": np.ones((1, 1, 1, 1), np.float32)}
    model = network(nodes, constants | {"least": np.array(0, np.float32), "most": np.array(1, np.float32)})
    reduced = to_fp16(model)
    assert types(reduced)["clipped"] == FP16
    assert_close(reduced, model)


def test_a_power_stays_fp32_whatever_the_type_of_its_exponent():
    """An integer exponent is left alone."""
    nodes = [
        conv("images", "first"),
        helper.make_node("Pow", ["first", "two"], ["squared"], "squared"),
        conv("squared", "output0", "unit"),
    ]
    constants = {"weights": SIMPLE_WEIGHTS, "unit": np.ones((1, 1, 1, 1), np.float32), "two": np.array(2)}
    model = network(nodes, constants)
    reduced = to_fp16(model)
    assert types(reduced)["squared"] == FP32
    assert_close(reduced, model)


def test_sizes_that_are_computed_in_floats_stay_fp32():
    """A width of 4097 px has no place in FP16: what comes from sizes alone is left as it is."""
    nodes = [
        conv("images", "first"),
        helper.make_node("Shape", ["first"], ["size"], "size"),
        helper.make_node("Cast", ["size"], ["size_fp32"], "size_fp32", to=FP32),
        helper.make_node("Mul", ["size_fp32", "unit_factor"], ["scaled"], "scaled"),
        helper.make_node("Cast", ["scaled"], ["wanted"], "wanted", to=TensorProto.INT64),
        helper.make_node("Resize", ["first", "", "", "wanted"], ["same"], "same", mode="nearest"),
        conv("same", "output0", "unit"),
    ]
    constants = {"weights": SIMPLE_WEIGHTS, "unit": np.ones((1, 1, 1, 1), np.float32)}
    model = network(nodes, constants | {"unit_factor": np.ones(4, np.float32)})
    reduced = to_fp16(model)
    assert {types(reduced)[name] for name in ("size_fp32", "scaled")} == {FP32}
    assert num_casts(reduced) == num_casts(model) + 1  # asking FP16 maps for their size needs none
    assert run(reduced, frames(1, 4097))[0].shape == (2, 1, 1, 4097)


NOTHING_TO_GAIN = r"no convolution can compute in FP16.*precision: fp32"


def test_a_network_without_a_convolution_is_refused(raw_model):
    """It would be FP16 by name only."""
    with pytest.raises(UnsupportedModelError, match=NOTHING_TO_GAIN):
        to_fp16(to_uint8_nhwc(raw_model()))


def test_a_network_whose_weights_all_overflow_is_refused():
    """For the same reason."""
    model = network([conv("images", "output0")], {"weights": SIMPLE_WEIGHTS * np.float32(1e6)})
    with pytest.raises(UnsupportedModelError, match=NOTHING_TO_GAIN):
        to_fp16(model)


def test_branches_are_refused():
    """What lies inside them is not rewritten, so nothing is."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["first"], ["kept"])], "branch", [], [helper.make_empty_tensor_value_info("kept")]
    )
    nodes = [
        conv("images", "first"),
        helper.make_node("If", ["yes"], ["output0"], "choice", then_branch=branch, else_branch=branch),
    ]
    with pytest.raises(UnsupportedModelError, match=r"branch or loop \(If choice\).*framelane export"):
        to_fp16(network(nodes, {"weights": SIMPLE_WEIGHTS, "yes": np.array(True)}))


def test_an_operator_that_onnx_does_not_know_is_refused():
    """Nobody can tell which type it writes."""
    model = network([conv("images", "first")], {"weights": SIMPLE_WEIGHTS}, outputs=("first",))
    model.opset_import.append(helper.make_opsetid("acme", 1))
    model.graph.node.append(helper.make_node("Polish", ["first"], ["shiny"], "polish", domain="acme"))
    with pytest.raises(UnsupportedModelError, match=r"acme\.Polish whose output shiny is of unknown type"):
        to_fp16(model)
