"""Boxes as `supervision.Detections` and back. Needs the `supervision` extra, which is imported at the first call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engines.detections import Detections
from engines.errors import EngineError

if TYPE_CHECKING:
    import supervision

# Where supervision's annotators and sinks look for the names of classes (its `CLASS_NAME_DATA_FIELD`).
CLASS_NAME_FIELD = "class_name"


class SupervisionExtraMissingError(EngineError):
    """The `supervision` extra is not installed."""


def to_supervision(found: Detections, class_names: Sequence[str] | None = None) -> supervision.Detections:
    """See `Detections.to_supervision`."""
    try:
        import supervision as sv
    except ImportError as err:
        raise SupervisionExtraMissingError(
            f"supervision: {err}; converting needs the supervision extra: pip install 'framelane[supervision]'"
        ) from err
    return sv.Detections(
        xyxy=found.boxes_xyxy.copy(),
        confidence=found.scores.copy(),
        class_id=found.class_ids.copy(),
        # An array of strings also where it is empty: NumPy would make floats of nothing.
        data={} if class_names is None else {CLASS_NAME_FIELD: np.array(class_names, dtype=np.str_)},
    )


def from_supervision(detections: supervision.Detections) -> Detections:
    """See `Detections.from_supervision`."""
    if detections.confidence is None or detections.class_id is None:
        missing = "confidence" if detections.confidence is None else "class_id"
        raise ValueError(
            f"detections: got no {missing}, allowed are detections with scores and classes; set detections.{missing} "
            "to an array with a value a box"
        )
    return Detections(
        np.array(detections.xyxy, np.float32),
        np.array(detections.confidence, np.float32),
        np.array(detections.class_id, np.int64),
    )
