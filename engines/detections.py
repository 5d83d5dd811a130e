"""The value that every engine returns: boxes, scores and classes of one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The boxes found on one frame, best score first.

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

    @staticmethod
    def none() -> Detections:
        """No box at all."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
