"""One JSON line for each frame that a router has seen, whatever became of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import IO

from serve_app.results import FrameResult

logger = logging.getLogger(__name__)

Record = dict[str, "str | int | float | list[int] | None"]


def frame_record(result: FrameResult) -> Record:
    """The record of one frame; times in milliseconds, sizes as `[height, width]` in px."""
    times = result.times
    return {
        "frame_id": result.frame_id,
        "camera": result.camera,
        "source_hw": list(result.size_hw),
        "canvas_hw": list(result.canvas) if result.canvas else None,
        "bucket": result.bucket,
        "pool": result.pool,
        "replica": result.replica,
        "model": result.model,
        "priority": result.priority,
        "verdict": result.verdict.kind.value if result.verdict else None,
        "verdict_reason": result.verdict.reason if result.verdict else None,
        "batch_size": result.batch_size,
        "padding_fraction": round(result.padding_fraction, 4),
        "num_detections": len(result.detections),
        "queue_ms": _ms(times.queue_s),
        "transfer_ms": _ms(times.transfer_s),
        "preprocess_ms": _ms(times.preprocess_s),
        "infer_ms": _ms(times.infer_s),
        "postprocess_ms": _ms(times.postprocess_s),
        "total_ms": _ms(times.total_s),
        "outcome": result.outcome.value,
        "error": str(result.error) if result.error else None,
    }


class FrameLog:
    """Appends records to a file. A full disk costs records, never frames: it is logged once, and counted.

    Not thread-safe. Lines are flushed one by one, so that a reader sees whole lines and a crash loses none.
    """

    def __init__(self, path: Path) -> None:
        """Take the path; the file is opened by the first record."""
        self._path = path
        self._file: IO[str] | None = None
        self.num_lost = 0

    def write(self, result: FrameResult) -> None:
        """Append one record."""
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("a", encoding="utf-8", buffering=1)
            self._file.write(json.dumps(frame_record(result), ensure_ascii=False) + "\n")
        except OSError as err:
            if self.num_lost == 0:
                logger.warning("frame log %s: %s; frames are served on, their records are lost", self._path, err)
            self.num_lost += 1

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
