"""Fake devices for the scheduler: each runs one batch at a time, for exactly as long as was predicted, on a fake clock.

A call takes exactly as long as the scheduler believes; the device takes batches in the order of `DeviceTurns`, as
replicas do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from serve_app.batching import Batch
from serve_app.device_turns import DeviceTurns
from serve_app.frames import Frame, Priority
from serve_app.pool_queue import SHARE_BEFORE
from serve_app.scheduler import Scheduler
from serve_app.verdicts import VerdictKind

# Comparisons of sums of floats, in seconds.
EPS_S = 1e-9


@dataclass(eq=False)
class Run:
    """A batch, and when it was sent, reached its device, was begun, ended and answered."""

    batch: Batch
    sent_s: float
    at_device_s: float
    start_s: float | None = None
    end_s: float | None = None
    is_answered: bool = False

    @property
    def is_critical(self) -> bool:
        """Whether its frames are critical."""
        return self.batch.pieces[0].frame.priority is Priority.CRITICAL

    @property
    def frame_ids(self) -> set[str]:
        """Whose pieces it holds."""
        return {piece.frame.frame_id for piece in self.batch.pieces}


@dataclass
class Device:
    """One replica's device."""

    turns: DeviceTurns[Run]
    running: Run | None = None


class World:
    """A scheduler with its devices; `play` lets frames arrive and runs until all of them have ended.

    Attributes:
        around_s: what each call takes beside its run, as the scheduler believes as well.
        runs: every batch, in the order in which they were sent.
        outcomes: how each frame ended.
        ended_s: when.
        on_decided: called with the time after every decision.
    """

    def __init__(
        self, scheduler: Scheduler, replicas: dict[str, Iterable[str]], *, max_starve_s: float, around_s: float = 0.0
    ):
        self.scheduler = scheduler
        self.around_s = around_s
        self.devices = {
            (pool, name): Device(DeviceTurns(max_starve_s)) for pool, names in replicas.items() for name in names
        }
        for pool, names in replicas.items():
            scheduler.replicas_ready(pool, list(names))
            scheduler._pools[pool].around_s = around_s
        self.runs: list[Run] = []
        self.outcomes: dict[str, str] = {}
        self.ended_s: dict[str, float] = {}
        self.on_decided: Callable[[float], None] = lambda _: None
        self._before_s = SHARE_BEFORE * around_s
        self._after_s = around_s - self._before_s
        self._coming: deque[Run] = deque()
        self._answers: deque[tuple[float, Run]] = deque()

    def held(self, pool: str, name: str) -> list[Run]:
        """The batches of a replica that were not answered yet."""
        return [run for run in self.runs if (run.batch.pool, run.batch.replica) == (pool, name) and not run.is_answered]

    def play(self, frames: Iterable[Frame], cancelled_s: dict[str, float] | None = None) -> None:
        """Let frames arrive at their times, and some be cancelled at theirs, until nothing is left to happen."""
        arrivals = deque(sorted(frames, key=lambda frame: frame.arrived_s))
        cancels = deque(sorted((at_s, name) for name, at_s in (cancelled_s or {}).items()))
        while True:
            times = [device.running.end_s for device in self.devices.values() if device.running]
            times += [arrivals[0].arrived_s] if arrivals else []
            times += [cancels[0][0]] if cancels else []
            times += [self._coming[0].at_device_s] if self._coming else []
            times += [self._answers[0][0]] if self._answers else []
            wake_s = self.scheduler.next_wake_s()
            times += [] if wake_s is None else [wake_s]
            if not times:
                return
            now_s = min(times)
            self._devices_go_on(now_s)
            self._answers_come(now_s)
            while arrivals and arrivals[0].arrived_s <= now_s:
                self._arrives(arrivals.popleft(), now_s)
            while cancels and cancels[0][0] <= now_s:
                self._cancels(cancels.popleft()[1], now_s)
            self._decides(now_s)

    def _devices_go_on(self, now_s: float) -> None:
        """Runs end, batches come, and devices that are free begin the next one."""
        for device in self.devices.values():
            if device.running and device.running.end_s <= now_s:
                self._answers.append((device.running.end_s + self._after_s, device.running))
                device.running = None
        while self._coming and self._coming[0].at_device_s <= now_s:
            run = self._coming.popleft()
            self.devices[run.batch.pool, run.batch.replica].turns.add(run, now_s, urgent=run.batch.urgent)
        for device in self.devices.values():
            if device.running is None and len(device.turns):
                device.running = device.turns.next(now_s)
                device.running.start_s, device.running.end_s = now_s, now_s + device.running.batch.run_s

    def _answers_come(self, now_s: float) -> None:
        while self._answers and self._answers[0][0] <= now_s:
            _, run = self._answers.popleft()
            run.is_answered = True
            batch = run.batch
            done = self.scheduler.batch_ended(batch.batch_id, now_s, busy_s=batch.run_s, around_s=self.around_s)
            for frame in done:
                self._end(frame.frame_id, "finished", now_s)

    def _arrives(self, frame: Frame, now_s: float) -> None:
        arrival = self.scheduler.arrived(frame)
        if arrival.verdict.kind is VerdictKind.REJECT:
            self._end(frame.frame_id, "rejected", now_s)
        if arrival.superseded is not None:
            self._end(arrival.superseded.frame_id, "superseded", now_s)

    def _cancels(self, frame_id: str, now_s: float) -> None:
        if self.scheduler.cancelled(frame_id):
            self._end(frame_id, "cancelled", now_s)

    def _decides(self, now_s: float) -> None:
        decisions = self.scheduler.decide(now_s)
        for each in decisions.expired:
            self._end(each.frame.frame_id, "expired", now_s)
        for batch in decisions.batches:
            run = Run(batch, now_s, now_s + self._before_s)
            self.runs.append(run)
            self._coming.append(run)
        self._devices_go_on(now_s)
        self.on_decided(now_s)

    def _end(self, frame_id: str, how: str, now_s: float) -> None:
        assert frame_id not in self.outcomes, f"{frame_id} ended twice"
        self.outcomes[frame_id], self.ended_s[frame_id] = how, now_s
