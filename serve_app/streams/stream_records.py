"""Items of a stream as JSON lines: the frame log's record with its boxes, or a gap."""

from __future__ import annotations

import json
from typing import Any

from serve_app.frame_log import frame_record
from serve_app.results import FrameResult
from serve_app.streams.stream_values import Answer, StreamItem


def item_line(item: StreamItem) -> str:
    """One line of JSON without its end."""
    return json.dumps(item_record(item), ensure_ascii=False)


def item_record(item: StreamItem) -> dict[str, Any]:
    """The record of an item.

    `frame` is the frame's number of its camera and `frame_at_s` its time there. A gap has `gap`, its cause, and
    `num_frames`, beginning with `frame`; where the service said something of the frame, its whole record as well.
    """
    if isinstance(item, Answer):
        return frame_record(item.result) | boxes_of(item.result) | {
            "frame": item.frame.number, "frame_at_s": round(item.frame.at_s, 6),
        }  # fmt: skip
    told = {} if item.result is None else frame_record(item.result) | boxes_of(item.result)
    return told | {
        "camera": item.camera, "gap": item.cause.value, "frame": item.first_number, "num_frames": item.num_frames,
        "reason": item.reason,
    }  # fmt: skip


def boxes_of(result: FrameResult) -> dict[str, object]:
    """What was found, rounded for reading."""
    return {
        "boxes_xyxy": [[round(float(value), 2) for value in box] for box in result.detections.boxes_xyxy],
        "scores": [round(float(score), 4) for score in result.detections.scores],
        "class_names": list(result.class_names),
    }
