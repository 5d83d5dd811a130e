"""From ultralytics' models with random weights to ONNX detectors that answer what torch answers."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from engines.errors import ModelFileError, UnsupportedModelError
from engines.export import export_to_onnx
from engines.graph import HEAD_KEY, INPUT_NAME, load_model, read_info
from engines.onnx_library import onnxruntime
from engines.onnx_run import OnnxEngine
from engines.spec import CanvasShape, HeadKind, WarmShape

pytestmark = [
    pytest.mark.export,
    pytest.mark.skipif(find_spec("ultralytics") is None, reason="needs the export extra: make test-export"),
    # torch speaks of its own exporter, which ultralytics chooses.
    pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
    # True for the shapes in question: ultralytics silences it at import, which pytest undoes.
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean might cause the trace to be incorrect"),
]

CASES = [
    pytest.param("yolov8n.yaml", True, HeadKind.RAW, id="v8-has-a-raw-head-only"),
    pytest.param("yolo26n.yaml", True, HeadKind.END_TO_END, id="26-end-to-end"),
    pytest.param("yolo26n.yaml", False, HeadKind.RAW, id="26-raw"),
    pytest.param("yolov10n.yaml", True, HeadKind.END_TO_END, id="v10-end-to-end"),
    pytest.param("yolov10n.yaml", False, HeadKind.RAW, id="v10-raw"),
]


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """An empty current folder, and no network: a connection is a failure."""

    def refuse(*_):
        raise AssertionError("the exporter used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


# Boxes are hundreds of px, of which float32 keeps seven digits before a network of random weights multiplies the rest.
MAX_SCORE_DIFFERENCE, MAX_BOX_DIFFERENCE_PX = 1e-3, 0.05


def files_below(folder):
    """Every file below a folder, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def blurry_frames(num_frames, height, width, seed=0):
    """Random frames of large soft patches, uint8 `(N, height, width, 3)`: fine noise would look all the same."""
    patches = np.random.default_rng(seed).integers(0, 256, (num_frames, 5, 7, 3), np.uint8)
    return np.stack([cv2.resize(patch, (width, height), interpolation=cv2.INTER_CUBIC) for patch in patches])


def seeded_weights(path, yaml):
    """A `.pt` of random weights whose scores spread around 1/2; untrained, they would all be near 0 and equal."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(0)
    detector = YOLO(yaml)
    network = detector.model
    head = network.model[-1]
    branches = ("cv2", "cv3", "one2one_cv2", "one2one_cv3")  # boxes and scores of either head
    for layers in (layers for name in branches for layers in getattr(head, name, None) or []):
        torch.nn.init.normal_(layers[-1].weight, std=0.02)
        torch.nn.init.zeros_(layers[-1].bias)
    # One pass in training mode gives the normalisations the statistics that keep signals from fading.
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(torch.from_numpy(blurry_frames(8, 192, 320).transpose(0, 3, 1, 2) / np.float32(255)))
    network.eval()
    path.parent.mkdir(exist_ok=True)
    detector.save(str(path))
    return path


def torch_output(weights, batch_nhwc, *, end_to_end):
    """What ultralytics' own network computes for camera bytes, preprocessed outside as ultralytics does."""
    import torch
    from ultralytics import YOLO

    network = YOLO(str(weights)).model.float().eval()
    network.end2end = end_to_end
    planes = np.ascontiguousarray(batch_nhwc[..., ::-1].transpose(0, 3, 1, 2))
    with torch.no_grad():
        return network(torch.from_numpy(planes).float() / 255)[0].numpy()


@pytest.mark.parametrize(("yaml", "end_to_end", "head"), CASES)
def test_an_exported_model_has_free_axes_names_stride_and_the_wanted_head(tmp_path, yaml, end_to_end, head):
    """What is returned is what the file says; its input is uint8 NHWC with free batch, height and width."""
    path = tmp_path / "new folder" / "model.onnx"
    info = export_to_onnx(Path(yaml), path, end_to_end=end_to_end)
    model = load_model(path)
    assert read_info(model, "m") == info
    assert (info.head, info.stride_px, info.fixed_canvas, info.fixed_batch) == (head, 32, None, None)
    assert len(info.class_names) == 80
    (value,) = model.graph.input
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    wanted = (INPUT_NAME, onnx.TensorProto.UINT8, [0, 0, 0, 3])
    assert (value.name, value.type.tensor_type.elem_type, dims) == wanted
    assert {entry.key: entry.value for entry in model.metadata_props}[HEAD_KEY] == head.value


@pytest.mark.parametrize(("yaml", "end_to_end", "head"), CASES)
def test_onnx_computes_what_torch_computes(tmp_path, yaml, end_to_end, head):
    """The same numbers at canvases and batches other than the exporter's, wide and tall."""
    weights, path = seeded_weights(tmp_path / "seeded.pt", yaml), tmp_path / "model.onnx"
    export_to_onnx(weights, path, end_to_end=end_to_end)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch_nhwc in (blurry_frames(2, 192, 320, seed=1), blurry_frames(1, 320, 192, seed=2)):
        onnx_output = session.run(None, {INPUT_NAME: batch_nhwc})[0]
        wanted = torch_output(weights, batch_nhwc, end_to_end=head is HeadKind.END_TO_END)
        assert onnx_output.shape == wanted.shape
        if head is HeadKind.RAW:
            np.testing.assert_allclose(onnx_output[:, 4:], wanted[:, 4:], rtol=0, atol=MAX_SCORE_DIFFERENCE)
            np.testing.assert_allclose(onnx_output[:, :4], wanted[:, :4], rtol=0, atol=MAX_BOX_DIFFERENCE_PX)
            continue
        np.testing.assert_allclose(onnx_output[..., 4], wanted[..., 4], rtol=0, atol=MAX_SCORE_DIFFERENCE)
        # Rows come by score, and those of nearly equal scores may change places: each looks for its partner.
        allowed = np.array([MAX_BOX_DIFFERENCE_PX] * 4 + [MAX_SCORE_DIFFERENCE] * 2)
        for ours, theirs in zip(onnx_output, wanted, strict=True):
            has_partner = (np.abs(ours[:, None] - theirs[None]) <= allowed).all(2).any(1)
            assert has_partner.mean() > 0.98  # of equal scores at the very end, either may be cut off


@pytest.mark.parametrize(("yaml", "end_to_end", "head"), CASES)
def test_an_exported_model_runs_in_the_engine(tmp_path, yaml, end_to_end, head):
    """Any batch on any canvas of the stride gives one answer a frame."""
    weights, path = seeded_weights(tmp_path / "seeded.pt", yaml), tmp_path / "model.onnx"
    export_to_onnx(weights, path, end_to_end=end_to_end)
    engine = OnnxEngine(path)
    assert engine.model.head is head
    shapes = [WarmShape(CanvasShape(192, 320), 2), WarmShape(CanvasShape(320, 192), 1)]
    engine.warm(shapes)
    for canvas, batch in shapes:
        answers = engine.infer(blurry_frames(batch, *canvas, seed=3)).detections
        assert len(answers) == batch
        for found in answers:
            assert len(found) > 0
            assert ((found.scores > 0.25) & (found.scores <= 1)).all()
            assert set(found.class_ids) <= set(range(80))
    engine.close()


def test_exporting_prints_nothing_and_leaves_nothing_behind(tmp_path, capfd):
    """Only the model appears: nothing in the current folder, beside the weights or on the screen."""
    weights = seeded_weights(tmp_path / "weights" / "seeded.pt", "yolov8n.yaml")
    capfd.readouterr()
    export_to_onnx(weights, tmp_path / "out" / "model.onnx")
    assert files_below(tmp_path) == ["out/model.onnx", "weights/seeded.pt"]
    assert capfd.readouterr() == ("", "")


def test_an_older_model_is_replaced(tmp_path):
    """The file at the target is overwritten as a whole."""
    path = tmp_path / "model.onnx"
    path.write_text("an older model")
    export_to_onnx(Path("yolov8n.yaml"), path)
    assert read_info(load_model(path), "m").head is HeadKind.RAW
    assert files_below(tmp_path) == ["model.onnx"]


@pytest.mark.parametrize(
    ("yaml", "task"), [("yolov8n-cls.yaml", "classify"), ("yolov8n-seg.yaml", "segment"), ("yolo26n-pose.yaml", "pose")]
)
def test_models_of_other_tasks_are_refused(tmp_path, yaml, task):
    """The message names task and file; nothing is written, and an older model stays."""
    path = tmp_path / "model.onnx"
    path.write_text("an older model")
    with pytest.raises(UnsupportedModelError, match=rf"weights {yaml}: got task '{task}', allowed is 'detect'"):
        export_to_onnx(Path(yaml), path)
    assert path.read_text() == "an older model"
    assert files_below(tmp_path) == ["model.onnx"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("text.pt", b"no weights at all\n", id="text"),
        pytest.param("empty.pt", b"", id="empty"),
        pytest.param("cut.pt", b"PK\x03\x04" + bytes(50), id="truncated-archive"),
        pytest.param("bad.yaml", b"just: [a, b", id="broken-yaml"),
        pytest.param("other.yaml", b"just: a\n", id="yaml-of-something-else"),
    ],
)
def test_files_that_are_no_weights_are_refused(tmp_path, name, content):
    """The message names the file and the reason; nothing is left behind."""
    weights = tmp_path / name
    weights.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        export_to_onnx(weights, tmp_path / "out" / "model.onnx")
    message = str(caught.value)
    assert f"weights {weights}: got a file that ultralytics cannot load (" in message
    assert "allowed is the .pt of a detector" in message
    assert "\n" not in message
    assert files_below(tmp_path) == [name]


@pytest.mark.parametrize("name", ["model.onnx", "notes.txt", "weights"])
def test_files_of_other_kinds_are_refused(tmp_path, name):
    """An exported model cannot be exported again; the message names the suffix and the right one."""
    weights = tmp_path / name
    weights.write_bytes(b"\x08\x0a")
    with pytest.raises(ModelFileError, match=rf"got suffix '{weights.suffix}'; allowed is the \.pt of a detector"):
        export_to_onnx(weights, tmp_path / "out" / "model.onnx")
    assert files_below(tmp_path) == [name]


@pytest.mark.parametrize("name", ["gone.pt", "yolov8n.pt", "gone.yaml"])
def test_missing_weights_are_refused(tmp_path, name):
    """Not even the names that ultralytics would download are fetched."""
    with pytest.raises(ModelFileError, match=name):
        export_to_onnx(tmp_path / name, tmp_path / "out" / "model.onnx")
    with pytest.raises(ModelFileError, match=name):
        export_to_onnx(Path(name), tmp_path / "out" / "model.onnx")
    assert files_below(tmp_path) == []


def test_a_failing_exporter_leaves_nothing_behind(tmp_path, monkeypatch):
    """An older model survives a crash in the middle, and no half file stands beside it."""
    from ultralytics.engine.exporter import Exporter

    def crash(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Exporter, "__call__", crash)
    path = tmp_path / "model.onnx"
    path.write_text("an older model")
    with pytest.raises(UnsupportedModelError, match=r"cannot export this model .*out of memory"):
        export_to_onnx(Path("yolov8n.yaml"), path)
    assert path.read_text() == "an older model"
    assert files_below(tmp_path) == ["model.onnx"]
