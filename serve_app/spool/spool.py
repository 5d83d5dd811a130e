"""What a spool promises, whatever it lies in, and the values that go in and out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from serve_app.errors import FramelaneError
from serve_app.spool.spool_clock import ClockMark
from serve_app.tickets import ResultsPage, TicketAnswer
from serve_app.verdicts import Outcome

# What is left of a result when its time is over is a line, and is remembered for so many times as long.
GONE_PER_TTL = 4


@dataclass(frozen=True, slots=True)
class NewFrame:
    """A frame to be kept.

    Attributes:
        frame_id: its own for ever; a second frame of this id is the same frame, sent again.
        camera: who took it.
        life_s: the age at which it is answered as expired.
        record: its sealed record.
    """

    frame_id: str
    camera: str
    life_s: float
    record: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PendingFrame:
    """A frame that has no result yet, without its pixels.

    Attributes:
        frame_id, camera, life_s: as in `NewFrame`.
        kept_s: when it was kept, in the spool's time.
        num_tries: how often it failed for its own sake.
    """

    frame_id: str
    camera: str
    kept_s: float
    life_s: float
    num_tries: int = 0


@dataclass(frozen=True, slots=True)
class FrameEnd:
    """How a frame ended.

    Attributes:
        frame_id: which.
        outcome: how.
        result: its sealed result.
        aside_reason: why its record is set aside for people to look at; None: the record goes.
    """

    frame_id: str
    outcome: Outcome
    result: bytes = field(repr=False)
    aside_reason: str | None = None


@dataclass(frozen=True, slots=True)
class AsideFrame:
    """A record that was set aside: which, why, when in the spool's time, and how large."""

    frame_id: str
    camera: str
    reason: str
    aside_s: float
    num_bytes: int


@dataclass(frozen=True, slots=True)
class SpoolUsage:
    """What lies in a spool.

    Attributes:
        num_pending: frames without a result.
        num_done: results that are kept.
        num_aside: records that were set aside.
        num_bytes: of all of these.
        oldest_kept_s: when the oldest pending frame was kept; None: none is pending.
        warnings: what people should know: files that were damaged, a store that keeps nothing on disk.
    """

    num_pending: int
    num_done: int
    num_aside: int
    num_bytes: int
    oldest_kept_s: float | None
    warnings: tuple[str, ...] = ()


class SpoolStore(Protocol):
    """Frames until they have a result: the half that feeding needs.

    Methods block and may be called from several threads. Seconds are the spool's own (`SpoolClock`). A store that
    cannot be reached raises `ServiceUnavailableError`; what it had taken is there when it can be reached again.
    """

    def keep(self, frames: Sequence[NewFrame], now_s: float) -> list[FramelaneError | None]:
        """Keep frames; when this returns they survive a power cut.

        Returns:
            For each frame None: it is kept, now or since an earlier call with its id; or a `SpoolFullError`.
        """
        ...

    def take(self, max_frames: int) -> list[PendingFrame]:
        """The next pending frames, oldest first, none of which anybody else feeds; each once in a store's life."""
        ...

    def load(self, frame_id: str) -> bytes | None:
        """The sealed record of a pending frame; None if it is not pending any more."""
        ...

    def tried(self, frame_id: str) -> None:
        """Count a failure of a frame."""
        ...

    def finish(self, ends: Sequence[FrameEnd], now_s: float) -> list[bool]:
        """Put results in the place of records, each pair at once; False for a frame that had a result before."""
        ...

    def tidy(self, mark: ClockMark) -> None:
        """Forget results that have had their time, give room back, note the time; to be called every few seconds."""
        ...


class SpoolAnswers(Protocol):
    """The other half: what callers and people ask."""

    def answer(self, frame_id: str, now_s: float) -> TicketAnswer:
        """What became of a frame."""
        ...

    def results_after(self, camera: str, cursor: int, max_results: int, now_s: float) -> ResultsPage:
        """The next results of a camera, as `TicketBook.results_after`."""
        ...

    def usage(self) -> SpoolUsage:
        """What lies here."""
        ...

    def aside(self) -> list[AsideFrame]:
        """The records that were set aside, oldest first."""
        ...

    def drop_aside(self, frame_id: str) -> bytes | None:
        """Remove a record that was set aside and return its bytes, damaged as they are; None if there is none."""
        ...

    def close(self) -> None:
        """Let go of files and connections; nothing is asked afterwards."""
        ...


class Spool(SpoolStore, SpoolAnswers, Protocol):
    """Both halves."""

    last_mark: ClockMark | None
    """The time that the process before noted."""
