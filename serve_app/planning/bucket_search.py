"""The exact grouping behind the planner: canvases into buckets with narrow profiles, and a batch ladder for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engines.spec import CanvasShape
from serve_app.latency import LatencyModel
from serve_app.planning.engine_memory import EngineMemory
from serve_app.planning.plan_load import seconds_a_frame

# What a canvas of half or twice the tuned one's pixels is taken to lose. An assumption: it only decides which canvases
# share a profile, and enters no figure that is shown.
TUNING_LOSS_PER_DOUBLING = 0.02
# A larger batch must save this share of a frame's time: it costs memory, a warm-up, and a longer chunk.
MIN_BATCH_GAIN = 0.05


@dataclass(frozen=True, slots=True)
class UsedCanvas:
    """A canvas, how many frames a second it gets, and the largest batch that pays and holds the limits on it."""

    canvas: CanvasShape
    rate_hz: float
    max_batch: int


@dataclass(frozen=True, slots=True)
class CanvasGroup:
    """Neighbouring canvases of one bucket.

    Attributes:
        canvases: the most used one first, which the engine is tuned for.
        max_batch: top of the batch ladder.
        activation_bytes: what its engine holds beside its weights.
        loss: what is minimised: device seconds a second, those of canvases far from the tuned one taken dearer.
    """

    canvases: tuple[CanvasShape, ...]
    max_batch: int
    activation_bytes: int
    loss: float


def ladder_to(max_batch: int) -> tuple[int, ...]:
    """Powers of two from 1 up to `max_batch`."""
    return tuple(2**power for power in range(max_batch.bit_length()))


def paying_batch(latency: LatencyModel, model: str, canvas: CanvasShape, *, max_batch: int, chunk_s: float) -> int:
    """The largest power of two that pays: each doubling saves `MIN_BATCH_GAIN` a frame and stays within `chunk_s`."""
    batch = 1
    while 2 * batch <= max_batch:
        doubled_s = latency.predict_s(model, canvas, 2 * batch)
        alone_s = latency.predict_s(model, canvas, batch)
        if doubled_s > chunk_s or doubled_s > 2 * alone_s * (1 - MIN_BATCH_GAIN):
            break
        batch *= 2
    return batch


def group_canvases(
    used: Sequence[UsedCanvas],
    latency: LatencyModel,
    model: str,
    *,
    max_groups: int,
    memory: EngineMemory,
    limit_bytes: float,
    together: bool,
) -> tuple[CanvasGroup, ...] | None:
    """Cut the canvases, in order of pixels, into groups, each with a top batch, at the least loss.

    Algorithm: dynamic program over the cuts; a state keeps every (memory, loss) that no other one beats in both, so the
    result is the optimum over all cuts into neighbours and all ladders of powers of two. A group's top batch is at most
    the smallest `max_batch` in it: every shape of a bucket is warmed, and none may break the limits.

    Args:
        used: the canvases.
        latency: predicts seconds.
        model: by this name.
        max_groups: 1 or more.
        memory: what engines hold.
        limit_bytes: what they may hold; infinite for no limit.
        together: whether the limit holds for all groups together (one replica has them all) or for each.

    Returns:
        None if no grouping holds the limit.
    """
    ordered = sorted(used, key=lambda u: (u.canvas.num_px, u.canvas))
    states: dict[tuple[int, int], list[tuple[CanvasGroup, ...]]] = {(0, 0): [()]}
    for end in range(1, len(ordered) + 1):
        for num_groups in range(1, min(max_groups, end) + 1):
            found = [
                (*before, group)
                for start in range(end)
                for group in _groups(ordered[start:end], latency, model, memory)
                for before in states.get((start, num_groups - 1), [])
                if memory.together_bytes((*before, group) if together else (group,)) <= limit_bytes
            ]
            states[end, num_groups] = _undominated(found, memory)
    complete = [groups for n in range(1, max_groups + 1) for groups in states.get((len(ordered), n), [])]
    return min(complete, key=lambda groups: (_loss(groups), len(groups), memory.together_bytes(groups)), default=None)


def _groups(
    members: Sequence[UsedCanvas], latency: LatencyModel, model: str, memory: EngineMemory
) -> list[CanvasGroup]:
    """These canvases as one bucket, with every ladder that all of them allow."""
    by_use = sorted(members, key=lambda u: (-u.rate_hz, -u.canvas.num_px))
    tuned, largest = by_use[0].canvas, memory.largest([u.canvas for u in members])
    groups = []
    for max_batch in ladder_to(min(u.max_batch for u in members)):
        ladder = ladder_to(max_batch)
        loss = sum(
            u.rate_hz
            * seconds_a_frame(latency, model, u.canvas, ladder)
            * (1 + TUNING_LOSS_PER_DOUBLING * abs(math.log2(u.canvas.num_px / tuned.num_px)))
            for u in members
        )
        activation_bytes = memory.activation_bytes(largest, max_batch)
        groups.append(CanvasGroup(tuple(u.canvas for u in by_use), max_batch, activation_bytes, loss))
    return groups


def _loss(groups: Sequence[CanvasGroup]) -> float:
    return sum(group.loss for group in groups)


def _undominated(found: list[tuple[CanvasGroup, ...]], memory: EngineMemory) -> list[tuple[CanvasGroup, ...]]:
    """Those that no other one beats in memory and in loss; all have as many groups."""
    kept: list[tuple[CanvasGroup, ...]] = []
    for groups in sorted(found, key=lambda groups: (memory.together_bytes(groups), _loss(groups))):
        if not kept or _loss(groups) < _loss(kept[-1]):
            kept.append(groups)
    return kept
