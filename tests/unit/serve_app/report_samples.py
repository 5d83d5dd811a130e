"""Records of a frame log, and what is read of them."""

from __future__ import annotations

import json
from pathlib import Path

from serve_app.report.log_figures import LogFigures, read_logs

RECORD = {
    "at_s": 100.0, "frame_id": "f-1", "camera": "gate", "source_hw": [480, 640], "canvas_hw": [480, 640],
    "bucket": "vga", "pool": "cpu", "replica": "cpu-1", "model": "full", "priority": "normal", "slo_s": 1.0,
    "verdict": "admit", "verdict_reason": "in time by prediction", "rung": 0, "num_tiles": 0, "batch_size": 1,
    "padding_fraction": 0.0, "num_detections": 3, "queue_ms": 10.0, "transfer_ms": 5.0, "preprocess_ms": 1.0,
    "infer_ms": 80.0, "postprocess_ms": 4.0, "total_ms": 100.0, "outcome": "finished", "error": None,
    "router": "router-1",
}  # fmt: skip


def record(**changes) -> dict:
    """A finished frame with other fields."""
    return RECORD | changes


def unfinished(outcome: str, **changes) -> dict:
    """A frame that no replica answered."""
    none = dict.fromkeys(("canvas_hw", "bucket", "replica", "model"))
    return record(
        **none | {"outcome": outcome, "error": f"frame {outcome}", "batch_size": 0, "infer_ms": 0.0} | changes
    )


def write(path: Path, *lines: dict | str) -> Path:
    """A log of records, and of lines as they are."""
    texts = [line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines]
    path.write_bytes("".join(texts).encode("utf-8", "surrogatepass"))
    return path


def figures_of(folder: Path, *lines: dict | str) -> LogFigures:
    """What is read of one log."""
    return read_logs([write(folder / "frames.jsonl", *lines)])
