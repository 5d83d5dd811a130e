"""Whether replicas of several kinds find places on machines together: a search that is exact where it ends.

Amounts are whole numbers of Ray's unit, a ten-thousandth of a CPU or GPU. A replica of a part of a GPU lies on one
GPU; one of several takes them whole. What others hold of a machine's GPUs Ray tells as a sum only, not on which: then
each GPU counts as free up to that sum, so that a plan that fits is never taken for one that does not.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Ray counts resources in these parts.
UNIT = 10_000
# Places that are tried beyond one for each replica: a second's work on a hundred machines, which are decided in far
# fewer unless many different parts of GPUs are mixed.
DEFAULT_MAX_TRIES = 5000


@dataclass(frozen=True, slots=True)
class Space:
    """What one machine has to give: `cpu`, `gpu` in all, and `num_gpus` devices that hold one unit each."""

    cpu: int
    gpu: int
    num_gpus: int


@dataclass(frozen=True, slots=True)
class Demand:
    """Replicas of one kind.

    Attributes:
        count: how many.
        cpu, gpu: what each one takes.
        machines: indices of the machines that may run them.
        max_each: how many one machine may run; None: any number.
    """

    count: int
    cpu: int
    gpu: int
    machines: frozenset[int]
    max_each: int | None = None


def room_on(space: Space, demand: Demand) -> int:
    """How many replicas of this kind alone the machine holds; never more than are asked for."""
    bounds = [demand.count]
    if demand.max_each is not None:
        bounds.append(demand.max_each)
    if demand.cpu:
        bounds.append(space.cpu // demand.cpu)
    if demand.gpu:
        each = UNIT // demand.gpu * space.num_gpus if demand.gpu <= UNIT else space.num_gpus * UNIT // demand.gpu
        bounds += [each, space.gpu // demand.gpu]
    return max(0, min(bounds))


def fits(demands: Sequence[Demand], spaces: Sequence[Space], max_tries: int = DEFAULT_MAX_TRIES) -> bool | None:
    """Whether all replicas find a place; None: not decided after so many tries.

    Depth first, kinds with the largest replicas first, each to the machine with the least to spare; machines and GPUs
    in the same state count as one, and a state that failed is not tried again.
    """
    if _plainly_too_much(demands, spaces):
        return False
    order = sorted((d for d in demands if d.count), key=lambda d: (-d.gpu, -d.cpu, len(d.machines), d.count))
    kinds = [frozenset(n for n, demand in enumerate(order) if index in demand.machines) for index in range(len(spaces))]
    names = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    cluster = sorted(
        _Machine(space.gpu, space.cpu, (0,) * space.num_gpus, names[kind], 0)
        for space, kind in zip(spaces, kinds, strict=True)
    )
    members = [frozenset(name for kind, name in names.items() if n in kind) for n in range(len(order))]
    return _search(order, members, tuple(cluster), max_tries + sum(d.count for d in demands))


def _plainly_too_much(demands: Sequence[Demand], spaces: Sequence[Space]) -> bool:
    """Whether a sum alone says no: one kind's, or of all kinds that some machines must share."""
    if any(sum(room_on(spaces[i], demand) for i in demand.machines) < demand.count for demand in demands):
        return True
    for machines in {demand.machines for demand in demands} | {frozenset(range(len(spaces)))}:
        bound = [demand for demand in demands if demand.machines <= machines]
        if sum(d.count * d.cpu for d in bound) > sum(spaces[i].cpu for i in machines):
            return True
        if sum(d.count * d.gpu for d in bound) > sum(spaces[i].gpu for i in machines):
            return True
    return False


class _Machine(NamedTuple):  # its order and hash are what the search spends its time on
    """One machine on the way: what is free, what is used of each GPU, its kind, replicas of the present demand."""

    gpu: int
    cpu: int
    used: tuple[int, ...]
    kind: int
    num_here: int


_Cluster = tuple[_Machine, ...]


def _search(
    order: Sequence[Demand], members: Sequence[frozenset[int]], cluster: _Cluster, max_tries: int
) -> bool | None:
    # Each entry: how many replicas are placed, and the states with one more; a path of thousands needs no recursion.
    steps = [number for number, demand in enumerate(order) for _ in range(demand.count)]
    if not steps:
        return True
    failed: set[tuple[int, _Cluster]] = set()
    path = [_placements(order[steps[0]], members[steps[0]], cluster)]
    tries = 0
    while path:
        after = next(path[-1], None)
        if after is None:
            path.pop()
            continue
        placed = len(path)
        if placed == len(steps):
            return True
        if steps[placed] != steps[placed - 1]:
            after = tuple(sorted(machine._replace(num_here=0) for machine in after))
        if (placed, after) in failed:
            continue
        tries += 1
        if tries > max_tries:
            return None
        # Put there before it has failed: the search is depth first, so it is seen again only after it has.
        failed.add((placed, after))
        path.append(_placements(order[steps[placed]], members[steps[placed]], after))
    return False


def _placements(demand: Demand, kinds: frozenset[int], cluster: _Cluster) -> Iterator[_Cluster]:
    """Every state of the cluster with one replica more, the tightest machine first."""
    previous = None
    for index, machine in enumerate(cluster):
        if machine == previous:
            continue
        previous = machine
        if machine.kind not in kinds or machine.cpu < demand.cpu or machine.gpu < demand.gpu:
            continue
        if demand.max_each is not None and machine.num_here >= demand.max_each:
            continue
        for used in _on_gpus(machine.used, demand.gpu):
            one_more = _Machine(
                machine.gpu - demand.gpu, machine.cpu - demand.cpu, used, machine.kind, machine.num_here + 1
            )
            others = [*cluster[:index], *cluster[index + 1 :]]
            insort(others, one_more)
            yield tuple(others)


def _on_gpus(used: tuple[int, ...], gpu: int) -> Iterator[tuple[int, ...]]:
    """The ways to take so much of GPUs of which so much is used; the fullest that has room first."""
    if gpu == 0:
        yield used
    elif gpu >= UNIT:
        whole, free = gpu // UNIT, used.count(0)
        if free >= whole:
            yield tuple(sorted([*(each for each in used if each), *[0] * (free - whole), *[UNIT] * whole]))
    else:
        for amount in sorted({each for each in used if each + gpu <= UNIT}, reverse=True):
            rest = list(used)
            rest.remove(amount)
            yield tuple(sorted([*rest, amount + gpu]))
