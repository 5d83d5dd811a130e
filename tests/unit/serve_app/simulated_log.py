"""A frame log as a router would have written it, of a simulated minute: the production scheduler under overload.

To make one by hand: python tests/unit/serve_app/simulated_log.py frames.jsonl [SECONDS [LOAD]]
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np

from engines.detections import Detections
from serve_app.config import load_plan
from serve_app.errors import FrameExpiredError, FrameFailedError, FrameRejectedError
from serve_app.frame_log import frame_record
from serve_app.latency import LatencyModel
from serve_app.results import FrameResult, StageTimes
from serve_app.scheduler import Scheduler
from serve_app.simulation.failures import Failure, FailureKind
from serve_app.simulation.simulate import Simulation
from serve_app.simulation.simulated_calls import SimulatedCalls
from serve_app.simulation.simulation_run import OUTCOMES, VERDICTS, SimulationRun
from serve_app.simulation.traces import Bursts, CameraGroup, FleetSpec
from serve_app.verdicts import Outcome, Verdict, VerdictKind

PLAN = Path(__file__).parents[3] / "bench" / "overload.yaml"
# Two CPU replicas serve some 25 frames a second of these; the booms come in bursts, and tall ones fit no canvas well.
FLEET = (
    CameraGroup("gate", 3, (240, 320), 2.0, 0.8, 0.25, 1.0),
    CameraGroup("belt", 4, (384, 640), 1.5, 0.1, 0.25, 1.0),
    CameraGroup("door", 2, (416, 416), 1.0, 0.0, None, 1.0),
    CameraGroup("press", 2, (720, 720), 0.5, 0.0, None, 1.0),
    CameraGroup("boom", 2, (540, 960), 1.0, 0.0, None, 1.0, Bursts(20.0, 4.0, 4.0)),
    CameraGroup("yard", 1, (1080, 1920), 0.2, 0.0, None, 6.0),
)
REASONS = {
    VerdictKind.ADMIT: "in time by prediction",
    VerdictKind.DEFER: "a large frame: served when nothing more urgent waits, or when it must begin",
    VerdictKind.DEGRADE: "rung {rung}: light on {canvas} instead of full on its own canvas",
    VerdictKind.REJECT: "predicted to finish {late:.3f} s after its deadline, 1.204 s of work is ahead of it",
}
ERRORS = {
    Outcome.REJECTED: FrameRejectedError, Outcome.EXPIRED: FrameExpiredError, Outcome.FAILED: FrameFailedError,
}  # fmt: skip


def simulated_run(seconds: float = 60.0, load: float = 3.2, seed: int = 7) -> SimulationRun:
    """A minute of the fleet; one replica dies after half of it."""
    plan = load_plan(PLAN)
    scheduler = Scheduler(plan, LatencyModel())
    trace = FleetSpec(FLEET, duration_s=seconds, seed=seed).at_load(load)
    failures = [Failure(seconds / 2, None, FailureKind.DIES, 1.0)]
    calls = SimulatedCalls(before_s=0.004, after_s=0.003)
    lots = random.Random(seed)
    return Simulation(plan, scheduler, LatencyModel(), lots.gauss, calls=calls, failures=failures).run(trace)


def records(run: SimulationRun, *, router: str = "router-1", start_s: float = 5000.0) -> list[dict]:
    """A record of each frame, in the order in which they ended."""
    return [_record(run, row, router, start_s) for row in np.argsort(run.end_s, kind="stable").tolist()]


def _record(run: SimulationRun, row: int, router: str, start_s: float) -> dict:
    trace, outcome = run.trace, OUTCOMES[run.outcome[row] - 1]
    kind = VERDICTS[run.verdict[row] - 1]
    at_s, end_s, slo_s = trace.at_s[row], run.end_s[row], run.deadline_s[row] - trace.at_s[row]
    rung, batch = int(run.rung[row]), int(run.batch[row])
    canvas, times, size, replica = None, StageTimes(total_s=end_s - at_s, queue_s=end_s - at_s), 0, None
    if outcome is Outcome.FINISHED:
        canvas = run.batches.canvases[run.batches.canvas[batch]]
        size, replica = int(run.batches.size[batch]), f"cpu-{(batch * 7919) % 2 + 1}"
        infer_s = float(run.batches.ran_s[batch])
        queue_s = float(max(0.0, end_s - at_s - infer_s - 0.012))
        transfer_s = end_s - at_s - infer_s - queue_s - 0.003
        times = StageTimes(queue_s, max(0.0, transfer_s), 0.002, infer_s, 0.001, end_s - at_s)
    size_hw = trace.sizes_hw[trace.size[row]]
    model = "full" if rung == 0 else "light"
    reason = REASONS[kind].format(rung=rung, canvas=canvas, late=0.2 + row % 7 / 10)
    error = ERRORS[outcome](f"frame {outcome.value}: {reason}") if outcome in ERRORS else None
    padding = 0.0
    if canvas is not None:
        scale = min(canvas.height / size_hw[0], canvas.width / size_hw[1])
        padding = max(0.0, 1 - size_hw[0] * size_hw[1] * scale**2 / canvas.num_px)
    result = FrameResult(
        f"f-{row:06d}", trace.cameras[trace.camera[row]], size_hw, "critical" if trace.is_critical[row] else "normal",
        outcome, Detections.none(), (), Verdict(kind, reason, rung=rung), error,
        bucket=None if canvas is None else ("light-" if rung else "") + str(canvas.height), pool="cpu",
        replica=replica, model=model if canvas else None, canvas=canvas, batch_size=size, padding_fraction=padding,
        rung=rung, num_tiles=4 if run.is_tiled[row] else 0, times=times, router=router,
    )  # fmt: skip
    return frame_record(result, start_s + float(at_s), float(slo_s))


def write_log(path: Path, content: list[dict]) -> Path:
    """Write records as a router does."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in content), encoding="utf-8")
    return path


if __name__ == "__main__":
    target, *numbers = sys.argv[1:]
    write_log(Path(target), records(simulated_run(*map(float, numbers))))
