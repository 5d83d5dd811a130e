"""Boxes as COCO's JSON has them. Knows no file: who writes one decides about images and categories."""

from __future__ import annotations

from collections.abc import Mapping

from engines.detections import CocoRecord, Detections

# Beyond a hundredth of a px, and of a score's thousandth, digits are noise of FP16 and of the machine.
BOX_DECIMALS, SCORE_DECIMALS = 2, 5


def to_coco(
    found: Detections,
    image_id: int | str,
    *,
    category_ids: Mapping[int, int] | None = None,
    first_annotation_id: int | None = None,
) -> list[CocoRecord]:
    """See `Detections.to_coco`."""
    records: list[CocoRecord] = []
    for index, (box, score, class_id) in enumerate(
        zip(found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True)
    ):
        x_min, y_min, x_max, y_max = box
        width, height = x_max - x_min, y_max - y_min
        record: CocoRecord = {
            "image_id": image_id,
            "category_id": _category_id(class_id, category_ids),
            "bbox": [round(value, BOX_DECIMALS) for value in (x_min, y_min, width, height)],
            "score": round(score, SCORE_DECIMALS),
        }
        if first_annotation_id is not None:
            record |= {"id": first_annotation_id + index, "area": round(width * height, BOX_DECIMALS), "iscrowd": 0}
        records.append(record)
    return records


def _category_id(class_id: int, category_ids: Mapping[int, int] | None) -> int:
    if category_ids is None:
        return class_id
    if class_id not in category_ids:
        known = ", ".join(map(str, sorted(category_ids))) or "none"
        raise ValueError(
            f"category_ids: got a box of class {class_id}, allowed are those named: {known}; name it, or drop its "
            "boxes before (detections[mask])"
        )
    return category_ids[class_id]
