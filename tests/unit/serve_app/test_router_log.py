"""What a router logs: failures with their frame, refusals by the second, changes; and never a line for a good frame."""

from __future__ import annotations

import dataclasses
import json
import logging
import logging.handlers

import pytest
from metric_samples import BATCH, ended
from ray._common.formatters import JSONFormatter
from ray.serve._private import constants

from serve_app.errors import FrameFailedError, FrameLostError, FrameRejectedError
from serve_app.log_fields import EXTRA_FIELDS, FIELDS, MAX_TEXT, OUR_LOGGERS, fields, log_to_serve
from serve_app.pool_load import PoolLoad
from serve_app.pressure import MemoryLevel
from serve_app.router_log import RouterLog
from serve_app.verdicts import Outcome, RejectCause, Verdict, VerdictKind

LOAD = PoolLoad(2, 0, 0, 0.0, 0, 0.01)


@pytest.fixture
def lines(caplog):
    """What was logged, as (level, message, fields)."""
    caplog.set_level(logging.DEBUG, "serve_app")

    def taken():
        found = [(each.levelname, each.getMessage(), getattr(each, EXTRA_FIELDS, None)) for each in caplog.records]
        caplog.clear()
        return found

    return taken


def refused(cause=RejectCause.LATE, **changes):
    """A frame that was not let in."""
    verdict = Verdict(VerdictKind.REJECT, "late", 0.5, cause=cause)
    return ended(outcome=Outcome.REJECTED, verdict=verdict, error=FrameRejectedError("late by 1 s"), **changes)


def test_a_failed_frame_is_a_line_with_its_id(lines):
    """Everything to find it with: frame, camera, pool, replica."""
    RouterLog().frame_ended(ended(outcome=Outcome.FAILED, error=FrameFailedError("the engine failed")))

    assert lines() == [
        (
            "ERROR",
            "frame f-1 failed: the engine failed",
            {
                "frame_id": "f-1", "camera": "gate-1", "priority": "normal", "outcome": "failed", "pool": "near",
                "bucket": "vga", "model": "full", "engine_replica": "near-1",
            },
        )
    ]  # fmt: skip


def test_pixels_that_are_gone_are_no_error_of_ours(lines):
    """Their sender died: a warning."""
    RouterLog().frame_ended(ended(outcome=Outcome.FAILED, error=FrameLostError("gone")))

    assert [level for level, _, _ in lines()] == ["WARNING"]


def test_good_frames_and_those_that_the_load_ended_leave_no_line(lines):
    """The frame log has them."""
    log = RouterLog()
    for outcome in (Outcome.FINISHED, Outcome.EXPIRED, Outcome.SUPERSEDED, Outcome.CANCELLED):
        log.frame_ended(ended(outcome=outcome))
    log.tick(1.0, {"near": LOAD})

    assert lines() == []


def test_refusals_are_one_line_a_second(lines):
    """With their number, by cause, and the first of them."""
    log = RouterLog()
    for number in range(500):
        log.frame_ended(refused(RejectCause.LATE if number % 5 else RejectCause.FRAMES, frame_id=f"f-{number}"))
    assert lines() == []
    log.tick(10.0, {})
    log.frame_ended(refused(frame_id="later"))
    log.tick(10.9, {})
    said = {"frame_id": "f-0", "camera": "gate-1", "cause": "frames", "num_frames": 500}
    assert lines() == [
        ("WARNING", "500 frames refused (400 late, 100 frames); the first one: late by 1 s", said)
    ]  # fmt: skip
    log.tick(11.0, {})
    log.tick(12.0, {})
    assert [(level, message) for level, message, _ in lines()] == [
        ("WARNING", "1 frames refused (1 late); the first one: late by 1 s")
    ]


def test_changes_of_a_pool_are_told_once(lines):
    """Replicas, memory and rung; not what was there at the first look."""
    log = RouterLog()
    changed = dataclasses.replace(LOAD, num_replicas=1, rung=2, memory=MemoryLevel.CRITICAL, num_waiting=9)
    for load in (LOAD, LOAD, changed, changed):
        log.tick(1.0, {"near": load})

    assert lines() == [
        ("INFO", "pool near: 1 replicas ready, were 2", {"pool": "near", "num_replicas": 1}),
        ("WARNING", "pool near: memory critical, was normal", {"pool": "near", "level": "critical"}),
        ("INFO", "pool near: noncritical frames from rung 2 on, was 0", {"pool": "near", "rung": 2}),
    ]


def test_a_dead_replica_is_told_with_its_batch(lines):
    """Which batch went where."""
    RouterLog().replica_died(BATCH, RuntimeError("gone"))

    assert lines()[0][2] == {"pool": "near", "engine_replica": "near-1", "batch_id": 7}


def test_no_field_has_a_name_that_serve_fills_in():
    """Serve's formatter would put its own value there, or refuse the line."""
    taken = {
        constants.SERVE_LOG_REQUEST_ID, constants.SERVE_LOG_ROUTE, constants.SERVE_LOG_APPLICATION,
        constants.SERVE_LOG_DEPLOYMENT, constants.SERVE_LOG_REPLICA, constants.SERVE_LOG_COMPONENT,
        constants.SERVE_LOG_COMPONENT_ID, constants.SERVE_LOG_MESSAGE, constants.SERVE_LOG_LEVEL_NAME,
        constants.SERVE_LOG_TIME, "job_id", "worker_id", "node_id", "actor_id", "task_id", "filename", "lineno",
        "process", "timestamp_ns",
    }  # fmt: skip
    assert constants.SERVE_LOG_EXTRA_FIELDS == EXTRA_FIELDS
    assert taken & set(FIELDS) == set()


def test_fields_are_known_short_and_present():
    """A misspelt one would be a column of its own; what clients send is cut; None is left out."""
    assert fields(frame_id="x" * 1000, camera=None, batch_id=0) == {
        EXTRA_FIELDS: {"frame_id": "x" * MAX_TEXT, "batch_id": 0}
    }
    with pytest.raises(KeyError, match=r"got cammera; allowed are frame_id, "):
        fields(cammera="gate-1")


@pytest.fixture
def serve_logger(tmp_path):
    """Serve's logger as a replica has it, writing JSON to a file; all loggers are put back at the end."""
    names = ("ray.serve", *OUR_LOGGERS)
    before = {
        name: (list((each := logging.getLogger(name)).handlers), each.propagate, each.level) for name in names
    }  # fmt: skip
    path = tmp_path / "replica.log"
    file = logging.FileHandler(path)
    file.setFormatter(JSONFormatter())
    logging.getLogger("ray.serve").handlers = [logging.handlers.MemoryHandler(1, target=file)]
    yield path
    file.close()
    for name, (handlers, propagate, level) in before.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_in_a_replica_our_lines_go_to_serves_file_as_json(serve_logger):
    """At our own level, with the fields beside the message, a line a record whatever a client sent."""
    log_to_serve("info")
    odd = 'gate\n"1" \ud800'
    RouterLog().frame_ended(ended(camera=odd, outcome=Outcome.FAILED, error=FrameFailedError("no")))
    logging.getLogger("serve_app.x").debug("too fine")
    logging.getLogger("engines.x").info("warm")
    said = [json.loads(line) for line in serve_logger.read_text().splitlines()]

    assert [(each["levelname"], each["message"]) for each in said] == [
        ("ERROR", "frame f-1 failed: no"),
        ("INFO", "warm"),
    ]
    assert (said[0]["frame_id"], said[0]["camera"]) == ("f-1", odd)


def test_outside_a_replica_our_loggers_stay_as_they_are():
    """The command line and tests have no file of Serve's."""
    before = [list(logging.getLogger(name).handlers) for name in OUR_LOGGERS]
    log_to_serve("debug")

    assert [logging.getLogger(name).handlers for name in OUR_LOGGERS] == before
