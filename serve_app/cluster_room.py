"""Whether the replicas of a plan find a place on a cluster, and what is missing where they do not.

The least number of replicas of each pool counts; whether a pool can grow to its `max_replicas` is a warning only.
Routers reserve nothing and go anywhere that their label allows. A plan that fits is never refused: where the search
gives up, it counts as fitting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from serve_app.label_rule import LabelRule, label_rules
from serve_app.placement import ROUTER_LABELS
from serve_app.plan import Plan, Pool
from serve_app.replica_packing import UNIT, Demand, Space, fits, room_on

# Ray's own labels that tell one machine from all others: no cure for a wrong label.
_NAMES_OF_ONE_MACHINE = frozenset({"ray.io/node-id"})
# A message names so many machines; a cluster may have hundreds.
MAX_NAMED = 6


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of the cluster that takes replicas.

    Attributes:
        name: how people know it.
        cpus, gpus: what it has for this plan: all but what others hold.
        num_gpus: its GPUs, whoever holds them.
        labels: its labels.
        other_cpus, other_gpus: what others hold of it.
    """

    name: str
    cpus: float
    gpus: float = 0.0
    num_gpus: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    other_cpus: float = 0.0
    other_gpus: float = 0.0

    def without_others(self) -> Machine:
        """The same machine if nobody else held anything of it."""
        cpus, gpus = self.cpus + self.other_cpus, self.gpus + self.other_gpus
        return replace(self, cpus=cpus, gpus=gpus, other_cpus=0.0, other_gpus=0.0)


@dataclass(frozen=True, slots=True)
class RoomAnswer:
    """Whether a plan has room.

    Attributes:
        shortages: what is missing, each with its pools and a cure; none: every least replica has a place.
        warnings: pools that cannot grow to their `max_replicas` here.
    """

    shortages: tuple[str, ...]
    warnings: tuple[str, ...]


def room_for(plan: Plan, machines: Sequence[Machine]) -> RoomAnswer:
    """What of a plan has a place on these machines."""
    shortages = _shortages(plan.pools, machines) + _routers_lack(machines)
    return RoomAnswer(shortages, () if shortages else _warnings(plan.pools, machines))


def _routers_lack(machines: Sequence[Machine]) -> tuple[str, ...]:
    rules = label_rules(ROUTER_LABELS, "routers")
    if any(rule.allows(dict(machine.labels)) for machine in machines for rule in rules):
        return ()
    refused = ", ".join(f"{key}={value.removeprefix('!')}" for key, value in ROUTER_LABELS.items())
    return (f"routers: every machine has the label {refused}; start one without it",)


def _shortages(pools: Sequence[Pool], machines: Sequence[Machine]) -> tuple[str, ...]:
    alone = tuple(text for pool in pools if (text := _lacks_alone(pool, machines)) is not None)
    if alone:
        return alone
    spaces = [_space(machine) for machine in machines]
    demands = [_demand(pool, pool.num_replicas, machines) for pool in pools]
    if fits(demands, spaces) is not False:
        return ()
    # Without any one of those that are left there would be room: they are what an operator must look at.
    chosen = list(range(len(pools)))
    for index in range(len(pools)):
        others = [each for each in chosen if each != index]
        if fits([demands[each] for each in others], spaces) is False:
            chosen = others
    return (_lack_together([pools[index] for index in chosen], machines),)


def _lacks_alone(pool: Pool, machines: Sequence[Machine]) -> str | None:
    """Why this pool has no room even on a cluster of its own; None: it has."""
    demand = _demand(pool, pool.num_replicas, machines)
    rooms = {machines[index].name: room_on(_space(machines[index]), demand) for index in sorted(demand.machines)}
    if sum(rooms.values()) >= pool.num_replicas:
        return None
    if pool.num_replicas and not demand.machines:
        return _no_such_machine(pool, machines)
    where = f"pools.{pool.name}: got {pool.num_replicas} replicas of {_each(pool)}{_on(pool)}"
    per_machine = "" if pool.max_replicas_per_node is None else f", at most {pool.max_replicas_per_node} a machine"
    places = [f"{name}: {room}" for name, room in rooms.items() if room]
    found = f"there is room for {sum(rooms.values())} ({_some(places)})" if places else "no machine has room for one"
    return f"{where}{per_machine}; {found}{_held(pool, machines)}; lower replicas in the plan or add machines"


def _no_such_machine(pool: Pool, machines: Sequence[Machine]) -> str:
    rules = _rules(pool)
    missing = [rule for rule in rules if not any(rule.allows(dict(machine.labels)) for machine in machines)]
    named = {rule.key for rule in missing or rules}
    counts = Counter(label for machine in machines for label in machine.labels if label[0] not in _NAMES_OF_ONE_MACHINE)
    near = {label: count for label, count in counts.items() if label[0] in named} or counts
    there = [f"{key}={value} ({_count(count, 'machine')})" for (key, value), count in sorted(near.items())]
    wanted = ", ".join(f"{rule.key}={pool.labels[rule.key]}" for rule in missing or rules)
    together = "" if missing else " together"
    what = "there are no machines" if not machines else f"labels that there are: {_some(there) or 'none'}"
    return (
        f"pools.{pool.name}.labels: got {wanted}, which no machine has{together}; {what}; "
        "machines get labels from: ray start --labels"
    )


def _lack_together(pools: Sequence[Pool], machines: Sequence[Machine]) -> str:
    needs = "; ".join(f"{pool.name}: {pool.num_replicas} × {_each(pool)}{_on(pool)}" for pool in pools)
    free = [f"{m.name}: {_amounts(m.cpus, m.gpus)}" for m in machines]
    return (
        f"pools {', '.join(pool.name for pool in pools)}: each has room alone, together they have not; they need "
        f"{needs}; free are {_some(free)}; lower replicas, cpus or gpus in the plan or add machines"
    )


def _warnings(pools: Sequence[Pool], machines: Sequence[Machine]) -> tuple[str, ...]:
    """Pools that cannot grow as far as the plan lets them, even while the others have their least."""
    spaces = [_space(machine) for machine in machines]
    told = []
    for pool in pools:
        if pool.max_replicas is None:
            continue
        grown = [_demand(each, each.max_replicas if each is pool else each.num_replicas, machines) for each in pools]
        if fits(grown, spaces) is False:
            told.append(
                f"pools.{pool.name}.max_replicas: got {pool.max_replicas} of {_each(pool)}{_on(pool)}, for which this "
                "cluster has no room beside the least of the others; it grows as far as there is room"
            )
    return tuple(told)


def _demand(pool: Pool, count: int | None, machines: Sequence[Machine]) -> Demand:
    rules = _rules(pool)
    allowed = (
        index
        for index, machine in enumerate(machines)
        if all(rule.allows(dict(machine.labels)) for rule in rules)
    )  # fmt: skip
    per_machine = pool.max_replicas_per_node
    return Demand(count or 0, _units(pool.num_cpus), _units(pool.num_gpus), frozenset(allowed), per_machine)


def _space(machine: Machine) -> Space:
    return Space(_units(machine.cpus), _units(machine.gpus), machine.num_gpus)


def _rules(pool: Pool) -> tuple[LabelRule, ...]:
    return label_rules(pool.labels, f"pools.{pool.name}.labels")


def _units(amount: float) -> int:
    return round(amount * UNIT)


def _each(pool: Pool) -> str:
    return f"{_amounts(pool.num_cpus, pool.num_gpus)} each"


def _on(pool: Pool) -> str:
    wanted = ", ".join(f"{key}={value}" for key, value in pool.labels.items())
    return f" on machines with {wanted}" if wanted else ""


def _held(pool: Pool, machines: Iterable[Machine]) -> str:
    """What others hold where this pool may run, if anything."""
    rules = _rules(pool)
    there = [machine for machine in machines if all(rule.allows(dict(machine.labels)) for rule in rules)]
    cpus, gpus = sum(m.other_cpus for m in there), sum(m.other_gpus for m in there)
    return f"; other work of this cluster holds {_amounts(cpus, gpus)} there" if cpus or gpus else ""


def _amounts(cpus: float, gpus: float) -> str:
    parts = [_count(gpus, "GPU")] if gpus else []
    return " and ".join([*parts, _count(cpus, "CPU")])


def _count(amount: float, what: str) -> str:
    return f"{amount:g} {what}" if amount == 1 else f"{amount:g} {what}s"


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - MAX_NAMED
    return ", ".join(texts[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
