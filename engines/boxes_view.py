"""One frame's boxes under the names that ultralytics' `Boxes` gives them, for code that was written for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.detections import Detections, Selection

Float = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Names and meaning as in ultralytics; arrays are NumPy's, never tensors, and stay on the host.

    Attributes:
        detections: the boxes themselves.
        orig_shape: (height, width) in px of the frame.
    """

    detections: Detections
    orig_shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.detections)

    def __getitem__(self, selection: Selection) -> Boxes:
        """Those of a mask, a slice, indices or one index; of one index a `Boxes` of length 1."""
        return Boxes(self.detections[selection], self.orig_shape)

    def __iter__(self) -> Iterator[Boxes]:
        return (self[index] for index in range(len(self)))

    @property
    def xyxy(self) -> Float:
        """Shape `(N, 4)`, rows `(x_min, y_min, x_max, y_max)` in px of the frame."""
        return self.detections.boxes_xyxy

    @property
    def xywh(self) -> Float:
        """Shape `(N, 4)`, rows `(x_centre, y_centre, width, height)` in px of the frame."""
        corners_min, corners_max = self.xyxy[:, :2], self.xyxy[:, 2:]
        return np.hstack([(corners_min + corners_max) / 2, corners_max - corners_min])

    @property
    def xyxyn(self) -> Float:
        """As `xyxy`, as fractions of the frame's width and height."""
        return self.xyxy / self._sides

    @property
    def xywhn(self) -> Float:
        """As `xywh`, as fractions of the frame's width and height."""
        return self.xywh / self._sides

    @property
    def conf(self) -> Float:
        """Scores, shape `(N,)`, in 0..1."""
        return self.detections.scores

    @property
    def cls(self) -> npt.NDArray[np.int64]:
        """Class ids, shape `(N,)`; integers, where ultralytics has floats."""
        return self.detections.class_ids

    @property
    def data(self) -> Float:
        """Shape `(N, 6)`, rows `(x_min, y_min, x_max, y_max, score, class id)`."""
        return np.column_stack([self.xyxy, self.conf, self.cls.astype(np.float32)])

    @property
    def id(self) -> None:
        """None: nobody tracks here; supervision's trackers do, see examples/tracking."""
        return

    @property
    def is_track(self) -> bool:
        """Whether there are track ids: never."""
        return False

    def cpu(self) -> Boxes:
        """These: they are on the host already."""
        return self

    def numpy(self) -> Boxes:
        """These: they are NumPy's already."""
        return self

    @property
    def _sides(self) -> Float:
        height, width = self.orig_shape
        return np.array([width, height, width, height], np.float32)
