"""Pools that grow and shrink in a simulation: the scalers that serve, on the virtual clock, and their cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from serve_app.autoscaling import DemandMeter, PoolNeed, PoolScaler
from serve_app.errors import InvalidPlanError
from serve_app.frames import Priority
from serve_app.latency import LatencyModel
from serve_app.plan import Plan, Pool
from serve_app.pool_load import PoolLoad
from serve_app.routes import RouteTable
from serve_app.simulation.clairvoyant import MAX_STATES, UNITS_A_STEP, least_replica_s
from serve_app.simulation.traces import Floats, Trace

# Ray starts a process, which loads a model, builds or loads its engines and warms every shape.
DEFAULT_START_UP_S = 20.0
# How often the scalers are asked: as often as Serve's controller looks, where `framelane up` starts Ray.
TICK_S = 0.5
# The optimum is worked out over so many steps at most; longer ones make it smaller, never larger.
MAX_STEPS = 3000


@dataclass(frozen=True, slots=True)
class ScalingFigures:
    """How the size of one pool went.

    Attributes:
        least, mean, most: replicas, while the cameras sent; those that start count, as they hold their device.
        replica_s: replica-seconds in that time.
        clairvoyant_s: the least with which somebody who knows the future serves the same work in time, with replicas as
            busy as the plan wants them; see `clairvoyant.py`.
        num_changes: how often the pool was told another size.
        times_s, sizes: when, and which; the first is at 0.
    """

    least: int
    mean: float
    most: int
    replica_s: float
    clairvoyant_s: float
    num_changes: int
    times_s: tuple[float, ...]
    sizes: tuple[int, ...]

    @property
    def ratio(self) -> float:
        """Replica-seconds over the clairvoyant's; 1 if neither needed any."""
        return self.replica_s / self.clairvoyant_s if self.clairvoyant_s else 1.0


class SimulatedScaling:
    """The scalers of a plan's pools, the sizes that they ask for, and the replicas that are on their way."""

    def __init__(
        self, plan: Plan, loads: Callable[[], Mapping[str, PoolLoad]], *, start_up_s: float = DEFAULT_START_UP_S
    ) -> None:
        """Take the plan, of which pools with `max_replicas` change, and where to ask what they have to do.

        Args:
            plan: the plan.
            loads: `Scheduler.loads` of the scheduler that is simulated.
            start_up_s: from a replica's start until it is warm.

        Raises:
            InvalidPlanError: no pool changes, or a start-up that takes no time that there is.
        """
        if not 0 <= start_up_s < math.inf:
            raise InvalidPlanError(f"start-up: got {start_up_s} s, allowed are seconds of 0 or more")
        self.start_up_s = start_up_s
        self.tick_s = TICK_S
        self._plan = plan
        self._loads = loads
        self._pools = {pool.name: pool for pool in plan.pools if pool.max_replicas is not None}
        if not self._pools:
            raise InvalidPlanError("autoscale: got no pool with max_replicas in the plan; set it where a pool may grow")
        rules, max_defer_s = plan.autoscaling, plan.scheduling.max_defer_s
        self._scalers = {name: PoolScaler(rules, max_defer_s) for name in self._pools}
        self._meters = {name: (DemandMeter(), DemandMeter()) for name in self._pools}
        self._targets = {name: pool.num_replicas for name, pool in self._pools.items()}
        self._due_s: dict[str, list[float]] = {name: [] for name in self._pools}
        self._history = {name: [(0.0, pool.num_replicas)] for name, pool in self._pools.items()}

    def has_work(self) -> bool:
        """Whether anything waits or runs."""
        return any(load.num_waiting or load.num_running for load in self._loads().values())

    def changes(self, num_ready: Mapping[str, int], now_s: float) -> dict[str, tuple[int, int]]:
        """What is to happen now, by pool: replicas to start, and ready ones to give up. Starts are given up first."""
        changes, loads = {}, self._loads()
        for name, pool in self._pools.items():
            target = self._targets[name]
            wanted = self._scalers[name].decide(self._need(pool, loads[name], num_ready[name], now_s), now_s)
            if wanted.num_replicas != target:
                self._targets[name] = wanted.num_replicas
                self._history[name].append((now_s, wanted.num_replicas))
            due_s = self._due_s[name]
            num_new = max(0, wanted.num_replicas - target)
            due_s += [now_s + self.start_up_s] * num_new
            surplus = num_ready[name] + len(due_s) - wanted.num_replicas
            while surplus > 0 and due_s:
                due_s.pop()
                surplus -= 1
            if num_new or surplus > 0:
                changes[name] = num_new, max(0, surplus)
        return changes

    def is_up(self, pool: str, now_s: float) -> bool:
        """Whether a replica whose start-up is over now is still wanted."""
        due_s = self._due_s[pool]
        if not due_s or due_s[0] > now_s:
            return False
        due_s.pop(0)
        return True

    def figures(self, trace: Trace, latency: LatencyModel) -> dict[str, ScalingFigures]:
        """How the sizes went over a trace that was played, by pool; `latency` is what batches really take."""
        work = offered_work(self._plan, trace, latency)
        return {name: self._figures(pool, work.get(name), trace.duration_s) for name, pool in self._pools.items()}

    def _need(self, pool: Pool, load: PoolLoad, num_ready: int, now_s: float) -> PoolNeed:
        offered, sent = self._meters[pool.name]
        return PoolNeed(
            num_ready=num_ready,
            target=self._targets[pool.name],
            least=pool.num_replicas,
            most=pool.max_replicas or pool.num_replicas,
            demand=offered.read(load.offered_s, now_s),
            served=sent.read(load.sent_s, now_s),
            waiting_s=load.backlog_s - load.deferred_s,
            deferred_s=load.deferred_s,
        )

    def _figures(self, pool: Pool, work: tuple[Floats, Floats] | None, duration_s: float) -> ScalingFigures:
        history = [(at_s, size) for at_s, size in self._history[pool.name] if at_s < duration_s]
        times_s, sizes = zip(*history, strict=True)
        lasted_s = np.diff([*times_s, duration_s])
        replica_s = float((lasted_s * sizes).sum())
        most = pool.max_replicas or pool.num_replicas
        # A pool that may be empty serves deferred frames only, which may wait longer.
        scheduling, rules = self._plan.scheduling, self._plan.autoscaling
        max_wait_s = rules.max_wait_s if pool.num_replicas else scheduling.max_defer_s
        step_s = _step_s(duration_s, most - pool.num_replicas + 1, most, max_wait_s)
        edges_s = np.arange(0.0, duration_s + step_s, step_s)
        at_s, work_s = work or (np.empty(0), np.empty(0))
        clairvoyant_s = least_replica_s(
            np.histogram(at_s, edges_s, weights=work_s)[0], step_s, least=pool.num_replicas, most=most,
            start_up_s=self.start_up_s, max_wait_s=max_wait_s, utilisation=rules.utilisation,
        )  # fmt: skip
        return ScalingFigures(
            min(sizes), replica_s / duration_s, max(sizes), replica_s, clairvoyant_s, len(history) - 1, times_s, sizes
        )


def offered_work(plan: Plan, trace: Trace, latency: LatencyModel) -> dict[str, tuple[Floats, Floats]]:
    """When work came for each pool, and how many device seconds, each frame by its first route."""
    table = RouteTable(plan, latency)
    keys = np.stack([trace.camera.astype(np.int64), trace.size, trace.is_critical], axis=1)
    unique, which = np.unique(keys, axis=0, return_inverse=True)
    pools, works_s = [], np.zeros(len(unique))
    for row, (camera, size, is_critical) in enumerate(unique.tolist()):
        priority = Priority.CRITICAL if is_critical else Priority.NORMAL
        ways = table.routes(table.rule_of(trace.cameras[camera]), trace.sizes_hw[size], priority)
        pools.append(ways[0].pool if ways else "")
        works_s[row] = ways[0].piece_s * ways[0].num_pieces if ways else 0.0
    which = which.reshape(-1)
    of_pool = np.asarray(pools)[which]
    return {name: (trace.at_s[of_pool == name], works_s[which][of_pool == name]) for name in set(pools) - {""}}


def _step_s(duration_s: float, num_sizes: int, most: int, max_wait_s: float) -> float:
    """The shortest step from `max_wait_s` on with which the optimum is quickly found."""
    max_depths = max(1, MAX_STATES // num_sizes - 1)
    return max(max_wait_s, duration_s / MAX_STEPS, most * UNITS_A_STEP * max_wait_s / max_depths)
