"""A sink that records what it is told, and results to tell of."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from serve_samples import HD, VGA

from engines.detections import Detections
from engines.device_facts import DeviceFacts
from serve_app.batching import Batch
from serve_app.results import BatchReply, FrameResult, ReplicaReport, StageTimes
from serve_app.verdicts import Outcome, Verdict, VerdictKind

TIMES = StageTimes(0.04, 0.003, 0.002, 0.03, 0.001, 0.076)
FINISHED = FrameResult(
    "f-1", "gate-1", (480, 640), "normal", Outcome.FINISHED, Detections.none(), (), Verdict(VerdictKind.ADMIT, "so"),
    None, "vga", "near", "near-1", "full", VGA, 2, 0.25, times=TIMES,
)  # fmt: skip
BATCH = Batch(7, "near", "near-1", "vga", "full", VGA, False, 0.016, ("piece", "piece"))
REPLY = BatchReply("near-1", (), fetch_s=0.001, preprocess_s=0.002, staged_s=0.04, infer_s=0.03, postprocess_s=0.004)


class RecordingSink:
    """Keeps every series: its total for counters, its last value for gauges."""

    def __init__(self):
        self.totals = defaultdict(float)
        self.gauges = {}
        self.num_records = 0

    def add(self, name, labels, amount):
        """A counter grew."""
        assert amount >= 0
        self.num_records += 1
        self.totals[name, tuple(labels.items())] += amount

    def set(self, name, labels, value):
        """A gauge was set."""
        self.num_records += 1
        self.gauges[name, tuple(labels.items())] = value

    def of(self, name):
        """The series of a counter that are not 0, by the values of their labels."""
        return {
            tuple(value for _, value in labels): total
            for (found, labels), total in self.totals.items()
            if found == name and total
        }

    def gauge(self, name):
        """The series of a gauge, by the values of their labels."""
        return {
            tuple(value for _, value in labels): now for (found, labels), now in self.gauges.items() if found == name
        }


def ended(**changes) -> FrameResult:
    """A finished frame with other fields."""
    return dataclasses.replace(FINISHED, **changes)


def facts(**changes) -> DeviceFacts:
    """A device that says nothing but its name."""
    fields = dict.fromkeys(field.name for field in dataclasses.fields(DeviceFacts)) | {"name": "device"}
    return DeviceFacts(**(fields | changes))


def report(replica: str, **changes) -> ReplicaReport:
    """A replica whose device says this."""
    return ReplicaReport(replica, "node", 3, 1.0, facts(**changes))


__all__ = ["BATCH", "FINISHED", "HD", "REPLY", "RecordingSink", "ended", "facts", "report"]
