"""What a `Detector` answers for one image: its boxes, and the image itself to draw them on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engines.detections import Detections
from engines.errors import EngineError
from engines.letterbox import Image
from engines.spec import CanvasShape
from serve_app.frame_boxes import FrameBoxes, boxes_record
from serve_app.results import StageTimes


@dataclass(frozen=True, slots=True, eq=False)
class Prediction(FrameBoxes):
    """One image's boxes; what can be done with them is in `FrameBoxes`.

    Attributes:
        path: of the image's file, as it was given; `image 0` and so on for arrays.
        image_hwc: uint8 `(height, width, 3)` BGR; None where `error` says why it could not be had.
        size_hw: (height, width) of the image in px.
        detections: boxes in px of the image.
        class_names: the name of each box's class.
        canvas: where it was placed; None if it was not.
        times: where the time went; `total_s` includes reading the file and, for a size that was not seen before,
            warming its canvas.
        model_names: the name of each class that the model knows, by class id.
        error: why there are no boxes; None if it was looked at.
    """

    path: str
    image_hwc: Image | None = field(repr=False)
    size_hw: tuple[int, int] = (0, 0)
    detections: Detections = field(default_factory=Detections.none)
    class_names: tuple[str, ...] = ()
    canvas: CanvasShape | None = None
    times: StageTimes = field(default_factory=StageTimes)
    model_names: tuple[str, ...] = ()
    error: EngineError | None = None

    @property
    def orig_img(self) -> Image | None:
        """`image_hwc`, as ultralytics calls it."""
        return self.image_hwc

    @property
    def names(self) -> dict[int, str]:
        """The name of each class that the model knows, by class id."""
        found = dict(zip(self.detections.class_ids.tolist(), self.class_names, strict=True))
        return dict(enumerate(self.model_names)) | found

    @property
    def speed(self) -> dict[str, float]:
        """Milliseconds that `preprocess`, `inference` and `postprocess` took, as ultralytics calls them."""
        times = self.times
        stages = {"preprocess": times.preprocess_s, "inference": times.infer_s, "postprocess": times.postprocess_s}
        return {name: taken_s * 1000 for name, taken_s in stages.items()}

    def unless_failed(self) -> Prediction:
        """This prediction, if the image was looked at; otherwise raises its error."""
        if self.error is not None:
            raise self.error
        return self

    def plot(self, image_hwc: Image | None = None) -> Image:
        """A new picture with the boxes, each with name and score; on the image itself unless another is given.

        Raises:
            FrameArrayError: another one that is no image of that size. Also raises the prediction's error.
        """
        self.unless_failed()
        shown_hwc = self.image_hwc if image_hwc is None else image_hwc
        return super(Prediction, self).plot(shown_hwc)  # type: ignore[arg-type]  # an image without error is there

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as `framelane detect --json` prints it; of an image with an error that alone, under `error`."""
        if self.error is not None:
            return {"image": self.path, "error": str(self.error)}
        times = self.times
        shown = times.preprocess_s + times.infer_s + times.postprocess_s
        stages = {
            "preprocess": times.preprocess_s,
            "infer": times.infer_s,
            "postprocess": times.postprocess_s,
            "read_and_warm": times.total_s - shown,
        }
        return {
            "image": self.path,
            "canvas_hw": list(self.canvas) if self.canvas else None,
            "source_hw": list(self.size_hw),
            **boxes_record(self.detections, self.class_names),
            "timings_ms": {name: round(taken_s * 1000, 2) for name, taken_s in stages.items()},
        }
