"""The scheduler against a plain model of it, over random histories."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from serve_samples import (
    HD,
    LADDER_OF_CANVAS,
    POOL_OF_CANVAS,
    PORTRAIT,
    UHD,
    VGA,
    sample_frame,
    sample_limits,
    sample_plan,
)

from serve_app.batching import Batch
from serve_app.frames import Frame, Priority
from serve_app.scheduler import CREDITS_PER_REPLICA, MAX_ATTEMPTS, PoolLoad, Scheduler, SchedulerStateError
from serve_app.verdicts import VerdictKind

POOLS = ("near", "far")
MAX_FRAMES = 12
MAX_BYTES = 4000

# Few ids, so that they come back after their frame has ended; few deadlines, so that they tie.
FRAME_IDS = st.sampled_from([f"f{number}" for number in range(24)])
# Most frames share a lane, where they have an order among them.
CANVASES = st.sampled_from([VGA, VGA, VGA, PORTRAIT, HD, UHD])
SLOS_S = st.sampled_from([8.0, 3.0, 20.0, 2.0, 1.0, 0.5])
STEPS_S = st.sampled_from([0.25, 0.0, 0.5, 1.0, 3.0])
SIZES_BYTES = st.sampled_from([200, 1, 900])
PRIORITIES = st.sampled_from([Priority.NORMAL, Priority.NORMAL, Priority.CRITICAL])
ARRIVALS = st.tuples(FRAME_IDS, CANVASES, PRIORITIES, SLOS_S, SIZES_BYTES)


@dataclass
class Waiting:
    """A frame of the model that waits, and the place that its arrival or return gave it among equals."""

    frame: Frame
    order: int


class SchedulerHistory(RuleBasedStateMachine):
    """Random arrivals, cancellations, ticks, ends and losses of batches and replicas that come and go."""

    def __init__(self):
        super().__init__()
        self.scheduler = Scheduler(sample_plan(limits=sample_limits(frames=MAX_FRAMES, num_bytes=MAX_BYTES)))
        self.now_s = 0.0
        self.order = 0
        self.num_replicas = dict.fromkeys(POOLS, 0)
        self.waiting: dict[str, Waiting] = {}
        self.running: dict[int, Batch] = {}
        self.num_sent: Counter[str] = Counter()
        self.num_admitted = 0
        self.ends: Counter[str] = Counter()

    # What happens

    @initialize(near=st.sampled_from([1, 2, 0]), far=st.sampled_from([1, 0]))
    def first_replicas(self, near, far):
        """Most histories begin with replicas."""
        self.replicas_change("near", near)
        self.replicas_change("far", far)

    @rule(frames=st.lists(ARRIVALS, min_size=1, max_size=8), decides=st.booleans())
    def frames_arrive(self, frames, decides):
        """Frames of one call or of several; mostly a decision follows, as the router's do."""
        for frame in frames:
            self.frame_arrives(*frame)
        if decides:
            self.decide()

    def frame_arrives(self, frame_id, canvas, priority, slo_s, num_bytes):
        """A new frame, or an id that waits or runs already."""
        is_running = any(frame_id == frame.frame_id for batch in self.running.values() for frame in batch.frames)
        frame = sample_frame(
            frame_id, deadline_s=self.now_s + slo_s, priority=priority, canvas=canvas, num_bytes=num_bytes
        )
        if is_running or frame_id in self.waiting:
            with pytest.raises(SchedulerStateError):
                self.scheduler.arrived(frame)
        elif len(self.waiting) >= MAX_FRAMES or self.waiting_bytes() + num_bytes > MAX_BYTES:
            verdict = self.scheduler.arrived(frame)
            assert verdict.kind is VerdictKind.REJECT
            assert verdict.retry_after_s == {Priority.CRITICAL: 0.25, Priority.NORMAL: 1.0}[priority]
        else:
            assert self.scheduler.arrived(frame).kind is VerdictKind.ADMIT
            self.num_admitted += 1
            self.wait(frame)

    @rule(frame_id=FRAME_IDS)
    def caller_gives_up(self, frame_id):
        """Exactly the frames that wait can be cancelled."""
        assert self.scheduler.cancelled(frame_id) is (frame_id in self.waiting)
        if frame_id in self.waiting:
            self.end(self.waiting.pop(frame_id).frame, "cancelled")

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), slo_s=SLOS_S)
    def caller_sends_a_frame_again(self, data, slo_s):
        """A waiting frame is cancelled and its id comes back in the same lane with another deadline."""
        frame = self.waiting[data.draw(st.sampled_from(sorted(self.waiting)))].frame
        self.caller_gives_up(frame.frame_id)
        self.frame_arrives(frame.frame_id, frame.canvas, frame.priority, slo_s, frame.num_bytes)

    @precondition(lambda self: len(self.waiting) > 2)
    @rule(data=st.data())
    def a_client_goes_away(self, data):
        """Several frames are cancelled at once, others stay."""
        for frame_id in sorted(data.draw(st.sets(st.sampled_from(sorted(self.waiting)), min_size=2))):
            self.caller_gives_up(frame_id)

    @rule(step_s=STEPS_S, decides=st.booleans())
    def time_passes(self, step_s, decides):
        """A tick, at which the scheduler decides; or the next event comes before it can."""
        self.now_s += step_s
        if decides:
            self.decide()

    @rule(pool=st.sampled_from(POOLS), num_replicas=st.sampled_from([1, 2, 0]))
    def replicas_change(self, pool, num_replicas):
        """Replicas come, go and die."""
        self.scheduler.replicas_ready(pool, num_replicas)
        self.num_replicas[pool] = num_replicas

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def batch_ends(self, data):
        """A replica answered."""
        batch = self.running.pop(data.draw(st.sampled_from(sorted(self.running))))
        self.scheduler.batch_ended(batch.batch_id)
        for frame in batch.frames:
            self.end(frame, "answered")
        with pytest.raises(SchedulerStateError):
            self.scheduler.batch_ended(batch.batch_id)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def batch_is_lost(self, data):
        """A replica died."""
        batch = self.running.pop(data.draw(st.sampled_from(sorted(self.running))))
        given_up = self.scheduler.batch_lost(batch.batch_id, self.now_s)
        hopeless = tuple(
            frame
            for frame in batch.frames
            if self.num_sent[frame.frame_id] >= MAX_ATTEMPTS or frame.deadline_s <= self.now_s
        )
        assert given_up == hopeless
        for frame in batch.frames:
            if frame in hopeless:
                self.end(frame, "given up")
            else:
                self.wait(frame)
        with pytest.raises(SchedulerStateError):
            self.scheduler.batch_lost(batch.batch_id, self.now_s)

    def decide(self):
        """Ask for decisions and hold each of them against the model."""
        decisions = self.scheduler.decide(self.now_s)

        due = {name for name, entry in self.waiting.items() if entry.frame.deadline_s <= self.now_s}
        assert sorted(frame.frame_id for frame in decisions.expired) == sorted(due)
        for name in due:
            self.end(self.waiting.pop(name).frame, "expired")

        for batch in decisions.batches:
            self.check_batch(batch)
            for frame in batch.frames:
                del self.waiting[frame.frame_id]
                self.num_sent[frame.frame_id] += 1
            assert batch.batch_id not in self.running
            self.running[batch.batch_id] = batch

        for pool in POOLS:
            if self.num_running(pool) < CREDITS_PER_REPLICA * self.num_replicas[pool]:
                assert not self.waiting_in(pool), "a pool with a free credit lets frames wait"

    def check_batch(self, batch):
        """One batch, against what waits when it is formed."""
        assert self.num_running(batch.pool) < CREDITS_PER_REPLICA * self.num_replicas[batch.pool]
        canvas, priority = batch.frames[0].canvas, batch.frames[0].priority
        assert {(frame.canvas, frame.priority) for frame in batch.frames} == {(canvas, priority)}
        assert {(frame.bucket, frame.canvas) for frame in batch.frames} == {(batch.bucket, batch.canvas)}
        assert all(frame.deadline_s > self.now_s for frame in batch.frames)

        first = batch.frames[0]
        most_urgent = min((e.frame.priority.rank, e.frame.deadline_s) for e in self.waiting_in(batch.pool))
        assert (first.priority.rank, first.deadline_s) == most_urgent

        lane = [e for e in self.waiting_in(batch.pool) if (e.frame.canvas, e.frame.priority) == (canvas, priority)]
        lane.sort(key=lambda entry: (entry.frame.deadline_s, entry.order))
        size = max(size for size in LADDER_OF_CANVAS[canvas] if size <= len(lane))
        assert batch.frames == tuple(entry.frame for entry in lane[:size])

    # What must hold after every event

    @invariant()
    def every_admitted_frame_is_somewhere_once(self):
        """Waiting, running, or ended exactly once."""
        num_running = sum(len(batch.frames) for batch in self.running.values())
        assert self.num_admitted == len(self.waiting) + num_running + self.ends.total()
        assert self.scheduler.num_waiting == len(self.waiting)

    @invariant()
    def loads_are_those_of_the_model(self):
        """Each pool's frames, batches and replicas."""
        assert self.scheduler.loads() == {
            pool: PoolLoad(self.num_replicas[pool], len(self.waiting_in(pool)), self.num_running(pool))
            for pool in POOLS
        }

    @invariant()
    def waiting_bytes_are_the_sum(self):
        """The byte budget counts what waits, nothing else."""
        assert self.scheduler._waiting_bytes == self.waiting_bytes()

    @invariant()
    def the_next_deadline_is_the_earliest(self):
        """Of all that wait, whatever came and went."""
        assert self.scheduler.next_deadline_s() == min(
            (entry.frame.deadline_s for entry in self.waiting.values()), default=None
        )

    @invariant()
    def nothing_is_kept_of_frames_that_ended(self):
        """Attempts are remembered of live frames only, or memory would grow for ever."""
        live = set(self.waiting) | {frame.frame_id for batch in self.running.values() for frame in batch.frames}
        assert set(self.scheduler._attempts) <= live

    def teardown(self):
        """Every history can be brought to an end: what runs is answered, what waits is sent or expires."""
        for pool in POOLS:
            self.replicas_change(pool, 1)
        while self.waiting or self.running:
            num_before = len(self.waiting), len(self.running)
            self.decide()
            for batch_id in sorted(self.running):
                self.scheduler.batch_ended(batch_id)
                for frame in self.running.pop(batch_id).frames:
                    self.end(frame, "answered")
            assert (len(self.waiting), len(self.running)) != num_before, "no progress"
        self.every_admitted_frame_is_somewhere_once()
        assert self.scheduler.next_deadline_s() is None
        assert self.scheduler._waiting_bytes == 0

    # The model

    def wait(self, frame):
        """A frame begins to wait, after its equals."""
        self.order += 1
        self.waiting[frame.frame_id] = Waiting(frame, self.order)

    def end(self, frame, how):
        """A frame ends."""
        self.ends[how] += 1
        del self.num_sent[frame.frame_id]

    def waiting_bytes(self):
        """Bytes of all that wait."""
        return sum(entry.frame.num_bytes for entry in self.waiting.values())

    def waiting_in(self, pool):
        """What waits for one pool."""
        return [entry for entry in self.waiting.values() if POOL_OF_CANVAS[entry.frame.canvas] == pool]

    def num_running(self, pool):
        """Batches at one pool's replicas."""
        return sum(batch.pool == pool for batch in self.running.values())


# No deadline: other work on the machine must not fail a test. Derandomised: the same histories everywhere.
SchedulerHistory.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
TestSchedulerHistory = SchedulerHistory.TestCase
