"""What metrics cost a router for each frame, beside what it takes to log one.

Usage: python bench/metrics_cost.py [--frames N]

Frames of three sizes and two priorities end in batches of two, with a flush for every 5 s of them: at 100 and at 10
frames a second. A record in Ray is counted as `--record-us`, which a replica measured with Ray 2.60 (5 to 6 µs); the
rest is measured here. Wanted: below 50 µs a frame at 100 frames a second.
"""

from __future__ import annotations

import argparse
import itertools
import time

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app.batching import Batch
from serve_app.frame_log import frame_record
from serve_app.metrics import FLUSH_INTERVAL_S, RouterMetrics
from serve_app.plan import Bucket, Plan, Pool
from serve_app.pool_load import PoolLoad
from serve_app.results import BatchReply, FrameResult, StageTimes
from serve_app.verdicts import Outcome, Verdict, VerdictKind

RATES_HZ = (100.0, 10.0)
WANTED_US = 50.0
CANVASES = {"vga": CanvasShape(480, 640), "hd": CanvasShape(736, 1280), "uhd": CanvasShape(1088, 1920)}
PLAN = Plan(
    {"full": "full.onnx"},
    (Pool("gpu"),),
    tuple(Bucket(name, "full", "gpu", (canvas,), (1, 2, 4)) for name, canvas in CANVASES.items()),
)
LOADS = {"gpu": PoolLoad(1, 3, 1, 0.2, 0, 0.01)}


class CountingSink:
    """Counts records."""

    def __init__(self) -> None:
        """Begin at 0."""
        self.num_records = 0

    def add(self, name: str, labels: dict[str, str], amount: float) -> None:
        """One record."""
        self.num_records += bool(name) and amount >= 0 and labels is not None

    def set(self, name: str, labels: dict[str, str], value: float) -> None:
        """One record."""
        self.num_records += bool(name) and value >= 0 and labels is not None


def results() -> list[tuple[FrameResult, Batch]]:
    """Frames that ended, each with a batch of its size."""
    found = []
    for (name, canvas), priority, step in itertools.product(CANVASES.items(), ("normal", "critical"), range(20)):
        times = StageTimes(0.001 * step, 0.003, 0.002, 0.01 + 0.002 * step, 0.001, 0.02 + 0.004 * step)
        verdict = Verdict(VerdictKind.ADMIT, "in time")
        result = FrameResult(
            f"{name}-{step}", "gate", (canvas.height, canvas.width), priority,
            Outcome.FINISHED, Detections.none(), (), verdict, None,
            name, "gpu", "gpu-1", "full", canvas, 2, 0.02, times=times,
        )  # fmt: skip
        found.append((result, Batch(1, "gpu", "gpu-1", name, "full", canvas, False, 0.02, ())))
    return found


def us_a_frame(num_frames: int, rate_hz: float, record_us: float) -> tuple[float, float]:
    """Microseconds of counting, and of records in Ray, for each frame."""
    sink = CountingSink()
    metrics = RouterMetrics(PLAN, sink)
    frames = list(itertools.islice(itertools.cycle(results()), num_frames))
    reply = BatchReply("gpu-1", (), 0.001, 0.002, 0.01, 0.03, 0.001)
    began_s = time.process_time()
    told_s = -FLUSH_INTERVAL_S
    for number, (result, batch) in enumerate(frames):
        metrics.frame_ended(result)
        if number % 2:
            metrics.batch_answered(batch, reply)
        now_s = number / rate_hz
        if now_s - told_s >= 1.0:
            told_s = now_s
            metrics.tick(now_s, LOADS, {}, num_in_flight=3, num_records_lost=0)
    counting_us = (time.process_time() - began_s) / num_frames * 1e6
    return counting_us, sink.num_records * record_us / num_frames


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=50_000)
    parser.add_argument("--record-us", type=float, default=6.0)
    asked = parser.parse_args()
    for rate_hz in RATES_HZ:
        counting_us, record_us = us_a_frame(asked.frames, rate_hz, asked.record_us)
        total_us = counting_us + record_us
        wanted = f", wanted below {WANTED_US:.0f}" if rate_hz == RATES_HZ[0] else ""
        print(
            f"{rate_hz:4.0f} frames/s: {counting_us:.1f} µs counting + {record_us:.1f} µs records in Ray = "
            f"{total_us:.1f} µs a frame{wanted}; {total_us * rate_hz / 1e4:.2f} % of a core"
        )
    result, _ = results()[0]
    began_s = time.process_time()
    for _ in range(asked.frames):
        frame_record(result, 1.0, 1.0)
    record_us = (time.process_time() - began_s) / asked.frames * 1e6
    print(f"for comparison, a frame's record for the frame log: {record_us:.1f} µs")


if __name__ == "__main__":
    main()
