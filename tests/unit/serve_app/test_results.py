"""What a caller gets for a frame."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from engines.cpu_device import CpuDevice
from engines.detections import Detections
from engines.spec import CanvasShape, WarmShape
from engines.tiles import Window
from serve_app.errors import FrameExpiredError, FrameRejectedError
from serve_app.results import (
    BatchReply,
    BatchRequest,
    FrameResult,
    PoolStatus,
    ReplicaReport,
    ServiceStatus,
    StageTimes,
)
from serve_app.verdicts import Outcome, Verdict, VerdictKind


def result(**changes) -> FrameResult:
    """A frame that finished with nothing found; `changes` replace its fields."""
    fields = {
        "frame_id": "a",
        "camera": "gate-1",
        "size_hw": (480, 640),
        "priority": "normal",
        "outcome": Outcome.FINISHED,
        "detections": Detections.none(),
    }
    return FrameResult(**(fields | changes))


def test_a_finished_frame_is_handed_through():
    """The very same result, also when nothing was found on it."""
    finished = result()

    assert finished.unless_failed() is finished


def test_the_error_of_a_frame_is_raised_as_it_is():
    """With its type and its attributes."""
    error = FrameRejectedError("frame rejected: full", 0.25)

    with pytest.raises(FrameRejectedError) as caught:
        result(outcome=Outcome.REJECTED, error=error).unless_failed()

    assert caught.value is error


def test_a_frame_that_no_replica_saw_says_so():
    """The defaults are those of a frame that was refused at arrival."""
    refused = result(outcome=Outcome.REJECTED)

    assert (refused.bucket, refused.pool, refused.replica, refused.model, refused.canvas) == (None,) * 5
    assert (refused.batch_size, refused.padding_fraction, refused.class_names) == (0, 0.0, ())
    assert (refused.rung, refused.num_tiles) == (0, 0)
    assert refused.times == StageTimes(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_results_cross_process_borders():
    """With their error, canvas and verdict; enums stay the same objects."""
    sent = result(
        outcome=Outcome.EXPIRED,
        verdict=Verdict(VerdictKind.DEGRADE, "rung 2: light on 480x640", rung=2),
        error=FrameExpiredError("too late"),
        canvas=CanvasShape(480, 640),
        rung=2,
        num_tiles=6,
        times=StageTimes(queue_s=1.0, total_s=1.0),
    )

    arrived = pickle.loads(pickle.dumps(sent))  # noqa: S301 (our own)

    assert arrived.outcome is Outcome.EXPIRED
    assert (arrived.verdict, arrived.canvas, arrived.times) == (sent.verdict, sent.canvas, sent.times)
    assert (arrived.rung, arrived.num_tiles, arrived.verdict.kind) == (2, 6, VerdictKind.DEGRADE)
    assert isinstance(arrived.canvas, CanvasShape)
    with pytest.raises(FrameExpiredError, match="too late"):
        arrived.unless_failed()


def test_batches_cross_process_borders():
    """A request is compared by value; a reply brings boxes for one frame and an error for the other."""
    windows = (None, Window(0, 60, 480, 640))
    request = BatchRequest("vga", CanvasShape(480, 640), True, ((480, 640), (480, 700)), windows)
    found = Detections(np.ones((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    reply = BatchReply("near-1", ((found, ("thing",)), FrameExpiredError("no")), 0.1, 0.2, 0.3, 0.4, 0.5)

    sent = pickle.loads(pickle.dumps(request))  # noqa: S301 (our own)
    assert (sent, sent.urgent, sent.windows[1].x_min) == (request, True, 60)
    assert sent != dataclasses.replace(request, urgent=False)
    arrived = pickle.loads(pickle.dumps(reply))  # noqa: S301 (our own)
    (boxes, names), error = arrived.frames
    assert (boxes.boxes_xyxy.tolist(), names, str(error)) == ([[1.0] * 4], ("thing",), "no")
    assert (arrived.fetch_s, arrived.preprocess_s, arrived.staged_s) == (0.1, 0.2, 0.3)
    assert (arrived.infer_s, arrived.postprocess_s) == (0.4, 0.5)


def test_reports_and_statuses_cross_process_borders():
    """They are compared by value, so that a test, or a watcher, sees what changed."""
    latencies = (("vga", WarmShape(CanvasShape(480, 640), 2), 0.02),)
    report = ReplicaReport("near-1", "node", 3, 1.5, CpuDevice().facts(), latencies)
    status = ServiceStatus(1.0, (PoolStatus("near", 5, 1, (report,), 0.5, 2),), {"finished": 3}, 6, 1)

    arrived = pickle.loads(pickle.dumps(status))  # noqa: S301 (our own)
    assert arrived == status
    (pool,) = arrived.pools
    assert (pool.backlog_s, pool.rung, pool.replicas[0].latencies) == (0.5, 2, latencies)
    assert isinstance(pool.replicas[0].latencies[0][1], WarmShape)


def test_results_cannot_be_changed():
    """What is recorded is what the caller got."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        result().outcome = Outcome.FAILED
