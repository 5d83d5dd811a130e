"""The gate's fail-safe: a part passes by one way only, and a silent service cannot hold it up."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from engines.detections import Detections
from engines.errors import ImageFileError
from serve_app.errors import FrameExpiredError, FrameRejectedError, ServiceUnavailableError
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome

SCRIPT = Path(__file__).parents[3] / "examples" / "defect_gate" / "gate.py"
PICTURE = np.zeros((192, 256, 3), np.uint8)
NEVER_S = 3600.0


@pytest.fixture(scope="module")
def gate():
    """The example's script as a module."""
    spec = importlib.util.spec_from_file_location("defect_gate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class FakeClient:
    """Answers as told: names of what was found, an error to raise or to answer, or silence."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []
        self.was_cancelled = False

    async def submit_async(self, image_hwc, *, camera, priority, slo_s):
        """See `Client.submit_async`."""
        self.asked.append((camera, priority, slo_s))
        if self.answer is None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise
        if isinstance(self.answer, Exception) and not isinstance(self.answer, FrameExpiredError | FrameRejectedError):
            raise self.answer
        error = self.answer if isinstance(self.answer, Exception) else None
        names = () if error else tuple(self.answer)
        boxes = Detections(
            np.ones((len(names), 4), np.float32), np.ones(len(names), np.float32), np.zeros(len(names), int)
        )
        outcome = Outcome.FINISHED if error is None else Outcome.EXPIRED
        return FrameResult("f", camera, image_hwc.shape[:2], priority, outcome, boxes, names, error=error)


def decided(gate, answer, deadline_s=NEVER_S, take=lambda: PICTURE):
    """The decision on one part, and the client that was asked."""
    client = FakeClient(answer)
    return asyncio.run(gate.decide(client, ("p1", take), deadline_s)), client


@pytest.mark.parametrize(
    ("answer", "passes", "reason"),
    [
        (["part"], True, "sound"),
        (["part", "hole", "hole", "stain"], False, "2 hole, 1 stain"),
        (["hole"], False, "1 hole"),
        ([], False, "no part in view"),
        (FrameExpiredError("too late"), False, "FrameExpiredError: too late"),
        (FrameRejectedError("full", 1.0), False, "FrameRejectedError: full"),
        (ServiceUnavailableError("gone"), False, "ServiceUnavailableError: gone"),
        (RuntimeError("a fault of ours"), False, "RuntimeError: a fault of ours"),
    ],
    ids=["sound", "defects", "defect without a part", "covered lens", "expired", "rejected", "no service", "bug"],
)
def test_only_a_finished_frame_of_a_part_without_defects_passes(gate, answer, passes, reason):
    """Everything else is a rejection with its reason."""
    decision, client = decided(gate, answer)
    assert (decision.part, decision.passes, decision.reason) == ("p1", passes, reason)
    assert client.asked == [("gate", "critical", NEVER_S)]


def test_a_silent_service_is_not_waited_for_beyond_the_deadline(gate):
    """The part is rejected, and the frame is given up, so that it takes nobody's time."""
    decision, client = decided(gate, None, deadline_s=0.01)
    assert (decision.passes, decision.reason) == (False, "no answer within 0.01 s")
    assert client.was_cancelled


def test_a_picture_that_cannot_be_taken_rejects_its_part(gate):
    """And the service is not asked."""

    def take():
        raise ImageFileError("image p1: truncated")

    decision, client = decided(gate, ["part"], take=take)
    assert (decision.passes, decision.reason, client.asked) == (False, "ImageFileError: image p1: truncated", [])


def test_a_part_that_hangs_holds_up_no_other(gate, capsys):
    """Each is decided on its own clock; all are told."""

    class OneHangs(FakeClient):
        """Silent for the first part, prompt for the others."""

        async def submit_async(self, image_hwc, **said):
            """See `FakeClient`."""
            self.answer = None if not self.asked else ["part"]
            return await super().submit_async(image_hwc, **said)

    parts = [(f"p{number}", lambda: PICTURE) for number in range(3)]
    decisions = asyncio.run(gate.run_gate(OneHangs(None), parts, 0.2, 0.0))
    assert [(decision.part, decision.passes) for decision in decisions] == [("p0", False), ("p1", True), ("p2", True)]
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in told] == ["p1", "p2", "p0"]
