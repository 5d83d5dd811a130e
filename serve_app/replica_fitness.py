"""Which of a pool's counted replicas get batches: not those that have fallen silent, nor slow ones while others can."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from serve_app.replica_credits import MAX_CREDITS_PER_REPLICA
from serve_app.replica_pace import ReplicaPace


class ReplicaFitness:
    """The replicas of one pool that the router counts, and what is held against them.

    A suspect, whose batch is overdue, gets nothing until it answers. A slow one (`ReplicaPace`) gets nothing as long as
    there is another one that is neither.

    Attributes:
        pace: how fast they are.
    """

    def __init__(self) -> None:
        self.pace = ReplicaPace()
        self._counted: dict[str, int] = {}
        # Since when, and the number of the spell: two spells of one replica are two attempts of its frames.
        self._suspects: dict[str, tuple[float, int]] = {}
        self._num_spells = 0

    def counted(self, replicas: Collection[str] | Mapping[str, int]) -> None:
        """These have reported; a mapping: how many noncritical batches each may hold."""
        if isinstance(replicas, Mapping):
            self._counted = dict(replicas)
        else:
            self._counted = dict.fromkeys(replicas, MAX_CREDITS_PER_REPLICA)
        self._suspects = {name: spell for name, spell in self._suspects.items() if name in self._counted}
        self.pace.keep(self._counted)

    def doubt(self, name: str, now_s: float) -> str:
        """A batch of a replica is overdue; returns a name for this spell of silence."""
        if name in self._suspects:
            return f"{name} {self._suspects[name][1]}"
        self._num_spells += 1
        if name in self._counted:
            self._suspects[name] = now_s, self._num_spells
        return f"{name} {self._num_spells}"

    def trust(self, name: str) -> bool:
        """A suspect has given a sign of life; whether it was one."""
        return self._suspects.pop(name, None) is not None

    def fit(self) -> dict[str, int]:
        """Who gets batches, and how many noncritical ones each."""
        steady = {name: limit for name, limit in self._counted.items() if name not in self._suspects}
        quick = {name: limit for name, limit in steady.items() if name not in self.pace.slow}
        return quick or steady

    def unfit(self, now_s: float) -> dict[str, str]:
        """What is held against replicas, by name, in words."""
        held = {
            name: f"slow: {ratio:.1f} times the seconds that batches take elsewhere"
            for name, ratio in self.pace.slow.items()
        }
        for name, (since_s, _) in self._suspects.items():
            held[name] = f"silent: a batch is overdue, for {now_s - since_s:.1f} s"
        return held
