"""From a model file to the graph that engines are built from, in each precision."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.detector import place_batch
from engines.engine_spec import Precision
from engines.errors import ModelFileError, UnsupportedModelError
from engines.graph import INPUT_NAME, to_uint8_nhwc
from engines.image_file import read_image
from engines.onnx_library import onnxruntime
from engines.prepared_graph import prepared_onnx
from engines.spec import CanvasShape, HeadKind, fitting_canvas

MEDIA = Path(__file__).resolve().parents[4] / "shared" / "media"
BUNDLED = Path(str(resources.files("framelane_inspection"))) / "models" / "inspection-light.onnx"


def run(model_bytes, batch_nhwc):
    """The output for a batch."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch_nhwc})[0]


def frames(seed=0):
    """Two random frames of 32×64 px."""
    return np.random.default_rng(seed).integers(0, 256, (2, 32, 64, 3), np.uint8)


def test_fp32_leaves_the_values_to_the_bit(grid_model, save):
    """Only where bytes become floats has changed."""
    model = grid_model()
    prepared = prepared_onnx(save(model), Precision.FP32)
    outside = run(to_uint8_nhwc(model).SerializeToString(), frames())
    np.testing.assert_array_equal(run(prepared.onnx_bytes, frames()), outside)


def test_bytes_are_cast_before_anything_moves_them(grid_model, save):
    """TensorRT takes uint8 as the input of a cast and of nothing else."""
    for precision in Precision:
        graph = onnx.load_from_string(prepared_onnx(save(grid_model()), precision).onnx_bytes).graph
        assert [node.op_type for node in graph.node if INPUT_NAME in node.input] == ["Cast"]
        assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8


def test_fp16_computes_in_it_and_answers_fp32(grid_model, save):
    """Half the bytes of weights, nearly the same values."""
    path = save(grid_model())
    full, reduced = prepared_onnx(path, Precision.FP32), prepared_onnx(path, Precision.FP16)
    assert full.weights_bytes // 2 <= reduced.weights_bytes < full.weights_bytes * 0.51
    wanted, got = run(full.onnx_bytes, frames()), run(reduced.onnx_bytes, frames())
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=2e-3 * np.abs(wanted).max())
    assert not np.array_equal(got, wanted)


def test_a_graph_is_known_by_the_sha_of_its_bytes(grid_model, save):
    """The same file and precision give the same bytes, another precision others: it is a key of built engines."""
    path = save(grid_model())
    first, again = prepared_onnx(path, Precision.FP16), prepared_onnx(path, Precision.FP16)
    assert first.sha256 == again.sha256 == hashlib.sha256(first.onnx_bytes).hexdigest()
    assert first.sha256 != prepared_onnx(path, Precision.FP32).sha256


def test_what_the_model_says_of_itself_comes_with_it(grid_model, save):
    """As read from the file."""
    info = prepared_onnx(save(grid_model(axes=(2, 3, 64, 128))), Precision.FP16).info
    assert info.class_names == ("red", "green", "blue")
    assert (info.stride_px, info.head) == (32, HeadKind.RAW)
    assert (info.fixed_canvas, info.fixed_batch) == (CanvasShape(64, 128), 2)


@pytest.fixture
def fp16_model(grid_model):
    """The grid detector as others export it in FP16: input, weights and output."""
    model = grid_model()
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for initializer in model.graph.initializer:
        if initializer.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(initializer).astype(np.float16)
            initializer.CopyFrom(numpy_helper.from_array(array, initializer.name))
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.AS_IS], ids=["fp16", "as_is"])
def test_a_graph_that_is_fp16_already_keeps_its_weights_and_answers_fp32(fp16_model, save, precision):
    """Every runner reads FP32, so a cast follows the output; nothing else is done."""
    prepared = prepared_onnx(save(fp16_model), precision)
    graph = onnx.load_from_string(prepared.onnx_bytes).graph
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    wanted = run(to_uint8_nhwc(fp16_model).SerializeToString(), frames())
    assert wanted.dtype == np.float16
    np.testing.assert_array_equal(run(prepared.onnx_bytes, frames()), wanted.astype(np.float32))


def test_a_graph_that_is_fp16_cannot_be_had_in_fp32(fp16_model, save):
    """Its bits are gone; calling it FP32 would be a lie."""
    with pytest.raises(UnsupportedModelError, match=r"computes in FP16 for precision fp32.*set precision: fp16"):
        prepared_onnx(save(fp16_model), Precision.FP32)


@pytest.fixture
def quantized_model(grid_model):
    """The grid detector with 8-bit weights, as quantizers write them."""
    model = grid_model()
    weights = numpy_helper.to_array(model.graph.initializer[0])
    scale = np.float32(np.abs(weights).max() / 127)
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.round(weights / scale).astype(np.int8), "weights_int8")
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(scale), "weights_scale"))
    nodes = list(model.graph.node)
    dequantize = helper.make_node("DequantizeLinear", ["weights_int8", "weights_scale"], ["weights"])
    kept = onnx.GraphProto(node=[dequantize, *nodes])
    del model.graph.node[:]
    model.graph.node.extend(kept.node)
    return model


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP32], ids=["fp16", "fp32"])
def test_a_graph_of_8_bits_is_served_as_it_is_or_not_at_all(quantized_model, save, precision):
    """Its precision is its own; the error names what was found and the cure."""
    path = save(quantized_model)
    with pytest.raises(UnsupportedModelError) as caught:
        prepared_onnx(path, precision)
    assert f"8 bits (DequantizeLinear) for precision {precision.value}" in str(caught.value)
    assert "set precision: as_is" in str(caught.value)


def test_a_graph_of_8_bits_as_it_is_keeps_them(quantized_model, save):
    """And counts one byte a weight."""
    prepared = prepared_onnx(save(quantized_model), Precision.AS_IS)
    assert 7 * 3 * 32 * 32 <= prepared.weights_bytes < 7 * 3 * 32 * 32 + 100
    wanted = run(to_uint8_nhwc(quantized_model).SerializeToString(), frames())
    np.testing.assert_array_equal(run(prepared.onnx_bytes, frames()), wanted)


def test_a_missing_model_is_named(tmp_path):
    """As everywhere."""
    with pytest.raises(ModelFileError, match="no such file"):
        prepared_onnx(tmp_path / "none.onnx", Precision.FP16)


def test_the_file_is_not_touched(grid_model, save):
    """Preparing reads."""
    path = save(grid_model())
    before = path.read_bytes()
    prepared_onnx(path, Precision.FP16)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["bus.jpg", "zidane.jpg"])
def test_the_bytes_graph_of_a_real_model_equals_the_float_graph_on_photos(name):
    """Bit for bit: the float graph is what stands behind the division, fed with what ultralytics feeds it."""
    if not (MEDIA / name).is_file():
        pytest.skip(f"{MEDIA / name} is not here")
    image_hwc = read_image(MEDIA / name)
    batch_nhwc = place_batch([image_hwc], fitting_canvas(image_hwc.shape[:2], 32)).batch_nhwc
    float_bytes = float_graph(onnx.load_model(str(BUNDLED))).SerializeToString()
    floats_nchw = np.ascontiguousarray(batch_nhwc[..., ::-1].transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
    got = run(prepared_onnx(BUNDLED, Precision.FP32).onnx_bytes, batch_nhwc)
    np.testing.assert_array_equal(got, run(float_bytes, floats_nchw))


def float_graph(model):
    """A model with the bytes input cut back to the float NCHW one that it was made from."""
    graph = model.graph
    (division,) = [node for node in graph.node if "framelane_byte_range" in node.input]
    kept = onnx.GraphProto(node=[node for node in graph.node if not node.output[0].startswith("framelane_")])
    kept.node.remove(division)
    del graph.node[:]
    graph.node.extend(kept.node)
    graph.input[0].CopyFrom(
        helper.make_tensor_value_info(division.output[0], TensorProto.FLOAT, ["batch", 3, "height", "width"])
    )
    return model
