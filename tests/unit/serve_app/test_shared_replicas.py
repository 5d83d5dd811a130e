"""Schedulers of several routers on the same simulated replicas: no overbooking, nothing lost, nobody starves."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush

import pytest
from router_world import report as replica_report
from serve_samples import VGA, sample_frame, sample_latency, sample_plan

from serve_app.batching import Batch
from serve_app.credit_grants import CreditGrants
from serve_app.device_turns import DeviceTurns
from serve_app.frames import Frame, Priority
from serve_app.plan import Bucket, Pool, Scheduling
from serve_app.replica_credits import MIN_CREDITS_PER_REPLICA
from serve_app.replica_limits import ReplicaLimits
from serve_app.router_credits import RouterCredits
from serve_app.scheduler import Scheduler
from serve_app.verdicts import VerdictKind

POOL = "near"
BATCH_S = (0.010, 0.016, 0.028)
CHUNK_S = BATCH_S[-1]
# A call's way to the device, and back.
BEFORE_S, AFTER_S = 0.004, 0.002
PLAN = sample_plan(
    pools=(Pool(POOL),), buckets=(Bucket("vga", "full", POOL, (VGA,), (1, 2, 4)),),
    scheduling=Scheduling(max_chunk_s=CHUNK_S, max_starve_s=0.5),
)  # fmt: skip


class SharedReplica:
    """One replica: its credits as in production, and its device."""

    def __init__(self, name: str):
        self.name = name
        self.grants = CreditGrants()
        self.turns: DeviceTurns[tuple[Batch, Callable[[], None]]] = DeviceTurns(PLAN.scheduling.max_starve_s)
        self.is_running = False
        self.busy_s = 0.0
        # By router, noncritical batches that were taken and have not ended; and the most of all at once.
        self.others: Counter[str] = Counter()
        self.most_others = 0
        # The same for critical ones.
        self.urgent: Counter[str] = Counter()


class RouterSide:
    """One router: its scheduler and what it knows of its credits."""

    def __init__(self, name: str):
        self.name = name
        self.scheduler = Scheduler(PLAN, sample_latency({("full", VGA): BATCH_S}))
        self.scheduler._pools[POOL].around_s = BEFORE_S + AFTER_S
        self.limits = ReplicaLimits(self.scheduler)
        self.credits = RouterCredits(name, self.scheduler, self.limits)
        self.wake_s = math.inf
        self.is_alive = True


class SharedWorld:
    """Routers and replicas on a virtual clock.

    Attributes:
        outcomes: by frame, how it ended.
        waits_s: of each frame that finished, from its arrival to its answer.
        num_refused: batches by router that replicas refused.
    """

    def __init__(self, num_routers: int, num_replicas: int):
        self.now_s = 0.0
        self.routers = [RouterSide(f"router-{number}") for number in range(num_routers)]
        self.replicas = [SharedReplica(f"near-{number}") for number in range(num_replicas)]
        self.outcomes: dict[str, str] = {}
        self.waits_s: dict[str, float] = {}
        self.num_refused: Counter[str] = Counter()
        self.num_finished_of: Counter[str] = Counter()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        for number, router in enumerate(self.routers):
            self.at(0.05 * number, partial(self._asks, router))

    def at(self, at_s: float, event: Callable[[], None]) -> None:
        """Let something happen."""
        heappush(self._events, (at_s, next(self._order), event))

    def play(self, until_s: float) -> None:
        """Let everything happen until then."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, event = heappop(self._events)
            event()
            for replica in self.replicas:
                self._looks_at(replica)

    def arrives(self, router: RouterSide, frame: Frame) -> None:
        """A frame comes to a router at its time."""
        self.at(frame.arrived_s, partial(self._arrives, router, frame))

    def _looks_at(self, replica: SharedReplica) -> None:
        use = replica.grants.use()
        num_others = sum(replica.others.values())
        replica.most_others = max(replica.most_others, num_others)
        # A run takes several times as long as the call around it, so a router that is alone keeps to two.
        assert num_others <= max(MIN_CREDITS_PER_REPLICA, use.num_credits), "overbooked"
        # One on its way back to its router, and the next one.
        assert max(replica.urgent.values(), default=0) <= 2

    def _asks(self, router: RouterSide) -> None:
        """A round of reports."""
        if not router.is_alive:
            return
        ask = router.credits.ask(POOL)
        reports = tuple(self._reported(replica, ask) for replica in self.replicas)
        router.limits.ready(POOL, [replica.name for replica in self.replicas])
        router.credits.reported(POOL, reports, self.now_s)
        self._decides(router)
        self.at(self.now_s + 1.0, partial(self._asks, router))

    def _reported(self, replica: SharedReplica, ask):
        said = replica_report(replica.name)
        return type(said)(
            said.replica, said.node, said.num_batches, said.warm_s, said.device,
            grant=replica.grants.asked(ask, self.now_s), credits=replica.grants.use(),
        )  # fmt: skip

    def _arrives(self, router: RouterSide, frame: Frame) -> None:
        if not router.is_alive:
            self._ends(frame, "lost with its router", router)
        elif router.scheduler.arrived(frame).verdict.kind is VerdictKind.REJECT:
            self._ends(frame, "rejected", router)
        else:
            self._decides(router)

    def _ends(self, frame: Frame, how: str, router: RouterSide) -> None:
        assert frame.frame_id not in self.outcomes, f"{frame.frame_id} ended twice"
        self.outcomes[frame.frame_id] = how
        if how == "finished":
            self.waits_s[frame.frame_id] = self.now_s - frame.arrived_s
            self.num_finished_of[router.name] += 1

    def _decides(self, router: RouterSide) -> None:
        decisions = router.scheduler.decide(self.now_s)
        for each in decisions.expired:
            self._ends(each.frame, "expired", router)
        for batch in decisions.batches:
            self.at(self.now_s + 0.001, partial(self._comes, router, batch))
        wake_s = router.scheduler.next_wake_s()
        if wake_s is not None and not self.now_s < router.wake_s <= wake_s:
            router.wake_s = wake_s
            self.at(wake_s, partial(self._wakes, router))

    def _wakes(self, router: RouterSide) -> None:
        if router.is_alive:
            self._decides(router)

    def _comes(self, router: RouterSide, batch: Batch) -> None:
        """A batch comes to its replica, which takes or refuses it."""
        replica = next(replica for replica in self.replicas if replica.name == batch.replica)
        number = replica.grants.came(router.name, batch.run_s, self.now_s, urgent=batch.urgent)
        if number is None:
            self.num_refused[router.name] += 1
            self.at(self.now_s + AFTER_S, partial(self._is_refused, router, batch, replica))
            return
        held = replica.urgent if batch.urgent else replica.others
        held[router.name] += 1
        self.at(self.now_s + BEFORE_S - 0.001, partial(self._is_placed, router, batch, replica, number))

    def _is_refused(self, router: RouterSide, batch: Batch, replica: SharedReplica) -> None:
        if router.is_alive:
            router.credits.granted(POOL, replica.name, replica.grants.grant(router.name, self.now_s), self.now_s)
            router.credits.refused(POOL, replica.name)
            router.scheduler.batch_refused(batch.batch_id, self.now_s)
            self._decides(router)

    def _is_placed(self, router: RouterSide, batch: Batch, replica: SharedReplica, number: int) -> None:
        replica.turns.add(
            (batch, partial(self._has_run, router, batch, replica, number)), self.now_s, urgent=batch.urgent
        )
        self._runs_next(replica)

    def _runs_next(self, replica: SharedReplica) -> None:
        if not replica.is_running and len(replica.turns):
            batch, has_run = replica.turns.next(self.now_s)
            replica.is_running = True
            replica.busy_s += batch.run_s
            self.at(self.now_s + batch.run_s, has_run)

    def _has_run(self, router: RouterSide, batch: Batch, replica: SharedReplica, number: int) -> None:
        replica.is_running = False
        replica.grants.ended(number, batch.run_s, self.now_s)
        (replica.urgent if batch.urgent else replica.others)[router.name] -= 1
        grant = replica.grants.grant(router.name, self.now_s)
        self.at(self.now_s + AFTER_S, partial(self._is_answered, router, batch, replica, grant))
        self._runs_next(replica)

    def _is_answered(self, router: RouterSide, batch: Batch, replica: SharedReplica, grant) -> None:
        if not router.is_alive:
            return
        router.credits.granted(POOL, replica.name, grant, self.now_s)
        around_s = BEFORE_S + AFTER_S
        done = router.scheduler.batch_ended(batch.batch_id, self.now_s, busy_s=batch.run_s, around_s=around_s)
        for frame in done:
            self._ends(frame, "finished", router)
        self._decides(router)

    def dies(self, router: RouterSide) -> None:
        """A router is no more; its batches run on."""
        router.is_alive = False


def traffic(name: str, rate_hz: float, until_s: float, lots: random.Random, **changes) -> list[Frame]:
    """Frames at random times."""
    frames, at_s = [], 0.2
    slo_s = changes.pop("slo_s", 0.6)
    while (at_s := at_s + lots.expovariate(rate_hz)) < until_s:
        frame_id = f"{name}-{len(frames)}"
        frames.append(sample_frame(frame_id, arrived_s=at_s, deadline_s=at_s + slo_s, camera=name, **changes))
    return frames


def capacity_hz(num_replicas: int) -> float:
    """Frames a second of so many devices with full batches."""
    return num_replicas * 4 / BATCH_S[-1]


@pytest.mark.parametrize("num_routers", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_routers_that_share_replicas_never_overbook_them_and_lose_nothing(num_routers, seed):
    """At one and a half times the capacity: each frame ends once, each router gets its part, critical ones are quick.

    A critical frame waits for the chunk that runs, for critical work that came before, and for its own run and way.
    """
    lots = random.Random(seed)
    world = SharedWorld(num_routers, 2)
    rate_hz = 1.5 * capacity_hz(2) / num_routers
    sent: dict[str, RouterSide] = {}
    for router in world.routers:
        frames = traffic(f"{router.name}-normal", rate_hz, 6.0, lots)
        frames += traffic(f"{router.name}-critical", 6 / num_routers, 6.0, lots, priority=Priority.CRITICAL, slo_s=0.3)
        for frame in frames:
            sent[frame.frame_id] = router
            world.arrives(router, frame)

    world.play(8.0)

    assert world.outcomes.keys() == sent.keys()
    assert all(router.scheduler.num_frames == 0 for router in world.routers)
    critical = {name: how for name, how in world.outcomes.items() if "critical" in name}
    assert set(critical.values()) == {"finished"}
    waits_s = [wait_s for name, wait_s in world.waits_s.items() if name in critical]
    assert max(waits_s) <= CHUNK_S + 3 * BATCH_S[0] + BEFORE_S + AFTER_S + 1e-9
    for replica in world.replicas:
        assert replica.busy_s > 0.9 * 5.8
        assert replica.grants.use().num_credits == max(2, num_routers + 1)
    shares = [world.num_finished_of[router.name] / world.num_finished_of.total() for router in world.routers]
    assert min(shares) > 0.7 / num_routers
    assert world.num_refused.total() < 0.02 * len(sent)
    # What is admitted is mostly in time: each router reckons with the work of the others.
    counts = Counter(world.outcomes.values())
    assert counts["expired"] < 0.1 * counts["finished"]


def test_a_busy_router_beside_an_idle_one_is_as_fast_as_alone():
    """The idle one keeps a credit, and there is one more for whoever needs it."""
    finished = []
    for num_routers in (1, 2):
        world = SharedWorld(num_routers, 2)
        for frame in traffic("gate", 1.5 * capacity_hz(2), 6.0, random.Random(1)):
            world.arrives(world.routers[0], frame)
        world.play(8.0)
        finished.append(Counter(world.outcomes.values())["finished"])

    assert finished[1] > 0.97 * finished[0]


def test_work_of_a_dead_router_goes_on_elsewhere():
    """Its batches end, its lease runs out, and the other router has all credits: what comes to it is served."""
    world = SharedWorld(2, 1)
    lots = random.Random(3)
    for router in world.routers:
        for frame in traffic(router.name, 0.7 * capacity_hz(1), 14.0, lots):
            world.arrives(router, frame)
    world.at(3.0, partial(world.dies, world.routers[0]))
    world.play(16.0)

    (replica,) = world.replicas
    assert replica.others.total() == 0
    assert replica.grants.use().num_routers == 1
    late = [name for name in world.outcomes if name.startswith("router-1")][-200:]
    assert {world.outcomes[name] for name in late} == {"finished"}


def test_a_router_alone_is_served_as_if_credits_were_not_shared():
    """No limit, no refusal, and the same answers at the same times as without any word of credits."""
    ends = []
    for is_silent in (False, True):
        world = SharedWorld(1, 2)
        (router,) = world.routers
        if is_silent:
            router.credits.granted = lambda *_: None
        for frame in traffic("gate", 1.2 * capacity_hz(2), 4.0, random.Random(2)):
            world.arrives(router, frame)
        world.play(6.0)
        ends.append((world.outcomes, world.waits_s))
        assert world.num_refused.total() == 0
        assert router.scheduler._pools[POOL].credits.num_devices == 2.0

    assert ends[0] == ends[1]
