"""What people and scripts see of a stream: a table, plain lines, JSON lines."""

from __future__ import annotations

import asyncio
import io
import json

from rich.console import Console
from stream_world import FakeClient, JumpingClock, ListSource, Sources, a_camera, a_file

from serve_app.cli.stream_display import StreamDisplay
from serve_app.errors import FrameRejectedError
from serve_app.streams.source import SourceError
from serve_app.streams.stream import Stream
from serve_app.streams.stream_records import item_record
from serve_app.verdicts import Outcome

BROKEN = SourceError("source cam: broke off")


def shown(*, is_terminal):
    """A file and a camera that ends, shown at the end: what was printed, the picture, the lines."""

    async def scene():
        sources = Sources(file=[ListSource(3)], cam=[ListSource(1, BROKEN)])
        stream = Stream(
            [a_file("file"), a_camera("cam", reconnect=False)], client=FakeClient(), open_source=sources,
            clock=JumpingClock(),
        )  # fmt: skip
        text = io.StringIO()
        console = Console(file=text, force_terminal=is_terminal, width=100)
        async with stream, StreamDisplay(stream, console) as display:
            async for item in stream:
                display.told(item)
                display.told(item)
        picture = Console(file=io.StringIO(), width=100)
        picture.print(display.picture())
        return text.getvalue(), picture.file.getvalue(), display.lines()

    return asyncio.run(scene())


def test_a_terminal_has_a_table_with_the_trouble_below():
    """A row a camera, and why one of them failed."""
    _, picture, _ = shown(is_terminal=True)
    rows = picture.splitlines()
    assert rows[0].split() == [
        "camera",
        "state",
        "size",
        "read/s",
        "frames",
        "missing",
        "p50",
        "ms",
        "p95",
        "ms",
        "found",
    ]
    assert rows[1].split()[:3] == ["file", "ended", "32×48"]
    assert rows[2].split()[:2] == ["cam", "failed"]
    assert rows[3].strip() == "cam: source cam: broke off"


def test_elsewhere_there_are_lines_and_trouble_is_told_once():
    """No control characters in a log; the same trouble does not fill it."""
    printed, _, lines = shown(is_terminal=False)
    assert printed == "cam: lost: source cam: broke off\n"
    assert lines[0].startswith("file: ended, ")
    assert "3 frames, 0 missing" in lines[0]
    assert lines[1].endswith("; source cam: broke off")


def test_every_item_is_one_record():
    """Answers as in the frame log, with boxes and number; gaps with cause, count and what the service said."""

    async def items_of(client):
        sources = Sources(a=[ListSource(1, SourceError("bad"), SourceError("end"))])
        stream = Stream([a_file("a")], client=client, open_source=sources, clock=JumpingClock())
        async with stream:
            return [json.loads(json.dumps(item_record(item))) async for item in stream]

    answer, lost, end = asyncio.run(items_of(FakeClient()))
    assert {key: answer[key] for key in ("camera", "frame", "frame_at_s", "outcome", "boxes_xyxy")} == {
        "camera": "a", "frame": 0, "frame_at_s": 0.0, "outcome": "finished", "boxes_xyxy": [],
    }  # fmt: skip
    assert lost == {"camera": "a", "gap": "lost", "frame": 1, "num_frames": 1, "reason": "bad"}
    assert end == {"camera": "a", "gap": "lost", "frame": 2, "num_frames": 0, "reason": "end"}
    rejected, *_ = asyncio.run(items_of(FakeClient(error=FrameRejectedError("no room"), outcome=Outcome.REJECTED)))
    assert {key: rejected[key] for key in ("gap", "outcome", "error", "num_frames")} == {
        "gap": "rejected", "outcome": "rejected", "error": "no room", "num_frames": 1,
    }  # fmt: skip
