"""The frames that are with a router, and how each one ended: answered, recorded and counted once.

Knows no scheduler and no replica: whoever ends a frame says how.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from serve_app.errors import FramelaneError
from serve_app.frame_ends import AnsweredPiece, refused, unserved
from serve_app.frame_log import FrameLog
from serve_app.frames import Frame, FrameMeta
from serve_app.live.router_side import RouterSide
from serve_app.metrics import RouterMetrics
from serve_app.recent_results import RecentResults
from serve_app.results import FrameResult
from serve_app.route import Route
from serve_app.router_log import RouterLog
from serve_app.verdicts import Outcome, Verdict


@dataclass(slots=True, eq=False)
class InFlight:
    """A frame on its way: what was decided, where its pixels are, which pieces are back, and who waits for it.

    `joined` are callers who sent it once more, since the call that brought it broke.
    """

    frame: Frame
    verdict: Verdict
    ref: ray.ObjectRef[Any]
    answer: asyncio.Future[FrameResult]
    pieces: dict[int, AnsweredPiece] = field(default_factory=dict)
    joined: tuple[asyncio.Future[FrameResult], ...] = ()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody still waits for it."""
        return not all(answer.done() for answer in (self.answer, *self.joined))

    def answer_all(self, result: FrameResult) -> None:
        """Tell everybody who still waits for it."""
        for answer in (self.answer, *self.joined):
            if not answer.done():
                answer.set_result(result)


class FrameBook:
    """Where a router keeps its frames.

    Attributes:
        outcomes: frames so far, by outcome.
        verdicts: frames so far that have ended, by what admission decided; invalid ones have no verdict.
    """

    def __init__(
        self,
        router: str,
        revision: int,
        log: RouterLog,
        metrics: RouterMetrics,
        frame_log: FrameLog | None,
        live: RouterSide[ray.ObjectRef[Any]],
    ) -> None:
        """Take who answers, and who is told of every end; `frame_log` None: no records are written."""
        self._router = router
        self._revision = revision
        self._log = log
        self._metrics = metrics
        self._frame_log = frame_log
        self._live = live
        self._in_flight: dict[str, InFlight] = {}
        self._recent = RecentResults()
        self.outcomes: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Frames that have not ended."""
        return len(self._in_flight)

    @property
    def frame_ids(self) -> Collection[str]:
        """Which they are."""
        return self._in_flight.keys()

    @property
    def num_records_lost(self) -> int:
        """Frames whose record could not be written."""
        return self._frame_log.num_lost if self._frame_log else 0

    def add(self, entry: InFlight) -> None:
        """A frame has been let in."""
        self._in_flight[entry.frame.frame_id] = entry

    def find(self, frame_id: str) -> InFlight | None:
        """A frame that has not ended; None if there is none of this id."""
        return self._in_flight.get(frame_id)

    def entry(self, frame_id: str) -> InFlight:
        """A frame that has not ended; raises `KeyError` if there is none of this id."""
        return self._in_flight[frame_id]

    def take(self, frame_id: str) -> InFlight:
        """The same, and let it go: it ends elsewhere."""
        return self._in_flight.pop(frame_id)

    def is_here(self, frame: Frame) -> bool:
        """Whether this very frame has not ended yet."""
        entry = self._in_flight.get(frame.frame_id)
        return entry is not None and entry.frame is frame

    def known(self, frame_id: str, now_s: float) -> InFlight | FrameResult | None:
        """A frame that is here, or the result of one that was answered of late."""
        return self._in_flight.get(frame_id) or self._recent.find(frame_id, now_s)

    def joins(self, frame_id: str, answer: asyncio.Future[FrameResult], now_s: float) -> bool:
        """Whether a frame that is sent once more is here or has been answered: then this is its answer too."""
        known = self.known(frame_id, now_s)
        if isinstance(known, InFlight):
            known.joined += (answer,)
        elif known is not None:
            answer.set_result(known)
        return known is not None

    def refuse(
        self,
        meta: FrameMeta,
        verdict: Verdict | None,
        error: FramelaneError,
        now_s: float,
        slo_s: float | None = None,
    ) -> FrameResult:
        """The result of a frame that was not let in, recorded."""
        return self._record(refused(meta, verdict, error), now_s, slo_s)

    def end(self, entry: InFlight, result: FrameResult) -> None:
        """Record how a frame ended, and answer its callers if they still wait."""
        frame = entry.frame
        del self._in_flight[frame.frame_id]
        result = self._record(result, frame.arrived_s, frame.deadline_s - frame.arrived_s)
        now_s = time.monotonic()
        self._recent.add(result, now_s)
        self._live.keep(result, entry.ref, frame.num_bytes, now_s)
        entry.answer_all(result)

    def end_unserved(
        self, frame: Frame, outcome: Outcome, error: FramelaneError, now_s: float, route: Route | None = None
    ) -> None:
        """The same for a frame that no replica answered; `route`: how it would have been served, where known."""
        entry = self._in_flight[frame.frame_id]
        self.end(entry, unserved(frame, entry.verdict, outcome, error, now_s, route))

    def _record(self, result: FrameResult, at_s: float, slo_s: float | None) -> FrameResult:
        result = replace(result, router=self._router, revision=self._revision)
        self.outcomes[result.outcome.value] += 1
        if result.verdict is not None:
            self.verdicts[result.verdict.kind.value] += 1
        self._log.frame_ended(result)
        self._metrics.frame_ended(result)
        self._live.ended(result, time.monotonic())
        if self._frame_log is not None:
            self._frame_log.write(result, at_s, slo_s)
        return result
