"""What people see while a stream runs: a live table on a terminal, plain lines elsewhere; on standard error."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from serve_app.camera_summary import CameraSummary
from serve_app.streams.camera_state import CameraPhase, CameraState
from serve_app.streams.stream import Stream
from serve_app.streams.stream_values import Gap, GapCause, StreamItem

REFRESH_S = 0.5
# Logs of a service manager: one line a camera and ten seconds is 9,000 a day.
PLAIN_EVERY_S = 10.0
# Rates are means over so many refreshes.
RATE_SAMPLES = 10
PHASE_STYLES = {
    CameraPhase.CONNECTING: "yellow",
    CameraPhase.PLAYING: "green",
    CameraPhase.RECONNECTING: "bold yellow",
    CameraPhase.ENDED: "dim",
    CameraPhase.FAILED: "bold red",
}
# What people are told at once where there is no table.
TOLD = (GapCause.RECONNECTING, GapCause.LOST, GapCause.SERVICE_AWAY)
STALLED = "stalled"


class StreamDisplay:
    """Shows a stream while it runs; `told` hears of every item. Reads the stream in its own event loop only."""

    def __init__(self, stream: Stream, console: Console) -> None:
        """Take what to show and where."""
        self._stream = stream
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._samples: deque[tuple[float, dict[str, int]]] = deque(maxlen=RATE_SAMPLES)
        self._stalls = {spec.name: spec.stall_s for spec in stream.specs if spec.is_live}
        self._last_told: dict[str, str] = {}
        self._showing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> StreamDisplay:  # noqa: PYI034 (Python 3.10 has no `Self`)
        """Begin to show."""
        if self._live is not None:
            self._live.start()
        self._showing = asyncio.create_task(self._show())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the table away."""
        if self._showing is not None:
            self._showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._showing
        if self._live is not None:
            self._live.stop()

    def told(self, item: StreamItem) -> None:
        """Say what people should know at once; the same trouble of a camera once, until it works again."""
        if not isinstance(item, Gap):
            self._last_told.pop(item.camera, None)
        elif item.cause in TOLD and self._last_told.get(item.camera) != item.cause.value:
            self._last_told[item.camera] = item.cause.value
            if self._live is None:
                self._print(f"{item.camera}: {item.cause.value}: {item.reason}")

    async def _show(self) -> None:
        next_plain_s = time.monotonic() + PLAIN_EVERY_S
        while True:
            self._samples.append((time.monotonic(), self._stream.num_read))
            if self._live is not None:
                self._live.update(self.picture(), refresh=True)
            elif time.monotonic() >= next_plain_s:
                next_plain_s += PLAIN_EVERY_S
                for line in self.lines():
                    self._print(line)
            await asyncio.sleep(REFRESH_S)

    def picture(self) -> Group:
        """The table with the problems below."""
        table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
        table.add_column("camera", style="cyan", overflow="fold", min_width=8)
        table.add_column("state", no_wrap=True)
        for heading in ("size", "read/s", "frames", "missing", "p50 ms", "p95 ms", "found"):
            table.add_column(heading, justify="right", no_wrap=True)
        problems = []
        for summary in self._stream.summaries:
            state = self._stream.states[summary.camera]
            table.add_row(
                escape(summary.camera), self._phase(summary.camera, state), _size(summary), self._rate(summary.camera),
                str(summary.num_frames), str(summary.num_missing), _ms(summary.latency_s(0.5)),
                _ms(summary.latency_s(0.95)), str(summary.num_detections),
            )  # fmt: skip
            problems += [
                f"{summary.camera}: {text}"
                for text in (state.problem, self._stream.recording_problems.get(summary.camera, ""))
                if text
            ]
        if not self._stream.is_service_up:
            problems.insert(0, "the service is away; it is looked for")
        return Group(table, *(Text(problem, style="yellow", overflow="ellipsis", no_wrap=True) for problem in problems))

    def lines(self) -> list[str]:
        """The same in plain text, a line a camera."""
        lines = [] if self._stream.is_service_up else ["the service is away; it is looked for"]
        for summary in self._stream.summaries:
            state = self._stream.states[summary.camera]
            problem = state.problem or self._stream.recording_problems.get(summary.camera, "")
            lines.append(
                f"{summary.camera}: {self._phase_name(summary.camera, state)}, {self._rate(summary.camera)} frames/s, "
                f"{summary.num_frames} frames, {summary.num_missing} missing, p50 {_ms(summary.latency_s(0.5))} ms, "
                f"p95 {_ms(summary.latency_s(0.95))} ms, {summary.num_detections} found"
                + (f"; {problem}" if problem else "")
            )
        return lines

    def _phase_name(self, camera: str, state: CameraState) -> str:
        stall_s = self._stalls.get(camera)
        is_late = (
            stall_s is not None and state.last_frame_s is not None and time.monotonic() - state.last_frame_s > stall_s
        )
        return STALLED if state.phase is CameraPhase.PLAYING and is_late else state.phase.value

    def _phase(self, camera: str, state: CameraState) -> str:
        name = self._phase_name(camera, state)
        style = "bold red" if name == STALLED else PHASE_STYLES[state.phase]
        return f"[{style}]{name}[/]"

    def _rate(self, camera: str) -> str:
        if len(self._samples) < 2:
            return "–"
        (began_s, first), (now_s, last) = self._samples[0], self._samples[-1]
        return f"{(last[camera] - first[camera]) / (now_s - began_s):.1f}" if now_s > began_s else "–"

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _size(summary: CameraSummary) -> str:
    if not summary.sizes:
        return "–"
    (height, width), *others = reversed(summary.sizes)
    return f"{height}×{width}" + (f" +{len(others)}" if others else "")


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.0f}"
