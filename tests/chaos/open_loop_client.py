"""A process of its own that sends frames at set times, whatever the service does, and notes how each one ended.

    python open_loop_client.py '{"address": null, "seconds": 20, "out": "frames.jsonl", "streams": [
        {"camera": "gate", "priority": "critical", "slo_s": 2.0, "size_hw": [240, 320], "hz": 5}]}'

It prints `sending` when it begins. Latencies count from when a frame was to be sent, so a client that hangs does not
hide a service that hangs. Times are the machine's monotonic clock, which all of its processes share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import numpy as np

from serve_app.client import Client
from serve_app.errors import FramelaneError

# Calls are given up after this, and count as frames without an outcome.
PATIENCE_S = 90.0


class Note:
    """One frame: when it was to be sent, and every answer that came for it."""

    def __init__(self, stream, due_s):
        self.stream = stream
        self.due_s = due_s
        self.sent_s = None
        self.answers = []

    def line(self):
        """As it is written down."""
        fields = {key: self.stream[key] for key in ("camera", "priority", "slo_s")}
        return fields | {"due_s": self.due_s, "sent_s": self.sent_s, "answers": self.answers}


async def send(client, note, image_hwc):
    """Send one frame and note what comes back."""
    stream = note.stream
    note.sent_s = time.monotonic()
    answer = {}
    try:
        result = await asyncio.wait_for(
            client.submit_async(image_hwc, camera=stream["camera"], priority=stream["priority"], slo_s=stream["slo_s"]),
            PATIENCE_S,
        )
        answer = {
            "frame_id": result.frame_id, "outcome": result.outcome.value, "model": result.model,
            "canvas": None if result.canvas is None else str(result.canvas), "replica": result.replica,
            "rung": result.rung, "error": None if result.error is None else str(result.error),
        }  # fmt: skip
    except (FramelaneError, asyncio.TimeoutError) as err:
        answer = {"frame_id": None, "outcome": "none", "error": f"{type(err).__name__}: {err}"}
    answer["latency_s"] = time.monotonic() - note.due_s
    note.answers.append(answer)


async def play(client, streams, seconds):
    """Send every stream's frames at their times; the notes of all of them."""
    rng = np.random.default_rng(0)
    images = {tuple(stream["size_hw"]): rng.integers(0, 255, (*stream["size_hw"], 3), np.uint8) for stream in streams}
    began_s = time.monotonic() + 0.1
    notes = sorted(
        (
            Note(stream, began_s + (number + index / len(streams)) / stream["hz"])
            for index, stream in enumerate(streams)
            for number in range(int(seconds * stream["hz"]))
        ),
        key=lambda note: note.due_s,
    )
    sending = []
    for note in notes:
        await asyncio.sleep(max(0.0, note.due_s - time.monotonic()))
        sending.append(asyncio.ensure_future(send(client, note, images[tuple(note.stream["size_hw"])])))
    await asyncio.gather(*sending)
    return notes


def main():
    """Connect, send, write down."""
    asked = json.loads(sys.argv[1])
    client = Client.connect(asked["address"])
    print("sending", flush=True)  # noqa: T201
    notes = asyncio.run(play(client, asked["streams"], asked["seconds"]))
    Path(asked["out"]).write_text("".join(json.dumps(note.line()) + "\n" for note in notes))


if __name__ == "__main__":
    main()
