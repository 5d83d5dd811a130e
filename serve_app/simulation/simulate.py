"""The production scheduler on a virtual clock: frames of a trace in, simulated devices instead of replicas.

Knows no file, no real clock and no lots but the ones it is given. It holds no policy either: order, admission and
batches are `scheduler.py`'s, the turns at a device are `device_turns.py`'s, so what is simulated is what is served.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import heappop, heappush
from typing import Any, Protocol

import numpy as np

from serve_app.batching import Batch
from serve_app.decisions import NOTHING, Arrival, Decisions
from serve_app.errors import FramelaneError, InvalidPlanError
from serve_app.frames import Frame, Priority
from serve_app.latency import LatencyModel
from serve_app.plan import Plan
from serve_app.replica_credits import new_tuple
from serve_app.simulation.failures import Failure, FailureKind, pool_of
from serve_app.simulation.run_recorder import RunRecorder
from serve_app.simulation.simulated_calls import SimulatedCalls
from serve_app.simulation.simulated_replica import BatchTimes, DeviceTimes, Gauss, Job, SimulatedReplica
from serve_app.simulation.simulated_scaling import SimulatedScaling
from serve_app.simulation.simulation_run import VERDICT_CODES, SimulationRun
from serve_app.simulation.traces import Floats, Trace
from serve_app.verdicts import Outcome, VerdictKind

# Frames are taken from the trace's columns by so many at a time: fast, and little memory.
FRAMES_A_CHUNK = 65_536
BYTES_A_PX = 3
# Looked up for every frame, see `lane_key.py`.
FINISHED, REJECT = Outcome.FINISHED, VerdictKind.REJECT
# So many decisions at one moment that change nothing, and the clock would stand for ever.
MAX_IDLE_WAKES = 100


class SimulationError(FramelaneError):
    """The policy broke a promise: a frame without an end or with two, or a clock that stands."""


class Policy(Protocol):
    """What is simulated: `Scheduler`, or another batcher to compare it with. See `Scheduler` for each method."""

    def arrived(self, frame: Frame) -> Arrival:
        """Judge a frame."""

    def decide(self, now_s: float) -> Decisions:
        """Say what to do now; `NOTHING` itself if that is all."""

    def next_wake_s(self) -> float | None:
        """When to ask again at the latest."""

    def batch_ended(
        self,
        batch_id: int,
        now_s: float,
        *,
        busy_s: float | None = None,
        around_s: float | None = None,
        failed: Iterable[str] = (),
    ) -> tuple[Frame, ...]:
        """Take note of an answer; returns the frames that are done."""

    def batch_lost(self, batch_id: int, now_s: float) -> tuple[Frame, ...]:
        """Take note of a dead replica's batch; returns the frames that are given up."""

    def replicas_ready(self, pool: str, replicas: Collection[str]) -> None:
        """Take note of who takes batches."""


# When, its place among equals, what happens (returns whether the policy must decide), and to whom.
_Event = tuple[float, int, Callable[[Any, float], bool], Any]


class Simulation:
    """One run of a trace against a policy.

    Events, each at its moment, those of devices before arrivals: a batch reaches its replica, has run, is answered; a
    replica dies, is missed, is back; the policy asked to be woken. After each that a router would notice the policy
    decides. Arrivals are read from the trace's columns, so that the heap holds a few events a batch and none a frame.
    """

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        truth: LatencyModel,
        gauss: Gauss,
        *,
        calls: SimulatedCalls | None = None,
        failures: Iterable[Failure] = (),
        times: BatchTimes | None = None,
        scaling: SimulatedScaling | None = None,
    ) -> None:
        """Take all that takes part.

        Args:
            plan: replicas and default deadlines.
            policy: fresh; `Scheduler(plan, latency)`.
            truth: what batches really take; its spreads are drawn. Not the policy's own, which learns.
            gauss: such as `random.Random(seed).gauss`.
            calls: what they take beside the devices.
            failures: of replicas.
            times: what batches take, in the place of `truth`, `gauss` and the ways of `calls`.
            scaling: fresh; None: every pool keeps its size.

        Raises:
            InvalidPlanError: a failure in a pool that the plan does not have, or at no moment.
        """
        self._plan = plan
        self._policy = policy
        self._calls = calls or SimulatedCalls()
        self._times = times or DeviceTimes(truth, gauss, self._calls.before_s, self._calls.after_s)
        self._heap: list[_Event] = []
        self._order = itertools.count()
        self._now_s = 0.0
        self._wake_s = math.inf
        self._num_idle_wakes = 0
        self._replicas: dict[str, dict[str, SimulatedReplica]] = {pool.name: {} for pool in plan.pools}
        self._numbers = itertools.count(1)
        for failure in failures:
            self._at(failure.at_s, self._fails, (failure, pool_of(failure, plan)))
        self._scaling = scaling
        self._end_s = 0.0
        if scaling is not None:
            self._at(0.0, self._scales, scaling)
        self._next_s = self._heap[0][0] if self._heap else math.inf

    def run(self, trace: Trace) -> SimulationRun:
        """Play a trace to the last frame's end; for one call.

        Raises:
            InvalidPlanError: a frame that the plan's router would refuse unread.
            SimulationError: the policy broke a promise.
        """
        _check_sizes(trace, self._plan)
        deadline_s = _deadlines_s(trace, self._plan)
        self._end_s = trace.duration_s
        self._record = record = RunRecorder(trace, tuple(self._replicas))
        for pool in self._plan.pools:
            self._starts_up(pool.name, pool.num_replicas)
        with _without_gc():
            self._play(trace, deadline_s)
        num_open = record.outcome.count(0)
        if num_open:
            raise SimulationError(
                f"simulation: {num_open} of {len(trace)} frames came to no end; each must end once: report this bug"
            )
        return record.run(deadline_s, tuple(pool.num_replicas for pool in self._plan.pools), self._now_s)

    def _play(self, trace: Trace, deadline_s: Floats) -> None:
        num_bytes = [height * width * BYTES_A_PX for height, width in trace.sizes_hw]
        ranks = (Priority.NORMAL, Priority.CRITICAL)
        for begin in range(0, len(trace), FRAMES_A_CHUNK):
            rows = slice(begin, min(begin + FRAMES_A_CHUNK, len(trace)))
            sizes, at_s = trace.size[rows].tolist(), trace.at_s[rows].tolist()
            fields = zip(
                map(str, range(rows.start, rows.stop)),
                map(trace.cameras.__getitem__, trace.camera[rows].tolist()),
                map(trace.sizes_hw.__getitem__, sizes),
                map(ranks.__getitem__, trace.is_critical[rows].tolist()),
                at_s,
                deadline_s[rows].tolist(),
                map(num_bytes.__getitem__, sizes),
                strict=True,
            )
            for row, its_s, of_frame in zip(range(rows.start, rows.stop), at_s, fields, strict=True):
                while self._next_s <= its_s:
                    self._step()
                self._arrives(row, new_tuple(Frame, of_frame))
        while self._next_s < math.inf:
            self._step()

    # What the router does

    def _arrives(self, row: int, frame: Frame) -> None:
        now_s = frame.arrived_s
        arrival = self._policy.arrived(frame)
        verdict = arrival.verdict
        self._record.verdict[row] = VERDICT_CODES[verdict.kind]
        if verdict.rung:
            self._record.rung[row] = verdict.rung
        if verdict.kind is REJECT:
            self._ends(frame, Outcome.REJECTED, now_s)
        elif arrival.superseded is not None:
            self._ends(arrival.superseded, Outcome.SUPERSEDED, now_s)
        decide_by_s = arrival.decide_by_s
        if decide_by_s <= now_s:
            self._notices(now_s)
        elif decide_by_s < self._wake_s:
            self._wakes_at(decide_by_s)

    def _notices(self, now_s: float) -> None:
        """Something has happened: decide, now or at the end of the tick."""
        tick_s = self._calls.tick_s
        if not tick_s:
            self._decide(now_s)
        else:
            self._wakes_at(min(self._wake_s, (now_s // tick_s + 1) * tick_s))

    def _wakes_at(self, wake_s: float) -> None:
        self._wake_s = wake_s
        self._next_s = min(wake_s, self._heap[0][0]) if self._heap else wake_s

    def _decide(self, now_s: float) -> None:
        """After each event: decide, act, and note when to come back."""
        decisions = self._policy.decide(now_s)
        if decisions is not NOTHING:
            for frame in decisions.given_up:
                self._ends(frame, Outcome.FAILED, now_s)
            for expired in decisions.expired:
                self._record.rung[int(expired.frame.frame_id)] = expired.route.rung
                self._ends(expired.frame, Outcome.EXPIRED, now_s)
            for batch in decisions.batches:
                self._send(batch, now_s)
        wake_s = self._policy.next_wake_s()
        next_s = self._wake_s = math.inf if wake_s is None else wake_s
        if next_s <= now_s:
            self._check_clock(now_s, stands=decisions is NOTHING)
        heap = self._heap
        if heap and heap[0][0] < next_s:
            next_s = heap[0][0]
        self._next_s = next_s
        self._now_s = now_s

    def _check_clock(self, now_s: float, *, stands: bool) -> None:
        self._num_idle_wakes = self._num_idle_wakes + 1 if stands and now_s == self._now_s else 0
        if self._num_idle_wakes > MAX_IDLE_WAKES:
            raise SimulationError(
                f"simulation: at {now_s:.6f} s the policy asks to be woken at {self._wake_s:.6f} s and then decides "
                "nothing, again and again; the clock must go on: report this bug"
            )

    def _ends(self, frame: Frame, outcome: Outcome, now_s: float) -> None:
        if not self._record.ended(frame, outcome, now_s):
            raise SimulationError(
                f"simulation: frame {frame.frame_id} ended twice, at {now_s:.6f} s as {outcome.value}; each must end "
                "once: report this bug"
            )

    def _send(self, batch: Batch, now_s: float) -> None:
        record = self._record
        replica = self._replicas[batch.pool].get(batch.replica)
        if replica is None:
            raise SimulationError(
                f"simulation: batch {batch.batch_id} was sent to {batch.replica}, which is not ready; report this bug"
            )
        row = record.new_batch(batch.pool, batch.canvas, len(batch.pieces))
        sent_s, batch_of = record.sent_s, record.batch
        for frame, route, number in batch.pieces:
            index = int(frame.frame_id)
            sent_s[index] = now_s
            batch_of[index] = row
            record.rung[index] = route.rung
            if route.windows:
                window = route.windows[number]
                record.sent_tile(index, batch.canvas.num_px, window.height * window.width)
        before_s, after_s = self._times.way_s(batch, now_s)
        job = replica.jobs[batch.batch_id] = Job(batch, replica, row, before_s, after_s)
        if not job.is_lost:
            self._at(now_s + before_s, self._reaches, job)

    # What happens to batches: each returns whether the router notices

    def _at(self, at_s: float, act: Callable[[Any, float], bool], subject: object) -> None:
        heappush(self._heap, (at_s, next(self._order), act, subject))

    def _step(self) -> None:
        """All that happens at the next moment."""
        now_s = self._next_s
        heap = self._heap
        is_due, is_noticed = self._wake_s <= now_s, False
        while heap and heap[0][0] <= now_s:
            _, _, act, subject = heappop(heap)
            is_noticed |= act(subject, now_s)
        if is_due:
            self._decide(now_s)
        elif is_noticed:
            self._notices(now_s)
        else:
            self._next_s = min(self._wake_s, heap[0][0]) if heap else self._wake_s
            self._now_s = now_s

    def _reaches(self, job: Job, now_s: float) -> bool:
        """A batch is fetched and placed."""
        if not job.is_lost:
            if job.replica.running is None:
                self._starts(job, now_s)
            else:
                job.replica.turns.add(job, now_s, urgent=job.batch.urgent)
        return False

    def _starts(self, job: Job, now_s: float) -> None:
        run_s = job.run_s = job.replica.factor * self._times.run_s(job.batch, now_s)
        job.replica.running = job
        self._record.start_s[job.row] = now_s
        self._record.ran_s[job.row] = run_s
        self._at(now_s + run_s, self._has_run, job)

    def _has_run(self, job: Job, now_s: float) -> bool:
        """A batch leaves its device, and the next one takes its turn."""
        if job.is_lost:
            return False
        job.has_run = True
        replica = job.replica
        replica.running = None
        self._at(now_s + job.after_s, self._is_answered, job)
        if len(replica.turns):
            self._starts(replica.turns.next(now_s), now_s)
        return False

    def _is_answered(self, job: Job, now_s: float) -> bool:
        batch_id = job.batch.batch_id
        del job.replica.jobs[batch_id]
        done = self._policy.batch_ended(batch_id, now_s, busy_s=job.run_s, around_s=job.before_s + job.after_s)
        for frame in done:
            self._ends(frame, FINISHED, now_s)
        return True

    # What happens to replicas

    def _starts_up(self, pool: str, num_replicas: int) -> None:
        replicas = self._replicas[pool]
        for _ in range(num_replicas):
            name = f"{pool}-{next(self._numbers)}"
            replicas[name] = SimulatedReplica(name, pool, self._plan.scheduling.max_starve_s)
        self._policy.replicas_ready(pool, tuple(replicas))

    def _scales(self, scaling: SimulatedScaling, now_s: float) -> bool:
        """The scalers are asked, until the cameras have stopped and nothing is left to do."""
        num_ready = {pool: len(replicas) for pool, replicas in self._replicas.items()}
        changes = scaling.changes(num_ready, now_s)
        for pool, (num_new, num_leaving) in changes.items():
            for _ in range(num_new):
                self._at(now_s + scaling.start_up_s, self._is_up, pool)
            replicas = self._replicas[pool]
            alive = [replica.name for replica in replicas.values() if replica.is_alive]
            for name in alive[len(alive) - min(num_leaving, len(alive)) :]:
                del replicas[name]  # it still runs what it holds
            self._policy.replicas_ready(pool, tuple(replicas))
        if now_s < self._end_s or scaling.has_work():
            self._at(now_s + scaling.tick_s, self._scales, scaling)
        return bool(changes)

    def _is_up(self, pool: str, now_s: float) -> bool:
        """A replica that was started is warm, if it is still wanted."""
        if self._scaling is None or not self._scaling.is_up(pool, now_s):
            return False
        self._starts_up(pool, 1)
        return True

    def _fails(self, what: tuple[Failure, str], now_s: float) -> bool:
        """The sound replica of a pool that has lived longest, with all that it has not yet run; none left: nothing."""
        failure, pool = what
        sound = (each for each in self._replicas[pool].values() if each.is_alive and each.factor == 1.0)
        replica = next(sound, None)
        if replica is None:
            return False
        if failure.kind is FailureKind.SLOW:
            replica.factor = failure.factor
            return False
        replica.is_alive = False
        if replica.running is not None:
            self._record.ran_s[replica.running.row] = now_s - self._record.start_s[replica.running.row]
        for job in replica.jobs.values():
            job.is_lost = not job.has_run
        is_hung = failure.kind is FailureKind.HANGS
        self._at(now_s + (self._calls.stuck_s if is_hung else self._calls.detect_s), self._is_missed, replica)
        return False

    def _is_missed(self, replica: SimulatedReplica, now_s: float) -> bool:
        """The router learns of a death: no further batch there, and all that it held comes back."""
        del self._replicas[replica.pool][replica.name]
        self._policy.replicas_ready(replica.pool, tuple(self._replicas[replica.pool]))
        for batch_id, job in list(replica.jobs.items()):
            if job.is_lost:
                del replica.jobs[batch_id]
                for frame in self._policy.batch_lost(batch_id, now_s):
                    self._ends(frame, Outcome.FAILED, now_s)
        self._at(now_s + self._calls.restart_s, self._is_back, replica.pool)
        return True

    def _is_back(self, pool: str, _now_s: float) -> bool:
        self._starts_up(pool, 1)
        return True


def _check_sizes(trace: Trace, plan: Plan) -> None:
    limits = plan.limits
    for height, width in trace.sizes_hw:
        if height * width > limits.max_frame_px or height * width * BYTES_A_PX > limits.max_waiting_bytes:
            raise InvalidPlanError(
                f"trace: got frames of {height}x{width} px, allowed are {limits.max_frame_px:,} px and "
                f"{limits.max_waiting_bytes:,} bytes; raise max_frame_px or max_waiting_bytes in the plan's limits"
            )


def _deadlines_s(trace: Trace, plan: Plan) -> Floats:
    """When each frame is due on the trace's clock."""
    defaults_s = np.array([plan.slo_s[Priority.NORMAL], plan.slo_s[Priority.CRITICAL]])
    defaults_s = defaults_s[trace.is_critical.astype(np.intp)]
    return np.asarray(trace.at_s + np.where(np.isnan(trace.slo_s), defaults_s, trace.slo_s), np.float64)


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """Frames leave no cycles behind, and looking for some takes a tenth of the time; as it was before afterwards."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
