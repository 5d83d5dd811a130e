"""One camera's thread: opens its source, keeps its clock, connects anew, and leaves frames in the mailbox."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Iterator
from typing import cast

from serve_app.errors import FramelaneError
from serve_app.streams.backoff import Backoff
from serve_app.streams.camera_spec import CameraSpec
from serve_app.streams.camera_state import CameraPhase, CameraState
from serve_app.streams.mailbox import Mailbox
from serve_app.streams.pace import PlayClock, RateCap
from serve_app.streams.source import Source, SourceError, SourceFrame
from serve_app.streams.source_address import without_secret
from serve_app.streams.stream_clock import StreamClock
from serve_app.streams.stream_values import GapCause

logger = logging.getLogger(__name__)


class Reader:
    """Reads one camera until its end, or until it is stopped.

    A thread of its own, since a camera that hangs must hold nobody up. A file that cannot be read ends, with a gap that
    says why; a live camera is connected anew, ever more rarely, until it is back.
    """

    def __init__(
        self,
        spec: CameraSpec,
        open_source: Callable[[CameraSpec], Source],
        mailbox: Mailbox,
        *,
        clock: StreamClock,
        backoff: Backoff,
    ) -> None:
        """Take what to read, how it is opened, where frames go, and the clock and chances of its waits."""
        self.state = CameraState()
        self._spec = spec
        self._open_source = open_source
        self._mailbox = mailbox
        self._clock = clock
        self._backoff = backoff
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.run, name=f"camera {spec.name}", daemon=True)
        self._began_s: float | None = None
        # Where the present pass through a file began, on the camera's own clock.
        self._pass_began_s = 0.0
        self._last_at_s = 0.0
        self._num_taken = self._num_seen = 0
        self._play: PlayClock | None = None

    def start(self) -> None:
        """Start its thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; returns at once. A read that hangs ends by its own time-out."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def run(self) -> None:
        """Read until the end. Raises nothing: what goes wrong is a gap."""
        try:
            while self._play_once():
                pass
        except Exception as err:
            # A bug, or a decoder's: this camera ends, with its reason; the others must go on.
            logger.exception("camera %s", self._spec.name)
            self._fail(f"{type(err).__name__}: {without_secret(str(err))[:200]}")
        finally:
            if self.state.phase is not CameraPhase.FAILED:
                self.state.phase = CameraPhase.ENDED
            self._mailbox.end()

    def _play_once(self) -> bool:
        """Open the source and read it to its end; whether to do so again."""
        opened_s = self._clock.now_s()
        num_before = self._mailbox.num_read
        problem: FramelaneError | None = None
        try:
            source = self._open_source(self._spec)
            self.state.num_connects += 1
            with _closing(source.frames()) as frames:
                self._read(frames)
        except FramelaneError as err:
            problem = err
        if self._stop.is_set() or self._is_full():
            return False
        if not self._spec.is_live:
            return self._again(problem, num_before)
        return self._reconnect(problem, self._clock.now_s() - opened_s)

    def _read(self, frames: Iterator[SourceFrame | SourceError]) -> None:
        """Take the frames of one opening; an error in between costs its frame only."""
        cap = RateCap(self._spec.most_fps)
        for frame in frames:
            index, self._num_seen = self._num_seen, self._num_seen + 1
            if self._stop.is_set():
                return
            if isinstance(frame, SourceError):
                self._lose(frame)
                continue
            at_s = self._own_time(frame.at_s)
            if self._waits_in_vain(index, at_s):
                return
            if not cap.passes(at_s):
                self.state.num_passed_over += 1
                continue
            try:
                image_hwc = frame.decode()
            except SourceError as err:
                self._lose(err)
                continue
            self.state.last_frame_s = self._clock.now_s()
            self.state.phase, self.state.problem = CameraPhase.PLAYING, ""
            if not self._mailbox.put_frame(image_hwc, at_s):
                return
            self._num_taken += 1
            if self._is_full():
                return

    def _waits_in_vain(self, index: int, at_s: float) -> bool:
        """Wait until a file's frame is due; whether it was stopped meanwhile."""
        if not self._spec.has_clock or self._spec.is_live:
            return False
        now_s = self._clock.now_s()
        if self._play is None:
            self._play = PlayClock(now_s, self._spec.fps)
        wait_s = self._play.due_s(index, at_s) - now_s
        return wait_s > 0 and self._clock.wait(self._stop, wait_s)

    def _own_time(self, at_s: float) -> float:
        """Seconds since the camera was first opened, or in the file, all passes through it one behind the other."""
        if self._spec.is_live:
            if self._began_s is None:
                self._began_s = at_s
            return at_s - self._began_s
        self._last_at_s = self._pass_began_s + at_s
        return self._last_at_s

    def _is_full(self) -> bool:
        return self._spec.limit is not None and self._num_taken >= self._spec.limit

    def _lose(self, err: SourceError) -> None:
        self.state.problem = str(err)
        self._mailbox.put_gap(GapCause.LOST, str(err), 1)

    def _again(self, problem: FramelaneError | None, num_before: int) -> bool:
        """At the end of a file: whether it begins anew."""
        if problem is not None:
            self._fail(str(problem))
            return False
        if not self._spec.loop or self._mailbox.num_read == num_before:
            return False
        # The last frame stays for a moment too, as long as the mean one.
        passed_s = self._last_at_s - self._pass_began_s
        self._pass_began_s = self._last_at_s + passed_s / max(1, self._mailbox.num_read - num_before - 1)
        return True

    def _fail(self, reason: str) -> None:
        self.state.phase, self.state.problem = CameraPhase.FAILED, reason
        self._mailbox.put_gap(GapCause.LOST, reason, 0)

    def _reconnect(self, problem: FramelaneError | None, lasted_s: float) -> bool:
        """A live camera has gone: wait, and say so; whether to open it again."""
        reason = str(problem) if problem is not None else f"source {self._spec.name}: it ended"
        if not self._spec.reconnect:
            self._fail(reason)
            return False
        self._backoff.lasted(lasted_s)
        wait_s = self._backoff.next_s()
        self.state.phase, self.state.problem = CameraPhase.RECONNECTING, reason
        self._mailbox.put_gap(GapCause.RECONNECTING, reason, 0)
        return not self._clock.wait(self._stop, wait_s)


@contextlib.contextmanager
def _closing(
    frames: Iterator[SourceFrame | SourceError],
) -> Generator[Iterator[SourceFrame | SourceError], None, None]:
    """Close a source's generator at the end, and with it the source."""
    try:
        yield frames
    finally:
        close = getattr(frames, "close", None)
        if close is not None:
            cast("Generator[SourceFrame | SourceError, None, None]", frames).close()
