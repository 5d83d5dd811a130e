"""Results of durable frames as bytes: JSON behind a checksum, exact to the last bit of a box."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app import errors
from serve_app.errors import FrameFailedError, FramelaneError
from serve_app.results import FrameResult, StageTimes
from serve_app.spool.record import DamagedRecordError, json_object, opened, sealed
from serve_app.verdicts import Outcome, Verdict, VerdictKind


def result_bytes(result: FrameResult) -> bytes:
    """A result as sealed bytes. A float32 as a decimal number and back is the same float32."""
    found = result.detections
    content = {
        "frame_id": result.frame_id,
        "camera": result.camera,
        "size_hw": list(map(int, result.size_hw)),
        "priority": result.priority,
        "outcome": result.outcome.value,
        "boxes_xyxy": found.boxes_xyxy.tolist(),
        "scores": found.scores.tolist(),
        "class_ids": found.class_ids.tolist(),
        "class_names": list(result.class_names),
        "verdict": _verdict_value(result.verdict),
        "error": _error_value(result.error),
        "bucket": result.bucket,
        "pool": result.pool,
        "replica": result.replica,
        "model": result.model,
        "canvas": list(result.canvas) if result.canvas is not None else None,
        "batch_size": result.batch_size,
        "padding_fraction": float(result.padding_fraction),
        "rung": result.rung,
        "num_tiles": result.num_tiles,
        "times": asdict(result.times),
    }
    return sealed(json.dumps(content).encode())


def result_from(data: bytes) -> FrameResult:
    """The result that `result_bytes` wrote; raises `DamagedRecordError` for any other bytes."""
    content = json_object(opened(data))
    try:
        return FrameResult(
            frame_id=content["frame_id"],
            camera=content["camera"],
            size_hw=(int(content["size_hw"][0]), int(content["size_hw"][1])),
            priority=content["priority"],
            outcome=Outcome(content["outcome"]),
            detections=Detections(
                np.array(content["boxes_xyxy"], np.float32).reshape(-1, 4),
                np.array(content["scores"], np.float32),
                np.array(content["class_ids"], np.int64),
            ),
            class_names=tuple(content["class_names"]),
            verdict=_verdict(content["verdict"]),
            error=_error(content["error"]),
            bucket=content["bucket"],
            pool=content["pool"],
            replica=content["replica"],
            model=content["model"],
            canvas=CanvasShape(*content["canvas"]) if content["canvas"] is not None else None,
            batch_size=content["batch_size"],
            padding_fraction=content["padding_fraction"],
            rung=content["rung"],
            num_tiles=content["num_tiles"],
            times=StageTimes(**content["times"]),
        )
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as err:
        raise DamagedRecordError(f"result: is not one of ours ({type(err).__name__}: {err})") from err


def _verdict_value(verdict: Verdict | None) -> dict[str, Any] | None:
    return asdict(verdict) | {"kind": verdict.kind.value} if verdict is not None else None


def _verdict(value: dict[str, Any] | None) -> Verdict | None:
    return Verdict(**value | {"kind": VerdictKind(value["kind"])}) if value is not None else None


def _error_value(error: FramelaneError | None) -> list[Any] | None:
    return [type(error).__name__, error.message, error.retry_after_s] if error is not None else None


def _error(value: list[Any] | None) -> FramelaneError | None:
    """A fresh error of the same class, if this version still has it."""
    if value is None:
        return None
    name, message, retry_after_s = value
    kind = getattr(errors, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, FramelaneError)):
        kind = FrameFailedError
    return kind(str(message), retry_after_s)
