"""Reading ONNX detectors, and the input of camera bytes that they are given."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.errors import ModelFileError, UnsupportedModelError
from engines.graph import HEAD_KEY, INPUT_NAME, is_uint8_nhwc, load_model, read_info, set_metadata, to_uint8_nhwc
from engines.onnx_library import onnxruntime
from engines.spec import CanvasShape, HeadKind, ModelInfo

COLOURS = ("red", "green", "blue")


def metadata(**changes):
    """Metadata as ultralytics writes it, with some entries changed; None removes one."""
    values = {"task": "detect", "names": "{0: 'red', 1: 'green', 2: 'blue'}", "stride": "32"} | changes
    return {key: value for key, value in values.items() if value is not None}


def run(model, batch):
    """What ONNX Runtime computes."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def refusal(model):
    """The message with which a model is refused."""
    with pytest.raises(UnsupportedModelError) as caught:
        read_info(model, "cam.onnx")
    message = str(caught.value)
    assert message.startswith("model cam.onnx: got ")
    assert "allowed " in message
    return message


# --- files


def test_a_written_model_is_read_back(raw_model, save):
    """A sound file passes."""
    model = raw_model()
    assert load_model(save(model)) == model


def test_a_missing_file_is_named_with_the_cure(tmp_path):
    """The message holds the path and the command that makes a model."""
    path = tmp_path / "gone.onnx"
    with pytest.raises(ModelFileError, match=r"no such file; .*framelane export MODEL\.pt") as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_model_file(tmp_path):
    """Only files are read."""
    with pytest.raises(ModelFileError, match="is a folder; give the path of an ONNX detector"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", id="git-lfs-pointer"),
        pytest.param(b"\x00" * 100, id="zeros"),
        pytest.param(b"PK\x03\x04" + b"archive/data.pkl" * 9, id="a-renamed-pt"),
    ],
)
def test_a_file_that_is_no_onnx_model_is_refused(tmp_path, content):
    """The message names the file, says what is allowed and where it comes from."""
    path = tmp_path / "text.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    message = str(caught.value)
    assert f"model {path}: got a file that is not a valid ONNX model (" in message
    assert "allowed is the output of framelane export or of ultralytics' ONNX export" in message
    assert "\n" not in message


def test_a_truncated_model_is_refused(grid_model, save):
    """A download that broke off."""
    path = save(grid_model())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelFileError, match="not a valid ONNX model"):
        load_model(path)


# --- what a model says of itself


def test_a_raw_head_is_recognised(raw_model):
    """Names, stride and head; free axes are None."""
    assert read_info(raw_model(metadata(stride="16")), "m") == ModelInfo(COLOURS, 16, HeadKind.RAW)


def test_an_end_to_end_head_is_recognised(end_to_end_model):
    """Six columns are corners, score and class."""
    assert read_info(end_to_end_model(), "m") == ModelInfo(COLOURS, 32, HeadKind.END_TO_END)


def test_a_raw_head_with_free_anchors_is_recognised(grid_model):
    """As many anchors as the canvas has cells: found by asking for the shape on a probe canvas."""
    assert read_info(grid_model(), "m") == ModelInfo(COLOURS, 32, HeadKind.RAW)


@pytest.mark.parametrize("axes", [(2, 3, 64, 96), (2, 3, 96, 64)], ids=["wide", "tall"])
def test_fixed_axes_are_read_height_first(raw_model, end_to_end_model, axes):
    """A model exported without dynamic axes says the one shape it takes, before and after rewriting."""
    for build, head in ((raw_model, HeadKind.RAW), (end_to_end_model, HeadKind.END_TO_END)):
        model = build(axes=axes)
        wanted = ModelInfo(COLOURS, 32, head, fixed_canvas=CanvasShape(*axes[2:]), fixed_batch=2)
        assert read_info(model, "m") == wanted
        assert read_info(to_uint8_nhwc(model), "m") == wanted


def test_a_model_may_fix_its_batch_only(raw_model):
    """Batch 1 on free canvases."""
    info = read_info(raw_model(axes=(1, 3, "height", "width")), "m")
    assert (info.fixed_batch, info.fixed_canvas) == (1, None)


def test_a_raw_model_without_names_counts_its_classes(raw_model):
    """Rows below the box are classes; each gets a name to be shown."""
    info = read_info(raw_model(metadata(names=None)), "m")
    assert (info.class_names, info.head) == (("class 0", "class 1", "class 2"), HeadKind.RAW)


def test_an_end_to_end_model_without_names_has_none(end_to_end_model):
    """Its output does not say how many classes there are."""
    info = read_info(end_to_end_model(metadata(names=None)), "m")
    assert (info.class_names, info.head) == ((), HeadKind.END_TO_END)


def test_a_model_without_any_metadata_is_a_detector_of_stride_32(raw_model):
    """Exports of others carry none."""
    assert read_info(raw_model({}), "m").stride_px == 32


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param("{2: 'blue', 0: 'red', 1: 'green'}", COLOURS, id="dict-in-any-order"),
        pytest.param("['red', 'green', 'blue']", COLOURS, id="list"),
        pytest.param("{0: 'it\\'s', 1: \"a 'b'\", 2: 'ü'}", ("it's", "a 'b'", "ü"), id="quotes"),
        pytest.param("{0: 7, 1: 8, 2: 9}", ("7", "8", "9"), id="numbers-as-names"),
    ],
)
def test_names_are_ordered_by_class_id(raw_model, text, names):
    """Ultralytics writes a dict; a list is read too."""
    assert read_info(raw_model(metadata(names=text)), "m").class_names == names


@pytest.mark.parametrize(
    "text",
    [
        "red, green, blue",
        "{0: 'red', 2: 'green', 3: 'blue'}",
        "{'0': 'r', '1': 'g', '2': 'b'}",
        "{0: 'r'",
        "5",
        "'rgb'",
    ],
)
def test_names_that_are_no_names_are_refused(raw_model, text):
    """The message quotes them and shows the allowed form."""
    message = refusal(raw_model(metadata(names=text)))
    assert f"class names {text!r}" in message
    assert "a dict from 0, 1, 2… to names" in message


def test_code_in_the_names_is_not_run(raw_model, tmp_path):
    """A model file is data: its names are parsed, never evaluated."""
    trace = tmp_path / "ran"
    assert "class names" in refusal(raw_model(metadata(names=f"open({str(trace)!r}, 'w')")))
    assert not trace.exists()


def test_names_that_do_not_fit_the_output_are_refused(raw_model):
    """Two names, three rows of scores: whose would the third be?"""
    message = refusal(raw_model(metadata(names="['red', 'green']")))
    assert "output of shape [1, 7, 3] for 2 classes" in message
    assert "(N, 4 + classes, anchors)" in message
    assert "framelane export" in message


@pytest.mark.parametrize("text", ["wide", "", "nan", "inf", "0", "-32", "[8, 16, 32]"])
def test_a_stride_that_is_no_positive_number_is_refused(raw_model, text):
    """The message quotes it."""
    assert "got stride" in refusal(raw_model(metadata(stride=text)))


@pytest.mark.parametrize("text", ["64", "64.0"])
def test_a_stride_is_read_as_a_number(raw_model, text):
    """P6 models have 64; some exports write it as a float."""
    assert read_info(raw_model(metadata(stride=text)), "m").stride_px == 64


@pytest.mark.parametrize("task", ["segment", "classify", "pose", "obb"])
def test_models_of_other_tasks_are_refused(raw_model, task):
    """A segmentation model's first output looks like a detector's with more classes."""
    message = refusal(raw_model(metadata(task=task)))
    assert f"got task {task!r}, allowed is 'detect'" in message
    assert "export a detection model" in message


def test_a_classifier_is_refused(classifier):
    """A sound ONNX model whose output has two axes."""
    message = refusal(classifier)
    assert "output of shape [1, 3]" in message
    assert "(N, boxes, 6)" in message


@pytest.mark.parametrize(
    ("element_type", "dims", "got"),
    [
        pytest.param(TensorProto.FLOAT, ["n", 3, "h"], "images [0, 3, 0]", id="three-axes"),
        pytest.param(TensorProto.FLOAT, ["n", 1, "h", "w"], "images [0, 1, 0, 0]", id="grey"),
        pytest.param(TensorProto.INT64, ["n", 3, "h", "w"], "images [0, 3, 0, 0]", id="integers"),
    ],
)
def test_inputs_that_are_no_image_batch_are_refused(element_type, dims, got):
    """The message lists the inputs and the allowed one."""
    node = helper.make_node("Identity", ["images"], ["output0"])
    model = _identity_model(node, [helper.make_tensor_value_info("images", element_type, dims)])
    message = refusal(model)
    assert f"got the input {got}" in message
    assert "(N, 3, height, width), float" in message


def test_a_model_with_two_inputs_is_refused():
    """Both are named."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"]) for name in ("left", "right")]
    message = refusal(_identity_model(helper.make_node("Add", ["left", "right"], ["output0"]), inputs))
    assert "got the inputs left [0, 3, 0, 0], right [0, 3, 0, 0]" in message


@pytest.mark.parametrize("head", list(HeadKind), ids=lambda head: head.value)
def test_the_head_that_our_exporter_stated_is_believed(raw_model, head):
    """Where shape inference sees nothing, the exporter knew."""
    model = raw_model()
    set_metadata(model, {HEAD_KEY: head.value})
    assert read_info(model, "m").head is head


@pytest.mark.parametrize(
    ("end2end", "head"), [("True", HeadKind.END_TO_END), ("False", HeadKind.RAW), (None, HeadKind.RAW)]
)
def test_the_head_that_ultralytics_stated_is_believed(raw_model, end2end, head):
    """Its `end2end` marks an NMS-free head, whose output shape onnx cannot infer."""
    assert read_info(raw_model(metadata(end2end=end2end)), "m").head is head


def test_reading_changes_nothing(grid_model):
    """The probe works on a copy."""
    model = grid_model()
    before = model.SerializeToString()
    read_info(model, "m")
    assert model.SerializeToString() == before


# --- metadata


def test_metadata_is_merged_by_key(raw_model):
    """A key is replaced, not repeated; the others stay."""
    model = raw_model()
    set_metadata(model, {"stride": "64", HEAD_KEY: "raw"})
    assert {e.key: e.value for e in model.metadata_props} == metadata(stride="64") | {HEAD_KEY: "raw"}
    assert len(model.metadata_props) == 4


# --- camera bytes as input


@pytest.mark.parametrize("size_hw", [(64, 96), (96, 64), (32, 32)], ids=["wide", "tall", "square"])
def test_bytes_inside_the_graph_give_the_very_bits_of_floats_outside(grid_model, size_hw):
    """Transposition, channel swap and division inside equal ultralytics' preprocessing outside, bit for bit."""
    model = grid_model()
    batch_nhwc = np.random.default_rng(6).integers(0, 256, (2, *size_hw, 3), np.uint8)
    floats_nchw = np.ascontiguousarray(batch_nhwc[..., ::-1].transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
    inside, outside = run(to_uint8_nhwc(model), batch_nhwc), run(model, floats_nchw)
    assert inside.shape == (2, 7, size_hw[0] // 32 * (size_hw[1] // 32))
    np.testing.assert_array_equal(inside.view(np.uint32), outside.view(np.uint32))


def test_every_byte_value_is_divided_exactly():
    """0 to 255 each become what numpy's float32 division gives, in RGB planes."""
    value = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"])
    model = _identity_model(helper.make_node("Identity", ["images"], ["output0"]), [value])
    batch_nhwc = np.arange(768, dtype=np.int64).astype(np.uint8).reshape(1, 8, 32, 3)
    planes = run(to_uint8_nhwc(model), batch_nhwc)
    wanted = batch_nhwc[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(planes, wanted)


def test_rewriting_is_idempotent(grid_model):
    """A model that takes bytes already is returned as it is."""
    rewritten = to_uint8_nhwc(grid_model())
    assert is_uint8_nhwc(rewritten)
    assert to_uint8_nhwc(rewritten) is rewritten


def test_rewriting_leaves_the_old_model_alone(grid_model):
    """A new model is returned."""
    model = grid_model()
    before = model.SerializeToString()
    to_uint8_nhwc(model)
    assert model.SerializeToString() == before
    assert not is_uint8_nhwc(model)


def test_the_new_input_keeps_the_names_of_free_axes(grid_model):
    """Batch, height and width stay linked to the rest of the graph; channels stand last."""
    (new_input,) = to_uint8_nhwc(grid_model()).graph.input
    dims = [dim.dim_param or dim.dim_value for dim in new_input.type.tensor_type.shape.dim]
    assert (new_input.name, dims) == (INPUT_NAME, ["batch", "height", "width", 3])
    assert new_input.type.tensor_type.elem_type == TensorProto.UINT8


def test_rewriting_keeps_what_the_model_says_of_itself(raw_model, end_to_end_model, grid_model):
    """Head, names and stride are read the same from both forms."""
    for build in (raw_model, end_to_end_model, grid_model):
        model = build()
        assert read_info(to_uint8_nhwc(model), "m") == read_info(model, "m")


def test_a_half_precision_model_is_fed_half_precision():
    """The cast goes to the type that the network takes."""
    value = helper.make_tensor_value_info("images", TensorProto.FLOAT16, ["n", 3, "h", "w"])
    model = _identity_model(helper.make_node("Identity", ["images"], ["output0"]), [value], TensorProto.FLOAT16)
    planes = run(to_uint8_nhwc(model), np.full((1, 8, 8, 3), 255, np.uint8))
    np.testing.assert_array_equal(planes, np.ones((1, 3, 8, 8), np.float16))


def _identity_model(node, inputs, output_type=None):
    """One node between these inputs and an output of free shape."""
    element_type = output_type or inputs[0].type.tensor_type.elem_type
    output = helper.make_tensor_value_info(
        "output0", element_type, ["n", "c", "h", "w"][: len(inputs[0].type.tensor_type.shape.dim)]
    )
    graph = helper.make_graph([node], "tiny", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model
