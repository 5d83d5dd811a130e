"""Which replicas a router goes on using although Serve is stopping them: those that a rolling update has replaced.

Serve stops an old replica as soon as its new one is warm, and knows nothing of the router that still needs it: the new
router takes over when the replicas of all its pools are warm, which may be minutes later.
"""

from __future__ import annotations

import math
from collections.abc import Collection

# The new router takes over within two seconds of its last replica. What is let go later only keeps a machine's place
# from the next new replica, where there is no room for all of them beside the old ones.
MAX_STEP_S = 10.0
# The last ones of a pool that nothing new replaces: the pool is gone from the plan, or is stopped before it starts
# again. Warming a CPU engine takes less.
MAX_UNREPLACED_S = 30.0


class Lingering:
    """Decides for one pool; reads no clock.

    Algorithm: replicas that Serve announces no more stay in use
    - where others of the same revision are announced: not at all, unless newer ones are: then for `MAX_STEP_S`;
    - where none is: for `MAX_UNREPLACED_S`, or until `leave` where newer ones are announced.
    Bound: Serve ends them when the deployment's graceful shutdown has lasted too long.
    """

    def __init__(self, *, keeps_last: bool) -> None:
        """Say whether the last ones of the pool may stay: not where they must make room for the new ones."""
        self._keeps_last = keeps_last
        self._missed_s: dict[str, float] = {}
        self._may_stay = True

    def leave(self) -> None:
        """Nothing here needs a replica that Serve is stopping any more."""
        self._may_stay = False

    def staying(
        self, known: Collection[str], announced: Collection[str], now_s: float, *, is_update: bool
    ) -> tuple[str, ...]:
        """The replicas to keep, of those that were known and are announced no more.

        Args:
            known: names of the replicas in use until now.
            announced: names of those that Serve announces, of this revision.
            now_s: when.
            is_update: whether it announces replicas of a newer revision too.
        """
        gone = [name for name in known if name not in announced]
        self._missed_s = {name: self._missed_s.get(name, now_s) for name in gone}
        if not self._may_stay:
            return ()
        most_s = MAX_STEP_S if is_update else 0.0
        if not announced and self._keeps_last:
            most_s = math.inf if is_update else MAX_UNREPLACED_S
        return tuple(name for name in gone if now_s - self._missed_s[name] < most_s)
