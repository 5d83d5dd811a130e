"""One JSON line a frame, which never costs a frame."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import resource
from pathlib import Path

import numpy as np
import pytest

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app.errors import FrameFailedError, InvalidFrameError
from serve_app.frame_log import FrameLog, frame_record
from serve_app.results import FrameResult, StageTimes
from serve_app.verdicts import Outcome, Verdict, VerdictKind

FINISHED = FrameResult(
    frame_id="f1",
    camera="Tür-1",
    size_hw=(480, 641),
    priority="critical",
    outcome=Outcome.FINISHED,
    detections=Detections(np.ones((2, 4), np.float32), np.ones(2, np.float32), np.zeros(2, np.int64)),
    class_names=("thing", "thing"),
    verdict=Verdict(VerdictKind.ADMIT, "room in its lane"),
    bucket="vga",
    pool="near",
    replica="near-1",
    model="full",
    canvas=CanvasShape(736, 1280),
    batch_size=4,
    padding_fraction=1 / 3,
    rung=2,
    num_tiles=6,
    times=StageTimes(0.0010004, 0.002, 0.003, 0.004, 0.005, 0.0150004),
    router="router-1",
)
FINISHED_RECORD = {
    "at_s": 12.5,
    "frame_id": "f1",
    "camera": "Tür-1",
    "source_hw": [480, 641],
    "canvas_hw": [736, 1280],
    "bucket": "vga",
    "pool": "near",
    "replica": "near-1",
    "model": "full",
    "priority": "critical",
    "slo_s": 0.25,
    "verdict": "admit",
    "verdict_reason": "room in its lane",
    "rung": 2,
    "num_tiles": 6,
    "batch_size": 4,
    "padding_fraction": 0.3333,
    "num_detections": 2,
    "queue_ms": 1.0,
    "transfer_ms": 2.0,
    "preprocess_ms": 3.0,
    "infer_ms": 4.0,
    "postprocess_ms": 5.0,
    "total_ms": 15.0,
    "outcome": "finished",
    "error": None,
    "router": "router-1",
}
UNSEEN_RECORD = {
    "router": None,
    "canvas_hw": None,
    "bucket": None,
    "pool": None,
    "replica": None,
    "model": None,
    "rung": 0,
    "num_tiles": 0,
    "batch_size": 0,
    "padding_fraction": 0.0,
    "num_detections": 0,
    "queue_ms": 0.0,
    "transfer_ms": 0.0,
    "preprocess_ms": 0.0,
    "infer_ms": 0.0,
    "postprocess_ms": 0.0,
    "total_ms": 0.0,
}


def refused(**changes) -> FrameResult:
    """A frame that was refused as invalid."""
    fields = {
        "frame_id": "f2",
        "camera": "gate-1",
        "size_hw": (480, 640),
        "priority": "normal",
        "outcome": Outcome.REJECTED,
        "detections": Detections.none(),
        "error": InvalidFrameError("frame: no"),
    }
    return FrameResult(**(fields | changes))


def lines(path) -> list[dict]:
    """What a reader of the log gets."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def log_at():
    """Makes frame logs, and closes them at the end."""
    made = []

    def make(path):
        made.append(FrameLog(path))
        return made[-1]

    yield make
    for log in made:
        log.close()


def test_a_finished_frame_is_recorded_whole():
    """Every field under its name with its unit; times in milliseconds to the microsecond."""
    assert frame_record(FINISHED, 12.5, 0.25) == FINISHED_RECORD
    assert list(frame_record(FINISHED, 12.5, 0.25)) == list(FINISHED_RECORD)


def test_times_of_arrival_are_written_to_the_microsecond():
    """Enough to play a log again; more digits would only be the clock's noise."""
    record = frame_record(FINISHED, 12.123456789, 1 / 3)
    assert (record["at_s"], record["slo_s"]) == (12.123457, 0.333333)


def test_what_nobody_knows_is_null():
    """Of an invalid frame no deadline is known."""
    record = frame_record(FINISHED, 12.5, None)
    assert (record["at_s"], record["slo_s"]) == (12.5, None)
    assert (frame_record(FINISHED)["at_s"], frame_record(FINISHED)["slo_s"]) == (None, None)


def test_a_refused_frame_is_recorded_with_its_error():
    """What never reached a replica has no place there, but a reason."""
    verdict = Verdict(VerdictKind.REJECT, "500 frames wait", 1.0)

    assert frame_record(refused(verdict=verdict), 12.5, 1.0) == UNSEEN_RECORD | {
        "at_s": 12.5,
        "slo_s": 1.0,
        "frame_id": "f2",
        "camera": "gate-1",
        "source_hw": [480, 640],
        "priority": "normal",
        "verdict": "reject",
        "verdict_reason": "500 frames wait",
        "outcome": "rejected",
        "error": "frame: no",
    }


@pytest.mark.parametrize(
    ("size_hw", "recorded"),
    [(None, None), (7, None), ((480,), None), ((1.5, float("nan")), None), ("480x640", None), ([0, 5], [0, 5])],
    ids=str,
)
def test_a_frame_of_no_size_is_recorded_too(tmp_path, log_at, size_hw, recorded):
    """What a client said wrongly must not cost the record, let alone the frame."""
    log = log_at(tmp_path / "frames.jsonl")
    log.write(refused(size_hw=size_hw), 12.5, 0.25)

    assert [line["source_hw"] for line in lines(tmp_path / "frames.jsonl")] == [recorded]
    assert log.num_lost == 0


@pytest.mark.parametrize(
    ("said", "recorded"),
    [(None, "None"), (7, "7"), (b"gate", "b'gate'"), ("\ud800", "\ud800"), ("a\nb\u2028", "a\nb\u2028")],
    ids=ascii,
)
def test_a_camera_of_no_name_is_recorded_too(tmp_path, log_at, said, recorded):
    """Other types are written as text; half a character and line breaks do not break the line."""
    log = log_at(tmp_path / "frames.jsonl")
    log.write(refused(camera=said, frame_id=said, priority=said), 12.5, 0.25)
    log.write(FINISHED, 12.5, 0.25)

    first, second = map(json.loads, (tmp_path / "frames.jsonl").read_text(encoding="utf-8").strip("\n").split("\n"))
    assert (first["camera"], first["frame_id"], first["priority"]) == (recorded,) * 3
    assert second == FINISHED_RECORD
    assert log.num_lost == 0


def test_records_are_lines_in_the_order_of_their_frames(tmp_path, log_at):
    """A reader sees each line at once and whole; the folder is made; an earlier log is continued."""
    path = tmp_path / "logs" / "new" / "frames.jsonl"
    log = log_at(path)
    log.write(FINISHED, 12.5, 0.25)
    assert lines(path) == [FINISHED_RECORD]
    log.write(refused(), 12.5, 0.25)
    log.close()
    log.write(FINISHED, 12.5, 0.25)

    assert [line["frame_id"] for line in lines(path)] == ["f1", "f2", "f1"]
    assert log.num_lost == 0


def test_a_log_that_saw_no_frame_makes_no_file(tmp_path):
    """Nothing happens in a constructor, and closing what was not opened is nothing."""
    FrameLog(tmp_path / "logs" / "frames.jsonl").close()

    assert list(tmp_path.iterdir()) == []


def broken_paths(tmp_path) -> dict[str, Path]:
    """Places that cannot be written to, whoever runs this."""
    (tmp_path / "file").write_text("")
    return {
        "a folder": tmp_path,
        "below a file": tmp_path / "file" / "frames.jsonl",
        "no right": Path("/proc/frames.jsonl"),
        "disk full": Path("/dev/full"),
    }


@pytest.mark.parametrize("where", ["a folder", "below a file", "no right", "disk full"])
def test_what_cannot_be_written_is_counted_and_told_once(tmp_path, caplog, where):
    """Frames are served on; the operator is told, but not once a frame; even closing never raises."""
    path = broken_paths(tmp_path)[where]
    log = FrameLog(path)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            log.write(FINISHED, 12.5, 0.25)
        log.close()

    assert log.num_lost == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages[0].startswith(f"frame log {path}: ")
    assert caplog.messages[0].endswith("; frames are served on, their records are lost")


def test_the_reason_of_a_full_disk_is_named(caplog):
    """In the system's words."""
    log = FrameLog(Path("/dev/full"))
    log.write(FINISHED, 12.5, 0.25)
    log.close()

    assert f"[Errno {errno.ENOSPC}]" in caplog.text


def test_records_are_whole_again_when_there_is_room_again(tmp_path, log_at):
    """Of a disk that fills up in the middle of a line, no half of it spoils a later record; lost ones stay lost."""
    path = tmp_path / "frames.jsonl"
    log = log_at(path)
    log.write(FINISHED, 12.5, 0.25)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        log.write(refused(), 12.5, 0.25)
        log.write(refused(), 12.5, 0.25)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write(FINISHED, 12.5, 0.25)

    readable = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            readable.append(json.loads(line))
        except ValueError:
            assert len(line) <= 10
    assert readable == [FINISHED_RECORD, FINISHED_RECORD]
    assert log.num_lost == 2


def test_a_failed_frame_is_recorded_with_who_failed_it():
    """The error's words, beside the replica and the batch."""
    error = FrameFailedError("engine of bucket vga: out of memory", 1.0)
    failed = dataclasses.replace(FINISHED, outcome=Outcome.FAILED, error=error, detections=Detections.none())

    assert frame_record(failed, 12.5, 0.25) == FINISHED_RECORD | {
        "outcome": "failed",
        "error": "engine of bucket vga: out of memory",
        "num_detections": 0,
    }


@pytest.mark.parametrize(
    ("kind", "rung", "outcome"),
    [
        (VerdictKind.DEGRADE, 1, Outcome.FINISHED),
        (VerdictKind.DEFER, 0, Outcome.EXPIRED),
        (VerdictKind.ADMIT, 0, Outcome.SUPERSEDED),
    ],
    ids=lambda value: value.value if hasattr(value, "value") else str(value),
)
def test_every_verdict_and_outcome_has_its_word(kind, rung, outcome):
    """The words are those of the enums, which readers of logs rely on."""
    ended = dataclasses.replace(FINISHED, verdict=Verdict(kind, "so", rung=rung), rung=rung, outcome=outcome)
    assert frame_record(ended, 12.5, 0.25) == FINISHED_RECORD | {
        "verdict": kind.value, "verdict_reason": "so", "rung": rung, "outcome": outcome.value
    }  # fmt: skip
