"""Detecting in this process, without a service: the one-line call of notebooks and scripts, and `framelane detect`.

The code is that of a replica, so boxes are those that the service finds on the same canvas.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.boxes import DetectionLimits
from engines.detector import detect_placed, place_batch
from engines.errors import EngineError, ImageFileError
from engines.frame_array import check_frame
from engines.image_file import IMAGE_SUFFIXES, read_image
from engines.letterbox import Image
from engines.onnx_run import OnnxEngine
from engines.spec import CanvasShape, WarmShape, fitting_canvas
from serve_app.config import DEFAULT_MODEL, model_path
from serve_app.prediction import Prediction
from serve_app.results import StageTimes

if TYPE_CHECKING:
    from typing_extensions import Self

# Larger images are scaled down to this many px (4K): a CPU needs seconds and gigabytes for more.
MAX_CANVAS_PX = 3840 * 2176
# Names of files that are read one frame at a time, by `framelane stream`.
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})

_LIMITS = DetectionLimits()

One = str | Path | Image
Source = One | Iterable[One]


class Detector:
    """A model on the CPU of this process. Calls from several threads wait for each other.

    `with Detector("best.onnx") as detector: …` frees the model's memory at the end; otherwise it goes with the object.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        *,
        conf: float = _LIMITS.min_score,
        iou: float = _LIMITS.max_iou,
        max_det: int = _LIMITS.max_boxes,
        canvas: CanvasShape | None = None,
    ) -> None:
        """Read the model.

        Args:
            model: an ONNX detector: a path, or a bundled one such as `bundled:inspection-full`.
            conf: boxes that score no more are dropped; 0 to 1.
            iou: NMS: of two boxes of one class that overlap more, the better one stays; 0 to 1.
            max_det: at most so many boxes an image, the best ones.
            canvas: where every image is placed; None: each on a canvas of its own size.

        Raises:
            EngineError: the file is missing or no detector.
            InvalidPlanError: no such bundled model.
            ValueError: a limit that is none.
        """
        self._engine = OnnxEngine(model_path(str(model)), limits=DetectionLimits(conf, iou, max_det))
        self._canvas = canvas
        self._lock = threading.Lock()
        self._warm: set[CanvasShape] = set()

    @property
    def names(self) -> dict[int, str]:
        """The name of each class that the model knows, by class id."""
        return dict(enumerate(self._engine.model.class_names))

    def __call__(self, source: Source) -> list[Prediction]:
        """Detect on an image, or on several, each at its own size.

        Args:
            source: a path, an array (uint8 `(height, width, 3)` BGR), a folder of images, or several of these.

        Returns:
            One prediction an image, in their order; files of a folder by name. They hold their images: for many, use
            `each`.

        Raises:
            EngineError: the one image cannot be read or looked at, or the folder holds none. Of several images, each
                such one has its `error`.
        """
        predictions = list(self.each(source))
        if len(predictions) == 1 and _is_alone(source):
            predictions[0].unless_failed()
        return predictions

    def each(self, source: Source) -> Iterator[Prediction]:
        """As calling it, one after the other; an image that cannot be had is a prediction with its `error`."""
        for index, one in enumerate(_images(source)):
            path = str(one) if isinstance(one, str | Path) else f"image {index}"
            try:
                with self._lock:
                    prediction = self._detect(one, path)
            except EngineError as err:
                prediction = Prediction(path, None, error=err)
            yield prediction

    def close(self) -> None:
        """Free the model's memory; a later call needs a new detector."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _detect(self, one: One, path: str) -> Prediction:
        began_s = time.perf_counter()
        image_hwc = check_frame(_read(Path(one)) if isinstance(one, str | Path) else one)
        size_hw, model = (image_hwc.shape[0], image_hwc.shape[1]), self._engine.model
        canvas = self._canvas or model.fixed_canvas or native_canvas(size_hw, model.stride_px)
        if canvas not in self._warm:
            self._engine.warm([WarmShape(canvas, 1)])
            self._warm.add(canvas)
        placing_s = time.perf_counter()
        placed = place_batch([image_hwc], canvas)
        placed_s = time.perf_counter()
        output = detect_placed(self._engine, placed)
        ended_s = time.perf_counter()
        found = output.detections[0]
        times = StageTimes(
            preprocess_s=placed_s - placing_s,
            infer_s=output.run_s,
            postprocess_s=ended_s - placed_s - output.run_s,
            total_s=ended_s - began_s,
        )
        names = tuple(model.class_name(int(class_id)) for class_id in found.class_ids)
        return Prediction(path, image_hwc, size_hw, found, names, canvas, times, model.class_names)


def predict(
    source: Source,
    model: str | Path = DEFAULT_MODEL,
    *,
    conf: float = _LIMITS.min_score,
    iou: float = _LIMITS.max_iou,
    max_det: int = _LIMITS.max_boxes,
) -> list[Prediction]:
    """Detect on an image, a folder or a list with a model that is read for this call; arguments as for `Detector`.

    For many calls keep a `Detector`; for cameras, start a service.
    """
    with Detector(model, conf=conf, iou=iou, max_det=max_det) as detector:
        return detector(source)


def native_canvas(size_hw: tuple[int, ...], stride_px: int) -> CanvasShape:
    """The canvas of an image's own size, or for one of more than `MAX_CANVAS_PX` that of a smaller copy."""
    height, width = size_hw
    shrink = min(1.0, (MAX_CANVAS_PX / (height * width)) ** 0.5)
    return fitting_canvas((int(height * shrink), int(width * shrink)), stride_px)


def _is_alone(source: Source) -> bool:
    """Whether a source is no collection: a path or an array, or what is refused as one."""
    return isinstance(source, str | Path | np.ndarray | bytes) or not isinstance(source, Iterable)


def _images(source: Source) -> Iterator[One]:
    """The single images of a source; a folder without any stands for itself, and is refused when it is read."""
    if isinstance(source, str | Path):
        folder = Path(source)
        inside = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES) if folder.is_dir() else ()
        yield from sorted(inside) or [folder]
    elif _is_alone(source):
        yield source  # type: ignore[misc]  # what is no array is refused in words
    else:
        for one in source:
            yield from _images(one)


def _read(path: Path) -> Image:
    """An image file; what is another thing is told apart before gigabytes of it are read as one image."""
    if path.is_dir():
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ImageFileError(f"folder {path}: got no image in it, allowed are files ending in {kinds}")
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        raise ImageFileError(
            f"image {path}: is a video by its name, allowed is an image file; play it with: framelane stream {path}"
        )
    return read_image(path)
