"""One JSON line for each frame that a router has seen, whatever became of it."""

from __future__ import annotations

import errno
import json
import logging
from io import FileIO
from pathlib import Path

from serve_app.errors import InvalidPlanError
from serve_app.frames import is_size
from serve_app.results import FrameResult

logger = logging.getLogger(__name__)

Record = dict[str, "str | int | float | list[int] | None"]


def frame_record(result: FrameResult, at_s: float | None = None, slo_s: float | None = None) -> Record:
    """The record of one frame; times in milliseconds, sizes as `[height, width]` in px.

    `at_s` is when it came (seconds on the router's monotonic clock: differences count) and `slo_s` the seconds that it
    had from then on; null where nobody knows.

    A refused frame carries whatever its client said: names of other types are written as text, a size that is none as
    null.
    """
    times = result.times
    return {
        "at_s": None if at_s is None else round(at_s, 6),
        "frame_id": str(result.frame_id),
        "camera": str(result.camera),
        "source_hw": [int(side) for side in result.size_hw] if is_size(result.size_hw) else None,
        "canvas_hw": list(result.canvas) if result.canvas else None,
        "bucket": result.bucket,
        "pool": result.pool,
        "replica": result.replica,
        "model": result.model,
        "priority": str(result.priority),
        "slo_s": None if slo_s is None else round(slo_s, 6),
        "verdict": result.verdict.kind.value if result.verdict else None,
        "verdict_reason": result.verdict.reason if result.verdict else None,
        "rung": result.rung,
        "num_tiles": result.num_tiles,
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
        "router": result.router,
    }


class FrameLog:
    """Appends records to a file. A full disk costs records, never frames: it is logged once, and counted.

    Not thread-safe. Each line is one unbuffered write: a reader sees whole lines, a crash loses none, and a record that
    was counted as lost does not turn up later.
    """

    def __init__(self, path: Path) -> None:
        """Take the path; the file is opened by the first record."""
        self._path = path
        self._file: FileIO | None = None
        self._torn = False
        self.num_lost = 0

    def check(self) -> None:
        """Raise `InvalidPlanError` unless the file can be opened for appending; leaves it there."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.open("ab").close()
        except OSError as err:
            raise InvalidPlanError(
                f"frame_log: {self._path} cannot be written ({(err.strerror or str(err)).lower()}); name another file"
            ) from err

    def write(self, result: FrameResult, at_s: float, slo_s: float | None) -> None:
        """Append one record; see `frame_record`."""
        text = json.dumps(frame_record(result, at_s, slo_s), ensure_ascii=False)
        # Half a character, as in a name that was no UTF-8, becomes its JSON escape.
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("ab", buffering=0)
            self._append(self._file, b"\n" + line if self._torn else line)
        except OSError as err:
            if self.num_lost == 0:
                logger.warning("frame log %s: %s; frames are served on, their records are lost", self._path, err)
            self.num_lost += 1

    def _append(self, file: FileIO, line: bytes) -> None:
        """Write a line; if the disk takes only a part of it, the next one begins with a line break."""
        self._torn = file.write(line) != len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, "only a part of a record was written")

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
