"""Reading and rewriting ONNX detectors: what a model says of itself, and an input that takes camera bytes as they are.

`to_uint8_nhwc` puts the channel swap, the scaling to 0..1 and the transposition inside the graph, so that a frame
travels and is copied as uint8 HWC: a quarter of the bytes of float32.
"""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.errors import ModelFileError, UnsupportedModelError
from engines.spec import CanvasShape, HeadKind, ModelInfo

INPUT_NAME = "frames_nhwc"
# Written by `framelane export`; the other keys are ultralytics' own.
HEAD_KEY = "framelane.head"
# What ultralytics' detectors use unless their metadata says otherwise.
DEFAULT_STRIDE_PX = 32
# A canvas to ask the output's shape for: every stride fits, and it gives more anchors than any head has columns.
PROBE_HW = (640, 320)
# A protobuf message has 2 GiB at most, and a detector of more than this is no detector.
MAX_MODEL_BYTES = 2**31 - 1


def load_model(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file.

    Raises:
        ModelFileError: missing, unreadable or not ONNX.
    """
    if path.is_dir():
        raise ModelFileError(f"model {path}: is a folder; give the path of an ONNX detector in it")
    if not path.is_file():
        raise ModelFileError(
            f"model {path}: no such file; give the path of an ONNX detector (framelane export MODEL.pt)"
        )
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise ModelFileError(f"model {path}: got {path.stat().st_size} bytes, allowed are {MAX_MODEL_BYTES}")
    try:
        model = onnx.load_model(str(path))
        onnx.checker.check_model(model)
    except Exception as err:  # protobuf, onnx and the OS each raise their own kinds
        reason = str(err).strip().splitlines()[0][:200] if str(err).strip() else type(err).__name__
        raise ModelFileError(
            f"model {path}: got a file that is not a valid ONNX model ({reason}); "
            "allowed is the output of framelane export or of ultralytics' ONNX export"
        ) from err
    return model


def read_info(model: onnx.ModelProto, name: str) -> ModelInfo:
    """Read class names, stride, head kind and fixed axes from metadata and shapes.

    Args:
        model: as from `load_model`; float NCHW or already uint8 NHWC.
        name: how to call the model in an error.

    Raises:
        UnsupportedModelError: it is no detector with one of the known heads.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    task = metadata.get("task", "detect")
    if task != "detect":
        raise UnsupportedModelError(f"model {name}: got task {task!r}, allowed is 'detect'; export a detection model")
    channels_last = is_uint8_nhwc(model)
    dims = _input_dims(model, name, channels_last)
    output_dims = _probed_output_dims(model, channels_last)
    class_names = _class_names(metadata.get("names"), name)
    head = _stated_head(metadata) or _head_kind(output_dims, len(class_names), name)
    if not class_names:
        num_classes = output_dims[1] - 4 if head is HeadKind.RAW else 0
        class_names = tuple(f"class {i}" for i in range(num_classes))
    height, width = dims[1:3] if channels_last else dims[2:4]
    if bool(height) != bool(width):
        raise UnsupportedModelError(
            f"model {name}: got an input of {height or 'free'} × {width or 'free'} px, allowed are both "
            "fixed or both free; export it with framelane export MODEL.pt"
        )
    return ModelInfo(
        class_names=class_names,
        stride_px=_stride_px(metadata.get("stride"), name),
        head=head,
        fixed_canvas=CanvasShape(height, width) if height and width else None,
        fixed_batch=dims[0] or None,
    )


def is_uint8_nhwc(model: onnx.ModelProto) -> bool:
    """Whether the model takes camera bytes already."""
    return bool(model.graph.input) and model.graph.input[0].name == INPUT_NAME


def to_uint8_nhwc(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a float NCHW RGB 0..1 detector an input of uint8 `(N, H, W, 3)` BGR; returns a new model.

    Transposition and channel swap move single bytes; the division comes last and is the very one that ultralytics does
    outside, so the boxes are the same to the bit. (Folding swap and factor into the first convolution was measured: it
    saves 2 % on a CPU, and its weights, divided by 255, would fall below what FP16 can hold.)
    A model that already has this input is returned unchanged.
    """
    if is_uint8_nhwc(model):
        return model
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    graph = rewritten.graph
    old_input = graph.input[0]
    element_type = old_input.type.tensor_type.elem_type
    batch, _, height, width = _dim_protos(old_input)
    new_input = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [None, None, None, 3])
    for target, source in zip(_dim_protos(new_input), (batch, height, width), strict=False):
        target.CopyFrom(source)
    byte_range = np.array(255, helper.tensor_dtype_to_np_dtype(element_type))
    graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "framelane_rgb_of_bgr"))
    graph.initializer.append(numpy_helper.from_array(byte_range, "framelane_byte_range"))
    preprocessing = [
        helper.make_node("Transpose", [INPUT_NAME], ["framelane_bgr"], "framelane_to_nchw", perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["framelane_bgr", "framelane_rgb_of_bgr"], ["framelane_rgb"], axis=1),
        helper.make_node("Cast", ["framelane_rgb"], ["framelane_float"], to=element_type),
        helper.make_node("Div", ["framelane_float", "framelane_byte_range"], [old_input.name]),
    ]
    network = list(graph.node)
    del graph.node[:]
    graph.node.extend(preprocessing + network)
    graph.input[0].CopyFrom(new_input)
    onnx.checker.check_model(rewritten)
    return rewritten


def set_metadata(model: onnx.ModelProto, values: dict[str, str]) -> None:
    """Write metadata entries in place, replacing those of the same key."""
    merged = {entry.key: entry.value for entry in model.metadata_props} | values
    del model.metadata_props[:]
    for key, value in merged.items():
        model.metadata_props.add(key=key, value=value)


def _input_dims(model: onnx.ModelProto, name: str, channels_last: bool) -> list[int]:
    """The four input dimensions, 0 where free; raises unless the model maps one batch of images to one tensor."""
    initializers = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    shapes = ", ".join(f"{value.name} {_dims(value)}" for value in inputs) or "no input"
    wanted = "allowed is one image batch (N, 3, height, width), float, as ultralytics exports detectors"
    if len(inputs) != 1:
        raise UnsupportedModelError(f"model {name}: got the inputs {shapes}, {wanted}")
    if not model.graph.output:
        raise UnsupportedModelError(f"model {name}: got no output, allowed is one detection tensor")
    dims = _dims(inputs[0])
    is_float = inputs[0].type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
    if len(dims) != 4 or dims[3 if channels_last else 1] not in (0, 3) or not (is_float or channels_last):
        raise UnsupportedModelError(f"model {name}: got the input {shapes}, {wanted}")
    return dims


def _probed_output_dims(model: onnx.ModelProto, channels_last: bool) -> list[int]:
    """Dimensions of the output for one frame on a small canvas, 0 where shape inference cannot tell."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    wanted = (1, *PROBE_HW, 3) if channels_last else (1, 3, *PROBE_HW)
    for dim, size in zip(_dim_protos(probe.graph.input[0]), wanted, strict=True):
        dim.dim_value = dim.dim_value or size
    output_type = probe.graph.output[0].type.tensor_type
    output_type.ClearField("shape")
    return _dims(onnx.shape_inference.infer_shapes(probe, data_prop=True).graph.output[0])


def _stated_head(metadata: dict[str, str]) -> HeadKind | None:
    """What the exporter wrote of the head, if it did: shape inference does not see through an NMS-free head's TopK."""
    stated = metadata.get(HEAD_KEY)
    if stated in {kind.value for kind in HeadKind}:
        return HeadKind(stated)
    return HeadKind.END_TO_END if metadata.get("end2end") == "True" else None


def _head_kind(dims: list[int], num_classes: int, name: str) -> HeadKind:
    """Which head an output of these dimensions (0: unknown) is; `num_classes` is 0 where the model names none."""
    if len(dims) == 3:
        if dims[1] == (4 + num_classes if num_classes else dims[1]) and dims[1] > 4 and dims[2] != 6:
            return HeadKind.RAW
        if dims[2] == 6:
            return HeadKind.END_TO_END
    classes = f" for {num_classes} classes" if num_classes else ""
    raise UnsupportedModelError(
        f"model {name}: got an output of shape {dims}{classes} (0: unknown), allowed are (N, 4 + classes, anchors) of "
        "YOLOv5u/v8/v9/11/12 and (N, boxes, 6) of YOLOv10/26; export a detection model with framelane export"
    )


def _class_names(text: str | None, name: str) -> tuple[str, ...]:
    """Ultralytics writes the names as a Python dict or list; empty if the model carries none."""
    if text is None:
        return ()
    try:
        names = ast.literal_eval(text)
        by_id = dict(enumerate(names)) if isinstance(names, (list, tuple)) else dict(names)
        ordered = [by_id[i] for i in range(len(by_id))]
    except (ValueError, SyntaxError, KeyError, TypeError) as err:
        raise UnsupportedModelError(
            f"model {name}: got class names {text[:80]!r} in its metadata, allowed is a dict from 0, 1, 2… to names"
        ) from err
    return tuple(str(label) for label in ordered)


def _stride_px(text: str | None, name: str) -> int:
    if text is None:
        return DEFAULT_STRIDE_PX
    try:
        stride_px = int(float(text))
    except (ValueError, OverflowError) as err:
        raise UnsupportedModelError(f"model {name}: got stride {text!r} in its metadata, allowed is a number") from err
    if stride_px < 1:
        raise UnsupportedModelError(f"model {name}: got stride {stride_px} in its metadata, allowed is 1 or more")
    return stride_px


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """Dimensions of a tensor, 0 where symbolic or unknown."""
    return [dim.dim_value for dim in _dim_protos(value)]


def _dim_protos(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)
