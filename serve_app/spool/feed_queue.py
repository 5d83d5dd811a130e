"""Which frame of a spool is fed next, and what becomes of it afterwards: no clock, no store, no Ray.

Algorithm: the oldest frame that is due and whose camera does not pause. A frame that failed for its own sake waits
alone, longer each time, and has `max_tries`; one for which there was no room lets its camera pause for as long as the
router asked; when the service is away everything pauses. Neither counts as a try.
Order: oldest first a camera, as far as frames do not fail. Liveness: what is expired is told whatever pauses.
Bound: `max_held` frames, of which `max_in_flight` are fed at once.
Fairness: cameras that pause hold up the others only when `max_held` frames are all theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from serve_app.errors import FramelaneError, FrameLostError, FrameRejectedError
from serve_app.results import FrameResult
from serve_app.spool.spool import PendingFrame
from serve_app.verdicts import Outcome

# Half a second is a breath for whatever restarts, a quarter of a minute is soon enough for what takes longer.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
# A frame that failed three times over seconds, maybe on three replicas, will do so again.
MAX_TRIES = 3
# So many keep the batches of a few replicas full. They are decoded: 400 MB at 4K.
MAX_IN_FLIGHT = 16
# Without pixels, so a matter of kilobytes.
MAX_HELD = 1000


class Next(Enum):
    """What follows from the end of a try."""

    ANSWER = "answer"
    """The result is the frame's."""
    AGAIN = "again"
    """It was not the frame's fault."""
    COUNTED = "counted"
    """It was, and there is another try: to be noted in the store."""


@dataclass(slots=True, eq=False)
class _Held:
    frame: PendingFrame
    num_tries: int
    due_s: float
    is_fed: bool = False


class FeedQueue:
    """The pending frames that were taken from a spool. Seconds are the spool's."""

    def __init__(
        self, *, max_in_flight: int = MAX_IN_FLIGHT, max_held: int = MAX_HELD, max_tries: int = MAX_TRIES
    ) -> None:
        """Start empty."""
        self._max_in_flight = max_in_flight
        self._max_held = max_held
        self._max_tries = max_tries
        self._held: dict[str, _Held] = {}  # oldest first
        self._num_fed = 0
        self._camera_until_s: dict[str, float] = {}
        self._all_until_s = -math.inf
        self._num_away = 0

    @property
    def room(self) -> int:
        """How many frames may be added."""
        return self._max_held - len(self._held)

    @property
    def num_in_flight(self) -> int:
        """Frames that are being fed."""
        return self._num_fed

    def add(self, frame: PendingFrame, now_s: float) -> None:
        """Hold a frame; one that is held already stays as it is."""
        self._held.setdefault(frame.frame_id, _Held(frame, frame.num_tries, now_s))

    def expired(self, now_s: float) -> list[PendingFrame]:
        """Let go of the frames that are too old and are not being fed."""
        old = [held.frame for held in self._held.values() if not held.is_fed and _left_s(held.frame, now_s) <= 0]
        for frame in old:
            del self._held[frame.frame_id]
        return old

    def start(self, now_s: float) -> PendingFrame | None:
        """The next frame to feed now; then one of `ended`, `away` and `dropped`."""
        if self._num_fed >= self._max_in_flight or now_s < self._all_until_s:
            return None
        for held in self._held.values():
            if not held.is_fed and self._due_s(held) <= now_s:
                held.is_fed = True
                self._num_fed += 1
                return held.frame
        return None

    def ended(self, frame_id: str, result: FrameResult, now_s: float) -> Next:
        """The router answered."""
        self._num_away = 0
        held = self._held[frame_id]
        verdict = self._judge(held, result, now_s)
        if verdict is Next.ANSWER:
            self.dropped(frame_id)
            return verdict
        self._rest(held)
        if verdict is Next.COUNTED:
            held.num_tries += 1
            held.due_s = now_s + pause_s(held.num_tries)
            return verdict
        pause_until_s = now_s + min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, _retry_after_s(result.error)))
        self._camera_until_s = {camera: until_s for camera, until_s in self._camera_until_s.items() if until_s > now_s}
        self._camera_until_s[held.frame.camera] = pause_until_s
        return verdict

    def away(self, frame_id: str, now_s: float) -> None:
        """Nobody answered for this frame: all wait, longer each time in a row."""
        self._rest(self._held[frame_id])
        if now_s >= self._all_until_s:  # of those that were under way together only the first counts
            self._num_away += 1
            self._all_until_s = now_s + pause_s(self._num_away)

    def dropped(self, frame_id: str) -> None:
        """A frame that is being fed leaves: it has its result, or is not pending any more."""
        self._rest(self._held[frame_id])
        del self._held[frame_id]

    def wake_s(self, now_s: float) -> float | None:
        """When there is something to do next, if nothing happens until then; None: never."""
        times_s = [held.frame.kept_s + held.frame.life_s for held in self._held.values() if not held.is_fed]
        if self._num_fed < self._max_in_flight:
            times_s += [self._due_s(held) for held in self._held.values() if not held.is_fed]
        return max(now_s, min(times_s)) if times_s else None

    def _due_s(self, held: _Held) -> float:
        return max(held.due_s, self._all_until_s, self._camera_until_s.get(held.frame.camera, -math.inf))

    def _judge(self, held: _Held, result: FrameResult, now_s: float) -> Next:
        if result.outcome in (Outcome.FINISHED, Outcome.SUPERSEDED):
            return Next.ANSWER
        if result.outcome is Outcome.CANCELLED or isinstance(result.error, FrameLostError):
            return Next.AGAIN
        if result.outcome is Outcome.EXPIRED:
            # It is fed with less time than it has, so that those behind it get their turn.
            return Next.ANSWER if _left_s(held.frame, now_s) <= 0 else Next.AGAIN
        if isinstance(result.error, FrameRejectedError) and result.error.retry_after_s is not None:
            return Next.AGAIN
        return Next.ANSWER if held.num_tries + 1 >= self._max_tries else Next.COUNTED

    def _rest(self, held: _Held) -> None:
        held.is_fed = False
        self._num_fed -= 1


def pause_s(num_in_a_row: int) -> float:
    """How long to wait after so many failures in a row."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(num_in_a_row - 1, 10))


def _left_s(frame: PendingFrame, now_s: float) -> float:
    return frame.kept_s + frame.life_s - now_s


def _retry_after_s(error: FramelaneError | None) -> float:
    return (error.retry_after_s if error is not None else None) or 0.0
