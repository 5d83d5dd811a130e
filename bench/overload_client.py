"""The cameras of `overload.py` in a process of their own: plays a trace against a service, open loop.

Usage: python bench/overload_client.py --address HOST:PORT --system framelane|plain --job FILE --report FILE

Each frame is sent when it is due, whatever became of those before. What is awaited is timed from when it was due.
`overload.py` writes the job and reads the report.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from cpu_use import cpu_between, machine_busy_s, snapshot
from overload_figures import ERROR, EXPIRED_AT_CLIENT, FINISHED, LOST, UNANSWERED, Record
from overload_frames import camera_frames
from overload_trace import Send
from plain_serve import PlainClient

from engines.letterbox import Image
from serve_app.client import Client

FRAMELANE, PLAIN = "framelane", "plain"
# From the last preparation to the first frame.
LEAD_S = 0.2
# The first calls of a process open connections; they have this long.
WARM_SLO_S = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to play.

    Attributes:
        sends: the trace, ordered by time.
        seconds: its length.
        drain_s: how long to wait for answers after its end.
        root_pid, session: whose processes' CPU to count: the service's host and its Ray session.
    """

    sends: tuple[Send, ...]
    seconds: float
    drain_s: float
    root_pid: int
    session: str


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it.

    Attributes:
        records: one a frame, in the trace's order.
        cpu_s: CPU seconds by role, from the first send to the last answer.
        others_cores: how many cores were busy meanwhile with what is not ours, on average; it should be near 0.
    """

    records: tuple[Record, ...]
    cpu_s: dict[str, float]
    others_cores: float


class Target(Protocol):
    """A service that takes a frame, uint8 `(height, width, 3)`, which it only reads, and answers some result."""

    def submit_async(self, image_hwc: Image, *, camera: str, priority: str, slo_s: float) -> Awaitable[object]:
        """Serve one frame within `slo_s` seconds from now, if the service knows deadlines."""


def main() -> None:
    """Play the job and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True, help="of the service's Ray")
    parser.add_argument("--system", choices=(FRAMELANE, PLAIN), required=True)
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    options = parser.parse_args()
    job = job_from(json.loads(options.job.read_text()))
    plain = options.system == PLAIN
    target: Target = PlainClient.connect(options.address) if plain else Client.connect(options.address)
    report = asyncio.run(_play(target, job, camera_frames(), without_answer=UNANSWERED if plain else LOST))
    options.report.write_text(json.dumps(asdict(report)))


def job_from(content: Mapping[str, Any]) -> Job:
    """A job from what `json` makes of `asdict(job)`."""
    sends = tuple(Send(**{**send, "size_hw": tuple(send["size_hw"])}) for send in content["sends"])
    return Job(**{**content, "sends": sends})


def report_from(content: Mapping[str, Any]) -> Report:
    """A report from what `json` makes of `asdict(report)`."""
    return Report(**{**content, "records": tuple(Record(**record) for record in content["records"])})


async def _play(target: Target, job: Job, images: Mapping[str, Iterator[Image]], *, without_answer: str) -> Report:
    for camera in {send.size_hw: send.camera for send in job.sends}.values():
        await target.submit_async(next(images[camera]), camera=camera, priority="normal", slo_s=WARM_SLO_S)
    gc.collect()
    gc.disable()  # a full collection stops this process for as long as a small frame takes; the run is short
    before, busy_before_s, counted_s = snapshot(job.root_pid, job.session), machine_busy_s(), time.monotonic()
    began_s = time.monotonic() + LEAD_S
    tasks, lates_s = [], []
    for send in job.sends:
        due_s = began_s + send.at_s
        # Also when it is late already: answers that are there get their turn before the next frame.
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        lates_s.append(time.monotonic() - due_s)
        tasks.append(asyncio.create_task(_send(target, send, next(images[send.camera]), due_s, lates_s[-1])))
    if tasks:
        await asyncio.wait(tasks, timeout=max(0.0, began_s + job.seconds + job.drain_s - time.monotonic()))
    cpu_s = cpu_between(before, snapshot(job.root_pid, job.session))
    others_s = machine_busy_s() - busy_before_s - sum(cpu_s.values())
    others_cores = max(0.0, others_s) / (time.monotonic() - counted_s)
    records = []
    for send, late_s, task in zip(job.sends, lates_s, tasks, strict=True):
        records.append(task.result() if task.done() else _record(send, late_s, without_answer))
        task.cancel()
    return Report(tuple(records), cpu_s, others_cores)


async def _send(target: Target, send: Send, image_hwc: Image, due_s: float, late_s: float) -> Record:
    remaining_s = send.slo_s - late_s
    if remaining_s <= 0:
        return _record(send, late_s, EXPIRED_AT_CLIENT)
    try:
        answer = await target.submit_async(image_hwc, camera=send.camera, priority=send.priority, slo_s=remaining_s)
    except Exception as err:  # whatever a service raises is its outcome for this frame
        return _record(send, late_s, ERROR, error=f"{type(err).__name__}: {str(err)[:200]}")
    return _record(send, late_s, FINISHED, answer=answer, latency_s=time.monotonic() - due_s)


def _record(
    send: Send,
    late_s: float,
    outcome: str,
    *,
    answer: object = None,
    latency_s: float | None = None,
    error: str | None = None,
) -> Record:
    """The record of a frame; of the answer whatever it says: services differ in what they tell."""
    canvas, verdict = getattr(answer, "canvas", None), getattr(answer, "verdict", None)
    rung = getattr(answer, "rung", getattr(verdict, "rung", None))
    times = None if getattr(answer, "num_tiles", 0) else getattr(answer, "times", None)
    return Record(
        camera=send.camera,
        priority=send.priority,
        slo_s=send.slo_s,
        at_s=send.at_s,
        send_late_s=late_s,
        outcome=str(_value(getattr(answer, "outcome", outcome))),
        latency_s=latency_s,
        model=getattr(answer, "model", None),
        canvas=None if canvas is None else str(canvas),
        batch_size=getattr(answer, "batch_size", 0),
        verdict=None if verdict is None else str(_value(getattr(verdict, "kind", verdict))),
        rung=rung if isinstance(rung, int) else None,
        error=error,
        router_s=getattr(getattr(answer, "times", None), "total_s", None),
        way_s=None if times is None else times.transfer_s + times.preprocess_s,
        run_s=None if times is None else times.infer_s + times.postprocess_s,
    )


def _value(member: object) -> object:
    """The value of an enum's member; anything else as it is."""
    return getattr(member, "value", member)


if __name__ == "__main__":
    main()
