"""The next try of frames whose router died: the same ids, and what is left of their seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from serve_app.frames import FrameMeta, Priority

# Routers that die one after the other are an outage, which the caller should hear of.
MAX_TRIES = 4
# A frame without time left is tried once more all the same: so it ends as expired, which a router counts and records.
LEAST_SLO_S = 0.001


class Tries:
    """The frames of one call on their way to a router: for the first time, or once more.

    The second try is always made, later ones while a frame has time left, `MAX_TRIES` in all.
    """

    def __init__(
        self, metas: Sequence[FrameMeta], slo_s: Mapping[Priority, float], clock_s: Callable[[], float]
    ) -> None:
        """Take the frames as they are first sent, the plan's seconds for those that bring none, and a clock."""
        self._metas = list(metas)
        self._slo_s = slo_s
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._num_tries = 0

    def next(self) -> list[FrameMeta]:
        """What to send now."""
        metas = self._metas if self._num_tries == 0 else list(map(self._later, self._metas))
        self._num_tries += 1
        return metas

    def is_another_worth_it(self) -> bool:
        """Whether to send them once more after the last try has failed."""
        if self._num_tries < 2:
            return True
        has_time = any(self._later(meta).slo_s != LEAST_SLO_S for meta in self._metas)
        return self._num_tries < MAX_TRIES and has_time

    def _later(self, meta: FrameMeta) -> FrameMeta:
        given_s: object = meta.slo_s
        if given_s is None:
            given_s = next((seconds for priority, seconds in self._slo_s.items() if priority.value == meta.priority), 0)
        left_s = meta.slo_s
        if isinstance(given_s, (int, float)) and given_s > 0:  # the router refuses anything else, at every try
            left_s = max(LEAST_SLO_S, given_s - (self._clock_s() - self._began_s))
        return replace(meta, attempt=meta.attempt + self._num_tries, slo_s=left_s)
