"""What can be done with the boxes of a frame, whoever found them: a service's `FrameResult`, a `Detector`'s prediction.

A name that ultralytics' `Results` has too means the same here; where it differs, its docstring says how.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from engines.boxes_view import Boxes
from engines.detections import CocoRecord, Detections, Selection, selected
from engines.errors import FrameArrayError
from engines.letterbox import Image

if TYPE_CHECKING:
    import supervision
    from typing_extensions import Self

# What JSON lines carry: digits beyond these are noise of the machine.
BOX_DECIMALS, SCORE_DECIMALS = 2, 4


class FrameBoxes:
    """Methods over `detections`, `class_names` and `size_hw`, which the dataclasses that inherit have as fields.

    The length is the number of boxes; but a result without any is a result, so it is never false. What converts or
    draws raises the frame's error where there is one: nothing found and nothing looked at must not look the same.
    """

    __slots__ = ()

    # A detector finds boxes only: like ultralytics, None for what a model does not give.
    masks: ClassVar[None] = None
    obb: ClassVar[None] = None
    keypoints: ClassVar[None] = None
    probs: ClassVar[None] = None

    if TYPE_CHECKING:  # at run time a property here would be taken for the default of the field

        @property
        def detections(self) -> Detections:
            """Boxes in px of the frame."""

        @property
        def class_names(self) -> tuple[str, ...]:
            """The name of each box's class."""

        @property
        def size_hw(self) -> tuple[int, int]:
            """(height, width) of the frame in px."""

        def unless_failed(self) -> Self:
            """Itself, or raises the frame's error."""

    def __len__(self) -> int:
        return len(self.detections)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, selection: Selection) -> Self:
        """The same frame with those boxes only: of a mask, a slice, indices or one index."""
        kept = selected(len(self), selection)
        names = tuple(self.class_names[index] for index in kept)
        changed: Self = replace(self, detections=self.detections[kept], class_names=names)  # type: ignore[type-var]
        return changed

    def __iter__(self) -> Iterator[Self]:
        return (self[index] for index in range(len(self)))

    @property
    def boxes(self) -> Boxes:
        """The boxes as ultralytics calls them: `xyxy`, `xywh`, `xyxyn`, `xywhn`, `conf`, `cls`."""
        return Boxes(self.detections, self.orig_shape)

    @property
    def orig_shape(self) -> tuple[int, int]:
        """(height, width) of the frame in px."""
        return self.size_hw

    @property
    def names(self) -> dict[int, str]:
        """The name of each class found on this frame, by class id; ultralytics' has all that the model knows."""
        return dict(zip(self.detections.class_ids.tolist(), self.class_names, strict=True))

    def to_supervision(self) -> supervision.Detections:
        """See `Detections.to_supervision`; with `data["class_name"]`. Raises the frame's error if it has one."""
        self.unless_failed()
        return self.detections.to_supervision(self.class_names)

    def to_coco(
        self,
        image_id: int | str,
        *,
        category_ids: Mapping[int, int] | None = None,
        first_annotation_id: int | None = None,
    ) -> list[CocoRecord]:
        """See `Detections.to_coco`. Raises the frame's error if it has one."""
        self.unless_failed()
        return self.detections.to_coco(image_id, category_ids=category_ids, first_annotation_id=first_annotation_id)

    def plot(self, image_hwc: Image) -> Image:
        """A new picture: the frame with its boxes, each with name and score.

        Args:
            image_hwc: the very frame, uint8 `(height, width, 3)` BGR; only read.

        Raises:
            FrameArrayError: no such image, or one of another size. Also raises the frame's error if it has one.
        """
        self.unless_failed()
        drawn_hwc = self.detections.plot(image_hwc, self.class_names)
        if drawn_hwc.shape[:2] != self.size_hw:
            got, allowed = ("×".join(map(str, size_hw)) for size_hw in (drawn_hwc.shape[:2], self.size_hw))
            raise FrameArrayError(
                f"plot: got an image of {got} px (height × width), allowed is the frame itself, of {allowed}; the "
                "boxes are in its px"
            )
        return drawn_hwc


def boxes_record(found: Detections, class_names: Sequence[str]) -> dict[str, list[Any]]:
    """Boxes in px, scores, class ids and names, JSON-ready: one entry a box in each of the four lists."""
    return {
        "boxes_xyxy": [[round(value, BOX_DECIMALS) for value in box] for box in found.boxes_xyxy.tolist()],
        "scores": [round(score, SCORE_DECIMALS) for score in found.scores.tolist()],
        "class_ids": found.class_ids.tolist(),
        "class_names": list(class_names),
    }
