"""The value that every engine returns: boxes, scores and classes of one frame; and the forms that others know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import supervision

# What picks boxes: the index of one, a slice, indices, or a mask with a bool for each.
Selection = int | slice | Sequence[int] | Sequence[bool] | npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]
# A line of COCO's JSON: ids, numbers, and the box as a list.
CocoRecord = dict[str, int | float | str | list[float]]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The boxes found on one frame, best score first.

    `class_names` below is always the name of each box's class, as results carry it: so long as the boxes are many.

    Attributes:
        boxes_xyxy: float32, shape `(N, 4)`, each row `(x_min, y_min, x_max, y_max)` in px of the image it speaks of.
        scores: float32, shape `(N,)`, in 0..1.
        class_ids: int64, shape `(N,)`, indices into the model's class names.
    """

    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, selection: Selection) -> Detections:
        """Those of a mask, a slice, indices, or one index, in its order; `IndexError` beyond the last."""
        kept = selected(len(self), selection)
        return Detections(self.boxes_xyxy[kept], self.scores[kept], self.class_ids[kept])

    @staticmethod
    def none() -> Detections:
        """No box at all."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def to_supervision(self, class_names: Sequence[str] | None = None) -> supervision.Detections:
        """The same boxes as `supervision.Detections`; the arrays are copies. Needs the `supervision` extra.

        Args:
            class_names: kept as `data["class_name"]`, where supervision's annotators look; None: left out.

        Raises:
            SupervisionExtraMissingError: the package is not installed; says how to get it.
        """
        from engines.supervision_form import to_supervision

        return to_supervision(self, class_names)

    @staticmethod
    def from_supervision(detections: supervision.Detections) -> Detections:
        """Boxes that went through supervision, in its order; what has no place here (masks, tracks, data) is left out.

        Raises:
            ValueError: it has no scores or no classes.
        """
        from engines.supervision_form import from_supervision

        return from_supervision(detections)

    def to_coco(
        self,
        image_id: int | str,
        *,
        category_ids: Mapping[int, int] | None = None,
        first_annotation_id: int | None = None,
    ) -> list[CocoRecord]:
        """One JSON-ready record a box, as COCO has them: boxes `[x_min, y_min, width, height]` in px.

        Args:
            image_id: of the frame in the data set.
            category_ids: the data set's id of each class id; None: the class id itself.
            first_annotation_id: None: COCO's result form, what `pycocotools` evaluates: `image_id`, `category_id`,
                `bbox`, `score`. A number: its annotation form, a data set to label or train with: `id` counting from
                it, `area` and `iscrowd` beside them.

        Raises:
            ValueError: `category_ids` lacks a class that was found.
        """
        from engines.coco_form import to_coco

        return to_coco(self, image_id, category_ids=category_ids, first_annotation_id=first_annotation_id)

    def plot(self, image_hwc: npt.NDArray[np.uint8], class_names: Sequence[str] | None = None) -> npt.NDArray[np.uint8]:
        """A new picture: the frame with its boxes, each with name and score.

        Args:
            image_hwc: uint8 `(height, width, 3)` BGR, the frame that the boxes speak of; only read.
            class_names: None: classes are shown as `class N`.

        Raises:
            FrameArrayError: the array is no such image; says how to convert it.
        """
        from engines.drawing import draw_detections
        from engines.frame_array import check_frame

        names = [f"class {class_id}" for class_id in self.class_ids] if class_names is None else class_names
        return draw_detections(check_frame(image_hwc), self, names)


def selected(count: int, selection: Selection) -> npt.NDArray[np.intp]:
    """The indices, among `count`, that a selection picks: always an array of one axis.

    Raises:
        IndexError: an index beyond the last, a mask of another length, or nothing that picks boxes.
    """
    picks = selection if isinstance(selection, slice) else np.asarray(selection)
    if isinstance(picks, np.ndarray) and picks.dtype == np.float64 and not picks.size:
        picks = picks.astype(np.intp)  # an empty list, of which NumPy makes floats
    kept = np.atleast_1d(np.arange(count)[picks])
    if kept.ndim != 1:
        raise IndexError(
            f"selection: got {selection!r}, allowed are an index, a slice, indices, or a mask of {count} bools"
        )
    return kept
