"""Why frames were degraded, deferred, or did not finish: sentences of the log, counted without their numbers. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A service has some dozen sentences; clients' texts in them must not fill the memory.
MAX_REASONS = 200
OTHERS = "other reasons"

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(slots=True)
class Reason:
    """One sentence.

    Attributes:
        what: the verdict or outcome that it explains.
        example: as it stood there first.
        num_frames: how often.
        camera: whose frame was the first.
    """

    what: str
    example: str
    num_frames: int
    camera: str


class Reasons:
    """Counts sentences that differ in numbers only as one."""

    def __init__(self) -> None:
        """Start with none."""
        self._reasons: dict[tuple[str, str], Reason] = {}
        self._known: dict[tuple[str, str], Reason] = {}

    def add(self, what: str, sentence: str, camera: str) -> None:
        """Count a frame."""
        said = what, sentence
        reason = self._known.get(said)
        if reason is None:
            key = what, _NUMBER.sub("#", sentence)
            if key not in self._reasons and len(self._reasons) >= MAX_REASONS:
                key, sentence = (what, OTHERS), OTHERS
            reason = self._reasons.setdefault(key, Reason(what, sentence, 0, camera))
            if len(self._known) < MAX_REASONS:
                self._known[said] = reason
        reason.num_frames += 1

    def most_frequent(self) -> tuple[Reason, ...]:
        """The most frequent first."""
        return tuple(sorted(self._reasons.values(), key=lambda reason: -reason.num_frames))
