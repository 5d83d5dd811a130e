"""The scheduler against a plain model of it, over random histories."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from serve_samples import HD, PORTRAIT, RULES, UHD, VGA, ladder_plan, sample_frame, sample_latency, sample_limits

from engines.spec import CanvasShape
from serve_app.batching import Batch
from serve_app.decisions import NOTHING, Decisions
from serve_app.frames import Frame, Priority
from serve_app.lane_key import LaneClass
from serve_app.memory_level import MemoryLevel
from serve_app.overdue import HEDGE_FLOOR_S, LATE_GRACE_S
from serve_app.plan import Bucket, CameraRule, Keep, Oversize, Rung, Scheduling
from serve_app.replica_credits import MAX_CREDITS_PER_REPLICA, SchedulerStateError
from serve_app.routes import MEMORY_PAUSE_S
from serve_app.running_batches import MAX_ATTEMPTS
from serve_app.scheduler import Scheduler
from serve_app.verdicts import VerdictKind
from serve_app.waiting_room import SHARE_OF_NONCRITICAL

MAX_FRAMES = 14
MAX_BYTES = 5000
MAX_CHUNK_S = 0.06
# No batch takes longer, however slow its replica: what has more time left may not be given up for lack of it.
LONGEST_S = 3.0
NARROW = CanvasShape(480, 512)
BUCKETS = (
    Bucket("vga", "full", "near", (VGA, PORTRAIT, NARROW), (1, 2, 4)),
    Bucket("hd", "full", "near", (HD,), (1, 2)),
    Bucket("uhd", "full", "far", (UHD,), (1,)),
    Bucket("light", "light", "far", (VGA,), (1, 2, 4)),
)
BUCKET_OF = {(bucket.name, canvas): bucket for bucket in BUCKETS for canvas in bucket.canvases}
PLAN = ladder_plan(
    buckets=BUCKETS,
    ladder=(Rung("full", VGA), Rung("light")),
    cameras=(*RULES, CameraRule("both-*", keep=Keep.LATEST, oversize=Oversize.TILE)),
    limits=sample_limits(frames=MAX_FRAMES, num_bytes=MAX_BYTES),
    scheduling=Scheduling(max_chunk_s=MAX_CHUNK_S, max_defer_s=2.0, max_starve_s=0.5),
)
RUN_S = {
    ("full", VGA): (0.010, 0.016, 0.028),
    ("full", PORTRAIT): (0.010, 0.016, 0.028),
    ("full", NARROW): (0.009, 0.014, 0.025),
    ("full", HD): (0.030, 0.054),
    ("full", UHD): (0.080,),
    ("light", VGA): (0.004, 0.006, 0.010),
}
LATENCY = sample_latency(RUN_S)
POOLS = ("near", "far")
# A replica that died does not come back: another one, with a name of its own, takes its place.
NAMES = {"near": ("a", "b", "c"), "far": ("x", "y")}

# Few ids, so that they come back after their frame has ended; few deadlines, so that they tie. UHD frames are long and
# become tiles, larger ones are for the cameras' rules.
FRAME_IDS = st.sampled_from([f"f{number}" for number in range(24)])
CAMERAS = st.sampled_from(
    ["gate-1", "gate-2", "latest-1", "latest-1", "latest-2", "tile-1", "reject-1", "firm-1", "both-1"]
)
SIZES = st.sampled_from([VGA, VGA, VGA, NARROW, PORTRAIT, HD, UHD, (1440, 2560)])
SLOS_S = st.sampled_from([5.0, 1.0, 30.0, 0.3, 0.05, 0.01])
STEPS_S = st.sampled_from([0.01, 0.0, 0.03, 0.1, 0.5, 3.0])
SIZES_BYTES = st.sampled_from([200, 1, 900])
PRIORITIES = st.sampled_from([Priority.NORMAL, Priority.NORMAL, Priority.CRITICAL])
ARRIVALS = st.tuples(FRAME_IDS, CAMERAS, SIZES, PRIORITIES, SLOS_S, SIZES_BYTES)


@dataclass
class Here:
    """A frame of the model that is here, and where each of its pieces is.

    Attributes:
        num_pieces: how many it has; None before the first was sent, as its route may still change.
        running: pieces by the batch that they are in.
        done: pieces that were answered.
        num_sent: how often each piece was sent.
        lost_on: replicas that died with it, and spells of silence that it was lost in.
        hopes: whether no other attempt is left for it than those that are overdue.
    """

    frame: Frame
    num_pieces: int | None = None
    running: dict[int, set[int]] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    num_sent: Counter[int] = field(default_factory=Counter)
    lost_on: set[object] = field(default_factory=set)
    hopes: bool = False

    @property
    def waits(self) -> bool:
        """Whether a piece of it waits."""
        return self.num_pieces is None or self.num_running + len(self.done) < self.num_pieces

    @property
    def num_running(self) -> int:
        """Its pieces that are in batches."""
        return sum(map(len, self.running.values()))


class SchedulerHistory(RuleBasedStateMachine):
    """Random arrivals, cancellations, ticks, memory levels, ends and losses of batches, replicas that come and go."""

    def __init__(self):
        super().__init__()
        self.scheduler = Scheduler(PLAN, sample_latency(RUN_S))
        self.now_s = 0.0
        self.names = dict(NAMES)
        self.ready: dict[str, set[str]] = {pool: set() for pool in POOLS}
        self.dead: set[str] = set()
        self.short_of_memory = {}
        self.memory = dict.fromkeys(POOLS, MemoryLevel.NORMAL)
        self.here: dict[str, Here] = {}
        # The newest frame by camera and priority, of those that may be superseded: none of its pieces was ever sent.
        self.newest: dict[tuple[str, Priority], str] = {}
        self.batches: dict[int, Batch] = {}
        # Batches that are overdue, with the ids of the frames that hope for them; suspects by spell.
        self.late: dict[int, tuple[Batch, set[str]]] = {}
        self.suspects: dict[str, int] = {}
        self.sent_s: dict[int, float] = {}
        self.num_spells = 0
        self.num_admitted = 0
        self.ends: Counter[str] = Counter()
        self.is_steady = True
        self.is_shared = False

    # What happens

    @initialize(near=st.sets(st.sampled_from(NAMES["near"])), far=st.sets(st.sampled_from(NAMES["far"])))
    def first_replicas(self, near, far):
        """Most histories begin with replicas."""
        for pool, names in (("near", near), ("far", far)):
            self.set_ready(pool, names)

    @rule(frames=st.lists(ARRIVALS, min_size=1, max_size=8), decides=st.booleans())
    def frames_arrive(self, frames, decides):
        """Frames of one call or of several; mostly a decision follows, as the router's do."""
        for frame in frames:
            self.frame_arrives(*frame)
        if decides:
            self.decide()

    @rule(frame=ARRIVALS)
    def a_frame_arrives_on_its_own(self, frame):
        """Where its arrival says that a decision is due later, one now changes nothing, and the wake is known."""
        self.decide()
        wake_s = self.scheduler.next_wake_s() or math.inf
        arrival = self.frame_arrives(*frame)
        if arrival is None:
            return
        if arrival.decide_by_s > self.now_s:
            assert self.scheduler.decide(self.now_s) == NOTHING
            assert (self.scheduler.next_wake_s() or math.inf) >= min(wake_s, arrival.decide_by_s)
        else:
            self.decide()

    def frame_arrives(self, frame_id, camera, size_hw, priority, slo_s, num_bytes):
        """A new frame, or an id that is here already; what came of it, if it was new."""
        frame = sample_frame(
            frame_id, arrived_s=self.now_s, deadline_s=self.now_s + slo_s, priority=priority, camera=camera,
            size_hw=size_hw, num_bytes=num_bytes,
        )  # fmt: skip
        if frame_id in self.here:
            with pytest.raises(SchedulerStateError):
                self.scheduler.arrived(frame)
            return None
        key = (camera, priority)
        older = self.newest.get(key)
        arrival = self.scheduler.arrived(frame)
        verdict = arrival.verdict
        assert verdict.reason
        if not self.has_room_for(frame, older):
            assert verdict.kind is VerdictKind.REJECT
            assert verdict.retry_after_s == PLAN.slo_s[priority]
        elif camera == "reject-1" and tuple(size_hw) == (1440, 2560):
            assert (verdict.kind, verdict.retry_after_s) == (VerdictKind.REJECT, None)
        elif priority is Priority.CRITICAL:
            assert verdict.kind in {VerdictKind.ADMIT, VerdictKind.DEGRADE}
        if verdict.kind is VerdictKind.REJECT:
            assert arrival.superseded is None
            assert verdict.retry_after_s is None or verdict.retry_after_s > 0
            return arrival
        assert (verdict.kind is VerdictKind.DEGRADE) == (verdict.rung > 0)
        assert camera != "firm-1" or verdict.rung == 0
        assert (arrival.superseded and arrival.superseded.frame_id) == older
        if older is not None:
            self.end(older, "superseded")
        self.num_admitted += 1
        self.here[frame_id] = Here(frame)
        if camera in {"latest-1", "latest-2", "both-1"}:
            self.newest[key] = frame_id
        return arrival

    def has_room_for(self, frame, older):
        """By the budgets: what is here, without the frame whose place it takes."""
        others = [entry.frame for name, entry in self.here.items() if name != older]
        share = 1 if frame.priority is Priority.CRITICAL or not others else SHARE_OF_NONCRITICAL
        num_bytes = sum(other.num_bytes for other in others) + frame.num_bytes
        return len(others) + 1 <= share * MAX_FRAMES and num_bytes <= share * MAX_BYTES

    @rule(frame_id=FRAME_IDS)
    def caller_gives_up(self, frame_id):
        """Exactly the frames of which something waits can be cancelled."""
        can = frame_id in self.here and self.here[frame_id].waits
        assert self.scheduler.cancelled(frame_id) is can
        if can:
            self.end(frame_id, "cancelled")

    @precondition(lambda self: len(self.here) > 2)
    @rule(data=st.data())
    def a_client_goes_away(self, data):
        """Several frames are cancelled at once, others stay."""
        for frame_id in sorted(data.draw(st.sets(st.sampled_from(sorted(self.here)), min_size=2))):
            self.caller_gives_up(frame_id)

    @rule(step_s=STEPS_S, decides=st.booleans())
    def time_passes(self, step_s, decides):
        """A tick, at which the scheduler decides; or the next event comes before it can."""
        self.now_s += step_s
        if decides:
            self.decide()

    @precondition(lambda self: self.scheduler.next_wake_s() is not None)
    @rule()
    def the_timer_rings(self):
        """At the wake time that was named: after the decision the next one is later."""
        self.now_s = max(self.now_s, self.scheduler.next_wake_s())
        self.decide()
        wake_s = self.scheduler.next_wake_s()
        assert wake_s is None or wake_s > self.now_s

    @rule(data=st.data(), pool=st.sampled_from(POOLS))
    def replicas_change(self, data, pool):
        """Replicas come, go and come back; what they hold ends or is lost later."""
        self.set_ready(pool, data.draw(st.sets(st.sampled_from(self.names[pool]))))

    @rule(pool=st.sampled_from(POOLS), level=st.sampled_from(MemoryLevel))
    def memory_changes(self, pool, level):
        """A pool's devices fill up, or have room again."""
        self.scheduler.memory_is(pool, level)
        self.memory[pool] = level

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), factor=st.sampled_from([None, 1.0, 1.0, 4.0]), decides=st.booleans())
    def batch_ends(self, data, factor, decides):
        """A replica answered, sometimes with failed frames, sometimes later than predicted."""
        batch = self.batches.pop(data.draw(st.sampled_from(sorted(self.batches))))
        frame_ids = sorted({piece.frame.frame_id for piece in batch.pieces})
        failed = data.draw(st.sets(st.sampled_from(frame_ids))) if data.draw(st.integers(0, 3)) == 0 else set()
        self.is_steady &= factor in {None, 1.0}
        self.suspects.pop(batch.replica, None)
        done = self.scheduler.batch_ended(
            batch.batch_id, self.now_s, busy_s=factor and factor * batch.run_s, around_s=factor and 0.01, failed=failed
        )
        expected = []
        for frame_id in frame_ids:
            entry = self.entry_in(batch, frame_id)
            if entry is None:
                continue
            numbers = entry.running.pop(batch.batch_id)
            entry.done |= numbers
            if frame_id in failed and numbers:
                self.end(frame_id, "failed")
            elif numbers and len(entry.done) == entry.num_pieces:
                expected.append(entry.frame)
                self.end(frame_id, "finished")
        assert sorted(frame.frame_id for frame in done) == sorted(frame.frame_id for frame in expected)
        assert all(frame in expected for frame in done)
        with pytest.raises(SchedulerStateError):
            self.scheduler.batch_ended(batch.batch_id, self.now_s)
        if decides:
            self.decide()

    @precondition(lambda self: self.late)
    @rule(data=st.data(), factor=st.sampled_from([None, 1.0, 12.0]))
    def a_late_batch_is_answered(self, data, factor):
        """What nobody else has answered is done; what failed there is not, if anybody else may still answer it."""
        batch, hoping = self.late.pop(data.draw(st.sampled_from(sorted(self.late))))
        frame_ids = sorted({piece.frame.frame_id for piece in batch.pieces})
        failed = data.draw(st.sets(st.sampled_from(frame_ids))) if data.draw(st.integers(0, 3)) == 0 else set()
        self.is_steady = False
        self.suspects.pop(batch.replica, None)
        done = self.scheduler.batch_ended(
            batch.batch_id, self.now_s, busy_s=factor and factor * batch.run_s, around_s=0.01, failed=failed
        )
        expected = []
        for piece in batch.pieces:
            entry = self.here.get(piece.frame.frame_id)
            if entry is None or entry.frame is not piece.frame or piece.number in entry.done:
                continue
            if piece.frame.frame_id in failed:
                if piece.frame.frame_id in hoping:
                    self.end(piece.frame.frame_id, "failed")
                continue
            if piece.route is not self.route_now(piece):
                continue
            entry.done.add(piece.number)
            for numbers in entry.running.values():
                numbers.discard(piece.number)
            if len(entry.done) == entry.num_pieces:
                expected.append(entry.frame)
                self.end(piece.frame.frame_id, "finished")
        assert sorted(frame.frame_id for frame in done) == sorted(frame.frame_id for frame in expected)
        with pytest.raises(SchedulerStateError):
            self.scheduler.batch_ended(batch.batch_id, self.now_s)
        self.decide()

    def route_now(self, piece):
        """The route that a frame takes now: another one than its late batch's if it found no memory meanwhile."""
        waiting = self.scheduler._room.entries.get(piece.frame.frame_id)
        return piece.route if waiting is None else waiting.route

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def a_late_batch_is_lost(self, data):
        """Its replica was replaced: with it end the frames that hoped for it, and no other."""
        batch, hoping = self.late.pop(data.draw(st.sampled_from(sorted(self.late))))
        given_up = {frame.frame_id: frame for frame in self.scheduler.batch_lost(batch.batch_id, self.now_s)}
        expected = {
            piece.frame.frame_id: piece.frame
            for piece in batch.pieces
            if (entry := self.here.get(piece.frame.frame_id)) is not None
            and entry.frame is piece.frame
            and piece.frame.frame_id in hoping
            and piece.number not in entry.done
        }
        assert given_up == expected
        for frame_id in given_up:
            self.end(frame_id, "given up")

    @precondition(lambda self: self.living_batches())
    @rule(data=st.data())
    def a_replica_that_leaves_refuses_a_batch(self, data):
        """No attempt is counted."""
        by_id = {batch.batch_id: batch for batch in self.living_batches()}
        batch = by_id[data.draw(st.sampled_from(sorted(by_id)))]
        del self.batches[batch.batch_id]
        self.set_ready(batch.pool, self.ready[batch.pool] - {batch.replica})
        given_up = {frame.frame_id: frame for frame in self.scheduler.batch_refused(batch.batch_id, self.now_s)}
        for frame_id in sorted({piece.frame.frame_id for piece in batch.pieces}):
            entry = self.entry_in(batch, frame_id)
            numbers = set() if entry is None else entry.running.pop(batch.batch_id)
            if frame_id in given_up:
                assert entry.frame.deadline_s - self.now_s < LONGEST_S or len(entry.lost_on) >= MAX_ATTEMPTS
                self.end(frame_id, "given up")
            for number in numbers:
                entry.num_sent[number] -= 1
            if numbers:
                self.may_take_another_route(entry)
        self.decide()

    @precondition(lambda self: self.suspects)
    @rule(data=st.data())
    def a_suspect_shows_that_it_is_alive(self, data):
        """By its report: it gets batches again, though it has not answered."""
        name = data.draw(st.sampled_from(sorted(self.suspects)))
        (pool,) = [pool for pool in POOLS if name in self.names[pool]]
        self.scheduler.replica_is_alive(pool, name)
        del self.suspects[name]
        self.decide()

    @precondition(lambda self: any(self.ready.values()))
    @rule(data=st.data())
    def a_replica_dies(self, data):
        """Its batches are lost: one call says so, the others say it at once or later."""
        pool, name = data.draw(st.sampled_from(sorted((p, name) for p in POOLS for name in self.ready[p])))
        self.set_ready(pool, self.ready[pool] - {name})
        self.dead.add(name)
        self.names[pool] = tuple(its if its != name else f"{name}{len(self.dead)}" for its in self.names[pool])
        for batch in sorted(self.lost_batches(), key=lambda batch: batch.batch_id):
            if data.draw(st.booleans()):
                self.lose(batch)
            if data.draw(st.booleans()):
                self.decide()

    @precondition(lambda self: self.lost_batches())
    @rule(data=st.data())
    def a_lost_batch_is_reported(self, data):
        """Later: what was lost with it may have been sent again, or be gone."""
        by_id = {batch.batch_id: batch for batch in self.lost_batches()}
        self.lose(by_id[data.draw(st.sampled_from(sorted(by_id)))])

    @precondition(lambda self: self.living_batches())
    @rule(data=st.data())
    def a_device_has_no_memory_for_a_batch(self, data):
        """Its frames go on, smaller or lower or elsewhere; only one that was alone here, or is late, is given up."""
        by_id = {batch.batch_id: batch for batch in self.living_batches()}
        batch = by_id[data.draw(st.sampled_from(sorted(by_id)))]
        del self.batches[batch.batch_id]
        self.is_steady = False
        elsewhere = data.draw(st.booleans())
        told = self.scheduler.batch_out_of_memory(batch.batch_id, self.now_s, elsewhere=elsewhere)
        given_up = {frame.frame_id: frame for frame in told}
        for frame_id in sorted({piece.frame.frame_id for piece in batch.pieces}):
            entry = self.entry_in(batch, frame_id)
            if entry is None:
                assert frame_id not in given_up
                continue
            for number in entry.running.pop(batch.batch_id):
                entry.num_sent[number] -= 1  # no replica died with it
            self.may_take_another_route(entry)
            if frame_id in given_up:
                assert given_up.pop(frame_id) is entry.frame
                is_alone = len(batch.pieces) == 1 and not elsewhere
                assert is_alone or entry.frame.deadline_s - self.now_s < LONGEST_S
                self.end(frame_id, "given up")
        assert given_up == {}
        if not elsewhere:
            self.short_of_memory[batch.bucket, batch.canvas] = max(1, len(batch.pieces) // 2), self.now_s
        self.decide()

    @precondition(lambda self: self.refusable())
    @rule(data=st.data(), decides=st.booleans())
    def a_replica_has_no_credit_for_a_batch(self, data, decides):
        """Other routers have them all: its frames wait again, as if nothing had been sent."""
        by_id = {batch.batch_id: batch for batch in self.refusable()}
        batch = by_id[data.draw(st.sampled_from(sorted(by_id)))]
        del self.batches[batch.batch_id]
        given_up = {frame.frame_id for frame in self.scheduler.batch_refused(batch.batch_id, self.now_s)}
        for frame_id in sorted({piece.frame.frame_id for piece in batch.pieces}):
            entry = self.entry_in(batch, frame_id)
            if entry is not None:
                assert frame_id not in given_up
                for number in entry.running.pop(batch.batch_id):
                    entry.num_sent[number] -= 1
                self.may_take_another_route(entry)
        if decides:
            self.decide()

    @rule(
        pool=st.sampled_from(POOLS), data=st.data(), share=st.sampled_from([1.0, 0.5, 0.1]),
        ahead_s=st.sampled_from([(-1.0, -1.0), (0.01, 0.05), (0.05, 0.5)]),
    )  # fmt: skip
    def a_replica_works_for_other_routers(self, pool, data, share, ahead_s):
        """And says how much; names that nobody knows are passed over."""
        name = data.draw(st.sampled_from(self.names[pool]))
        self.scheduler.replica_shared(pool, name, share, self.now_s + ahead_s[0], self.now_s + ahead_s[1])
        self.is_shared = True

    def refusable(self):
        """Batches that need a credit, and whose answer is not overdue."""
        living = self.living_batches()
        return [each for each in living if not each.urgent and not self.scheduler.is_late(each.batch_id)]

    def may_take_another_route(self, entry):
        """If all of it waits as if it had never been sent."""
        if not (entry.num_running or entry.done or entry.lost_on):
            entry.num_pieces = None

    def living_batches(self):
        """Those of replicas that work."""
        return [batch for batch in self.batches.values() if batch.replica not in self.dead]

    def lost_batches(self):
        """Those of replicas that died."""
        return [batch for batch in self.batches.values() if batch.replica in self.dead]

    def lose(self, batch):
        """What can wait again does, the others are given up."""
        del self.batches[batch.batch_id]
        given_up = {frame.frame_id: frame for frame in self.scheduler.batch_lost(batch.batch_id, self.now_s)}
        for frame_id in sorted({piece.frame.frame_id for piece in batch.pieces}):
            entry = self.entry_in(batch, frame_id)
            if entry is None:
                assert frame_id not in given_up
                continue
            if not entry.running.pop(batch.batch_id):
                assert frame_id not in given_up
                continue
            entry.lost_on.add(batch.replica)
            if frame_id in given_up:
                # Never for nothing: so many replicas died with it, or it has no time left but for a miracle.
                assert given_up.pop(frame_id) is entry.frame
                assert len(entry.lost_on) >= MAX_ATTEMPTS or entry.frame.deadline_s - self.now_s < LONGEST_S
                self.end(frame_id, "given up")
            else:
                assert len(entry.lost_on) < MAX_ATTEMPTS
                assert entry.frame.deadline_s > self.now_s
        assert given_up == {}
        with pytest.raises(SchedulerStateError):
            self.scheduler.batch_lost(batch.batch_id, self.now_s)

    def decide(self):
        """Ask for decisions and hold each of them against the model."""
        per_replica = {pool: self.scheduler._pools[pool].credits.per_replica for pool in POOLS}
        decisions = self.scheduler.decide(self.now_s)
        self.take_note_of_late_batches()
        for frame in decisions.given_up:
            entry = self.here[frame.frame_id]
            assert entry.frame is frame
            assert entry.hopes
            assert self.now_s >= frame.deadline_s + LATE_GRACE_S
            self.end(frame.frame_id, "given up")
        for gone in decisions.expired:
            entry = self.here[gone.frame.frame_id]
            assert gone.frame is entry.frame
            assert entry.waits
            self.end(gone.frame.frame_id, "expired")
        for batch in decisions.batches:
            self.check_batch(batch, per_replica[batch.pool])
            assert batch.batch_id not in self.batches
            self.batches[batch.batch_id] = batch
            self.sent_s[batch.batch_id] = self.now_s
            for frame, route, number in batch.pieces:
                entry = self.here[frame.frame_id]
                assert entry.frame is frame
                assert entry.num_pieces in {None, route.num_pieces}, "a frame that has begun keeps its route"
                entry.num_pieces = route.num_pieces
                assert number in range(route.num_pieces)
                assert number not in entry.done | set().union(*entry.running.values())
                entry.num_sent[number] += 1
                assert entry.num_sent[number] <= MAX_ATTEMPTS
                entry.running.setdefault(batch.batch_id, set()).add(number)
                self.newest = {key: name for key, name in self.newest.items() if name != frame.frame_id}
        assert all(entry.frame.deadline_s > self.now_s for entry in self.here.values() if entry.waits)
        for entry in self.here.values():
            assert not entry.hopes or entry.waits or self.now_s < self.scheduler_hope_s(entry)
        for pool in POOLS:
            self.check_work_conservation(pool)
        assert self.scheduler.decide(self.now_s) == Decisions((), ())
        wake_s = self.scheduler.next_wake_s()
        assert wake_s is None or wake_s > self.now_s

    def take_note_of_late_batches(self):
        """Of what has become overdue at this decision, pieces wait again but of frames that have no other chance."""
        ids = [batch_id for batch_id in self.batches if self.scheduler.is_late(batch_id)]
        late = {batch_id: self.batches.pop(batch_id) for batch_id in ids}
        for batch in late.values():
            sent_s = [self.sent_s[its] for its, other in late.items() if other.replica == batch.replica]
            assert self.now_s - min(sent_s) >= HEDGE_FLOOR_S
            if batch.replica in self.ready[batch.pool] and batch.replica not in self.suspects:
                self.num_spells += 1
                self.suspects[batch.replica] = self.num_spells
        self.num_spells += 1
        for batch_id, batch in late.items():
            for frame_id in {piece.frame.frame_id for piece in batch.pieces}:
                entry = self.entry_in(batch, frame_id)
                if entry is not None and entry.running[batch_id]:
                    entry.lost_on.add((batch.replica, self.suspects.get(batch.replica, self.num_spells)))
        for batch_id, batch in late.items():
            hoping = set()
            for frame_id in sorted({piece.frame.frame_id for piece in batch.pieces}):
                entry = self.entry_in(batch, frame_id)
                if entry is None or not entry.running.pop(batch_id):
                    continue
                if self.is_hoping(batch_id, entry):
                    assert len(entry.lost_on) >= MAX_ATTEMPTS or entry.frame.deadline_s - self.now_s < LONGEST_S
                    entry.hopes = True
                    hoping.add(frame_id)
                    entry.running[batch_id] = {p.number for p in batch.pieces if p.frame is entry.frame} - entry.done
            self.late[batch_id] = batch, hoping

    def is_hoping(self, batch_id, entry):
        """Whether the scheduler has left a frame with its late batch."""
        waiting = self.scheduler._room.entries.get(entry.frame.frame_id)
        return waiting is None or id(waiting) in self.scheduler._batches.late[batch_id].hoping

    def scheduler_hope_s(self, entry):
        """Until when a frame hopes."""
        return self.scheduler._room.entries[entry.frame.frame_id].hopes_until_s

    def check_batch(self, batch, per_replica):
        """One batch: what it holds, and whose credit."""
        bucket = BUCKET_OF[batch.bucket, batch.canvas]
        assert (batch.pool, batch.model) == (bucket.pool, bucket.model)
        assert len(batch.pieces) in bucket.batches
        most, short_since_s = self.short_of_memory.get((batch.bucket, batch.canvas), (len(batch.pieces), 0.0))
        assert len(batch.pieces) <= most or self.now_s >= short_since_s + MEMORY_PAUSE_S
        assert len({frame.priority for frame, _, _ in batch.pieces}) == 1
        is_critical = batch.pieces[0].frame.priority is Priority.CRITICAL
        assert batch.urgent or not is_critical
        for frame, route, _ in batch.pieces:
            assert (route.pool, route.model) == (batch.pool, batch.model)
            assert frame.camera != "firm-1" or route.rung == 0
            assert route.canvas == batch.canvas or (route.canvas, batch.canvas) == (NARROW, VGA)
            assert frame.deadline_s > self.now_s
        if self.is_steady:
            assert batch.run_s == pytest.approx(LATENCY.predict_s(batch.model, batch.canvas, len(batch.pieces)))
            assert batch.run_s <= MAX_CHUNK_S or len(batch.pieces) == 1
        assert batch.replica in self.fit(batch.pool)
        held = [other for other in self.batches.values() if (other.pool, other.replica) == (batch.pool, batch.replica)]
        assert sum(other.urgent for other in held) <= (1 if batch.urgent else 2)
        assert sum(not other.urgent for other in held) <= (MAX_CREDITS_PER_REPLICA if batch.urgent else per_replica - 1)
        if not batch.urgent:
            ready = self.fit(batch.pool)
            others = [b for b in self.batches.values() if b.pool == batch.pool and not b.urgent and b.replica in ready]
            assert not held or len(others) < per_replica * len(ready) - (len(ready) > 1)

    def check_work_conservation(self, pool):
        """No ready replica idles while something may be served, whatever those that left still hold.

        One is left to all others while what is longer than a chunk keeps the rest.
        """
        queue = self.scheduler._pools[pool]
        is_kept = queue.long_batches and len(queue.long_batches) >= len(self.fit(pool)) - 1
        holding = {batch.replica for batch in self.batches.values() if batch.pool == pool}
        if self.is_shared or not self.fit(pool) - holding:
            return
        paused = self.memory[pool] >= MemoryLevel.CRITICAL
        for entry in self.scheduler._room.entries.values():
            may_wait = (paused and entry.route.lane.lane_class is LaneClass.DEFERRED) or (
                is_kept and queue.is_long(entry)
            )
            assert entry.route.pool != pool or not entry.num_waiting or may_wait, "a replica idles while a frame waits"

    # What must hold after every event

    @invariant()
    def every_admitted_frame_is_somewhere_once(self):
        """Here, or ended exactly once; within the budgets."""
        assert self.num_admitted == len(self.here) + self.ends.total()
        assert self.scheduler.num_frames == len(self.here) <= MAX_FRAMES
        held_bytes = sum(entry.frame.num_bytes for entry in self.here.values())
        assert self.scheduler.held_bytes == held_bytes <= MAX_BYTES

    @invariant()
    def loads_are_those_of_the_model(self):
        """Replicas, batches and pieces that wait, of each pool."""
        loads = self.scheduler.loads()
        for pool in POOLS:
            assert loads[pool].num_replicas == len(self.fit(pool))
            assert loads[pool].num_running == sum(batch.pool == pool for batch in self.batches.values())
        num_waiting = 0
        for name, entry in self.here.items():
            num_pieces = entry.num_pieces or self.scheduler._room.entries[name].route.num_pieces
            num_waiting += num_pieces - entry.num_running - len(entry.done)
        assert sum(load.num_waiting for load in loads.values()) == num_waiting

    @invariant()
    def the_wake_is_no_later_than_the_first_expiry(self):
        """A frame that waits is looked at by its deadline at the latest."""
        deadlines_s = [entry.frame.deadline_s for entry in self.here.values() if entry.waits]
        if deadlines_s:
            assert self.scheduler.next_wake_s() <= min(deadlines_s)

    @invariant()
    def nothing_is_kept_of_frames_that_ended(self):
        """Or memory would grow for ever."""
        scheduler = self.scheduler
        assert set(scheduler._room.entries) == set(self.here)
        assert {key: waiting.frame.frame_id for key, waiting in scheduler._room.latest.items()} == self.newest
        assert set(scheduler._batches.running) == set(self.batches)
        assert set(scheduler._batches.late) == set(self.late)
        assert len(scheduler._room.expiry) <= 2 * MAX_FRAMES + 80

    def teardown(self):
        """Every history can be brought to an end: what runs is answered, what waits is sent or expires."""
        for pool in POOLS:
            self.set_ready(pool, set(self.names[pool]))
            self.memory_changes(pool, MemoryLevel.NORMAL)
            for name in self.names[pool]:
                self.scheduler.replica_shared(pool, name, 1.0, self.now_s, self.now_s)
        while self.here or self.batches:
            num_before = len(self.here), len(self.batches), sum(len(entry.done) for entry in self.here.values())
            self.trust_all()
            self.decide()
            for batch_id, batch in sorted(self.batches.items()):
                self.suspects.pop(batch.replica, None)
                for frame in self.scheduler.batch_ended(batch_id, self.now_s):
                    self.end(frame.frame_id, "finished")
                for frame_id in {piece.frame.frame_id for piece in batch.pieces}:
                    entry = self.entry_in(batch, frame_id)
                    if entry is not None:
                        entry.done |= entry.running.pop(batch_id)
            self.batches.clear()
            self.lose_what_is_late()
            assert (len(self.here), 0, sum(len(e.done) for e in self.here.values())) != num_before, "no progress"
        self.every_admitted_frame_is_somewhere_once()
        scheduler = self.scheduler
        assert (scheduler.next_wake_s(), scheduler._room.expiry) == (None, [])
        assert (scheduler._room.entries, scheduler._room.latest, scheduler._batches.running) == ({}, {}, {})
        for pool in scheduler._pools.values():
            assert (pool.num_waiting, pool.credits.num_batches, pool.credits._where) == ([0, 0, 0], 0, {})
            assert pool.backlog.total_s == pytest.approx(0.0, abs=1e-9)
            assert pool.credits.running_s(self.now_s) == pytest.approx(0.0, abs=1e-9)
            assert all(lane.num_waiting == 0 and len(lane.heap) <= 16 for lane in pool._lanes.values())

    def lose_what_is_late(self):
        """Overdue batches are never answered."""
        for batch_id in sorted(self.late):
            for frame in self.scheduler.batch_lost(batch_id, self.now_s):
                self.end(frame.frame_id, "given up")
        self.late.clear()

    def trust_all(self):
        """Every suspect is alive."""
        for pool in POOLS:
            for name in sorted(self.suspects):
                self.scheduler.replica_is_alive(pool, name)
        self.suspects.clear()

    # The model

    def set_ready(self, pool, names):
        """These replicas of a pool take batches."""
        self.scheduler.replicas_ready(pool, sorted(names))
        self.ready[pool] = set(names)
        counted = set().union(*self.ready.values())
        self.suspects = {name: spell for name, spell in self.suspects.items() if name in counted}

    def fit(self, pool):
        """Who gets batches: not suspects, and slow ones only where there is nobody else."""
        steady = self.ready[pool] - set(self.suspects)
        return steady - set(self.scheduler.slow_replicas(pool)) or steady

    def entry_in(self, batch, frame_id):
        """The frame of this id if it is the one that the batch holds; a newer one of the same id is not."""
        entry = self.here.get(frame_id)
        return entry if entry is not None and batch.batch_id in entry.running else None

    def end(self, frame_id, how):
        """A frame ends."""
        self.ends[how] += 1
        del self.here[frame_id]
        self.newest = {key: name for key, name in self.newest.items() if name != frame_id}


# No deadline: other work on the machine must not fail a test. Derandomised: the same histories everywhere.
SchedulerHistory.TestCase.settings = settings(
    max_examples=200, stateful_step_count=50, deadline=None, derandomize=True, database=None
)
TestSchedulerHistory = SchedulerHistory.TestCase
