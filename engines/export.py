"""From a `.pt` of ultralytics to one dynamic ONNX detector. Needs the `export` extra (torch)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from engines.errors import EngineError, ModelFileError, UnsupportedModelError
from engines.graph import HEAD_KEY, load_model, read_info, set_metadata, to_uint8_nhwc
from engines.spec import HeadKind, ModelInfo

_ALLOWED_WEIGHTS = "allowed is the .pt of a detector trained with ultralytics; give its path"


class ExportExtraMissingError(EngineError):
    """The `export` extra is not installed."""


def export_to_onnx(weights: Path, onnx_path: Path, *, end_to_end: bool = True) -> ModelInfo:
    """Export a detector so that batch, height and width are free and its input is uint8 NHWC.

    Args:
        weights: a `.pt` of ultralytics, or one of its model YAML files (random weights: for tests).
        onnx_path: where to write; replaced only when everything went well.
        end_to_end: keep the NMS-free head of models that have one (YOLOv10, YOLO26); False takes their raw head.

    Returns:
        What the written model says of itself.

    Raises:
        ExportExtraMissingError: torch or ultralytics are not installed.
        ModelFileError: no such file, or one that ultralytics cannot read.
        UnsupportedModelError: not a detection model.
    """
    try:
        from ultralytics import YOLO
    except ImportError as err:
        raise ExportExtraMissingError(
            f"export: {err}; exporting needs the export extra: pip install 'framelane[export]'"
        ) from err
    if weights.suffix not in (".pt", ".yaml", ".yml"):
        raise ModelFileError(f"weights {weights}: got suffix {weights.suffix!r}; {_ALLOWED_WEIGHTS}")
    if weights.suffix == ".pt" and not weights.is_file():  # ultralytics would download what it knows by name
        raise ModelFileError(f"weights {weights}: no such file; {_ALLOWED_WEIGHTS}")
    try:
        with _quiet_ultralytics():
            detector = YOLO(str(weights))
        task = detector.task
    except Exception as err:  # ultralytics and torch raise whatever the file provokes
        reason = (str(err).strip().splitlines() or [type(err).__name__])[0][:200]
        raise ModelFileError(
            f"weights {weights}: got a file that ultralytics cannot load ({reason}); {_ALLOWED_WEIGHTS}"
        ) from err
    if task != "detect":
        raise UnsupportedModelError(f"weights {weights}: got task {task!r}, allowed is 'detect'")
    with tempfile.TemporaryDirectory() as folder, _quiet_ultralytics():
        try:
            model = _export(detector, Path(folder), end_to_end)
        except EngineError:
            raise
        except Exception as err:  # as above
            reason = (str(err).strip().splitlines() or [type(err).__name__])[0][:200]
            raise UnsupportedModelError(f"weights {weights}: ultralytics cannot export this model ({reason})") from err
    info = read_info(model, weights.name)
    model = to_uint8_nhwc(model)
    set_metadata(model, {HEAD_KEY: info.head.value})
    onnx_path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = onnx_path.with_name(f".{onnx_path.name}.unfinished")
    onnx.save_model(model, str(unfinished))
    unfinished.replace(onnx_path)
    return info


@contextmanager
def _quiet_ultralytics() -> Iterator[None]:
    """Let only errors through: ultralytics reports its progress in a dozen lines, in colour, on stdout."""
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)


def _export(detector: object, folder: Path, end_to_end: bool) -> onnx.ModelProto:
    """Run ultralytics' exporter in `folder`, where it leaves its files beside the weights it is told of."""
    torch_model = detector.model  # type: ignore[attr-defined]
    detector.ckpt_path = str(folder / "model.pt")  # type: ignore[attr-defined]
    torch_model.pt_path = torch_model.yaml_file = str(folder / "model.pt")
    # `end2end` of the model itself says which of its heads predicts now, and that is the raw one even where both exist.
    has_end_to_end = getattr(torch_model.model[-1], "one2one_cv2", None) is not None
    # nms=False keeps the end-to-end head of models that have one; None, the default, exports the raw head.
    nms = False if end_to_end and has_end_to_end else None
    written = detector.export(  # type: ignore[attr-defined]
        format="onnx", dynamic=True, simplify=False, nms=nms, device="cpu", verbose=False
    )
    model = load_model(Path(written))
    info = read_info(model, "export")
    wanted = HeadKind.END_TO_END if end_to_end and has_end_to_end else HeadKind.RAW
    if info.head is not wanted:
        raise UnsupportedModelError(f"export: got the head {info.head.value}, wanted {wanted.value}")
    return model
