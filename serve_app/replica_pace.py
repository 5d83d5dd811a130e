"""How fast each replica of a pool is against the latency model and its peers: one that is far slower is found out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from statistics import median_low

# Busy seconds over predicted ones. What a machine's moods do to one batch stays below; half a GPU, a throttled one or a
# neighbour on the same cores are two to three times slower and still worth having.
SLOW_RATIO = 4.0
# To come back it must be clearly better than what it was sent away for.
RECOVERED_RATIO = 2.0
# Of the last so many batches the median counts, once there are enough: a stall of three batches is none of them.
WINDOW_BATCHES = 8
MIN_BATCHES = 5
# So many probes in a row must be good before it gets frames again.
PROBES_TO_RECOVER = 3


class ReplicaPace:
    """Judges the replicas of one pool.

    A replica is slow when the median of its last `WINDOW_BATCHES` ratios is at least `SLOW_RATIO`, and as many times
    that of its peers (the median of theirs). So a pool that has become slow as a whole, or a lone replica, is not:
    there the model follows. A slow one is judged by probes until its last `PROBES_TO_RECOVER` are below
    `RECOVERED_RATIO`. A batch that is that slow beside peers that are not is not to be learnt from: it would spoil the
    predictions for all.

    Attributes:
        slow: the replicas that are slow, with their ratio.
    """

    def __init__(self) -> None:
        self.slow: dict[str, float] = {}
        self._ratios: dict[str, deque[float]] = {}

    def keep(self, names: Collection[str]) -> None:
        """Forget all others: they have gone."""
        for name in [name for name in self._ratios if name not in names]:
            del self._ratios[name]
            self.slow.pop(name, None)

    def took(self, name: str, ratio: float) -> bool:
        """A batch of a replica took so many times what was predicted; whether the latency model may learn from it."""
        ratios = self._ratios.get(name)
        if ratios is None:
            ratios = self._ratios[name] = deque(maxlen=WINDOW_BATCHES)
        ratios.append(ratio)
        if name in self.slow:
            self._judge_slow(name)
            return False
        if self.slow:
            for slow in [slow for slow in self.slow if self._is_like_its_peers(slow)]:
                self._recovers(slow)
        return ratio < SLOW_RATIO or not self._is_slow(name, ratios, ratio)

    def probed(self, name: str, ratio: float) -> None:
        """A probe of a slow replica took so many times what was predicted."""
        if name in self.slow:
            self._ratios[name].append(ratio)
            self._judge_slow(name)

    def _is_slow(self, name: str, ratios: deque[float], ratio: float) -> bool:
        """Judge a replica after a slow batch; whether at least that batch is slow beside its peers."""
        slow_ratio = SLOW_RATIO * self._peers_ratio(name)
        own_ratio = median_low(ratios)
        if len(ratios) >= MIN_BATCHES and own_ratio >= slow_ratio:
            self.slow[name] = own_ratio
            ratios.clear()
        return ratio >= slow_ratio

    def _is_like_its_peers(self, slow: str) -> bool:
        """Whether the others have become slow as well: then it was the first, and all go on together."""
        peers_ratio = self._peers_ratio(slow)
        return peers_ratio >= RECOVERED_RATIO and self.slow[slow] < SLOW_RATIO * peers_ratio

    def _peers_ratio(self, name: str) -> float:
        """What the others take, at least 1; infinity: there are none to compare with."""
        peers = [
            self.slow.get(other) or median_low(its)
            for other, its in self._ratios.items()
            if other != name and (its or other in self.slow)
        ]
        return max(1.0, median_low(peers)) if peers else math.inf

    def _judge_slow(self, name: str) -> None:
        """Let a slow one go on, or come back."""
        latest = list(self._ratios[name])[-PROBES_TO_RECOVER:]
        self.slow[name] = median_low(latest)
        if len(latest) == PROBES_TO_RECOVER and max(latest) < RECOVERED_RATIO:
            self._recovers(name)

    def _recovers(self, name: str) -> None:
        del self.slow[name]
        self._ratios[name].clear()
