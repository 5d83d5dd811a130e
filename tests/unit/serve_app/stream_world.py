"""What the tests of streams play with: sources of a few frames, a clock that jumps, a client that answers as told."""

from __future__ import annotations

import asyncio
import threading

import numpy as np

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app.results import FrameResult
from serve_app.streams.camera_spec import CameraSpec
from serve_app.streams.source import SourceError, SourceFrame
from serve_app.streams.stream_values import Answer, Gap
from serve_app.verdicts import Outcome

SIZE_HW = (32, 48)
FPS = 10.0
# Of a test that goes wrong only.
PATIENCE_S = 20.0


def frame(value=0, size_hw=SIZE_HW):
    """A small grey frame."""
    return np.full((*size_hw, 3), value % 256, np.uint8)


class ListSource:
    """Gives these items; a number stands for so many frames, an error is given or, as the last one, raised."""

    def __init__(self, *items, name="camera"):
        self.name = name
        self.items = items
        self.num_frames = None
        self.num_decoded = self.num_closed = 0
        self.closed = threading.Event()

    def first_size_hw(self):
        """Never asked by a reader."""
        raise NotImplementedError

    def frames(self):
        """Frames ten to the second of the source's clock."""
        number = 0
        try:
            for index, item in enumerate(self.items):
                if not isinstance(item, int):
                    if index == len(self.items) - 1:
                        raise item
                    yield item
                    continue
                for _ in range(item):
                    yield SourceFrame(number / FPS, lambda number=number: self.decode(number))
                    number += 1
        finally:
            self.num_closed += 1
            self.closed.set()

    def decode(self, number):
        """Its pixels tell its number."""
        self.num_decoded += 1
        return frame(number)


class Sources:
    """Opens the next of these sources each time that a camera is opened; an error is raised."""

    def __init__(self, **by_camera):
        self.by_camera = {name: list(sources) for name, sources in by_camera.items()}

    def __call__(self, spec):
        """See `open_source`."""
        waiting = self.by_camera[spec.name]
        if not waiting:
            raise SourceError(f"source {spec.name}: it is off")
        source = waiting.pop(0) if spec.is_live or len(waiting) > 1 else waiting[0]
        if isinstance(source, Exception):
            raise source
        return source


class JumpingClock:
    """Waits take no time; their lengths are kept. At `most_waits` the camera is stopped."""

    def __init__(self, most_waits=10_000):
        self.at_s = 100.0
        self.waits = []
        self.most_waits = most_waits
        self._lock = threading.Lock()

    def now_s(self):
        """The time by the waits so far."""
        return self.at_s

    def wait(self, stop, seconds):
        """Jump; whether to stop."""
        with self._lock:
            self.at_s += max(0.0, seconds)
            self.waits.append(round(seconds, 6))
            if len(self.waits) >= self.most_waits:
                stop.set()
        return stop.is_set()


class FakeClient:
    """Answers at once, or when its gate opens; records what it was asked."""

    def __init__(self, *, error=None, outcome=Outcome.FINISHED, gate=None):
        self.calls = []
        self.seen = []
        self.in_flight = self.most_in_flight = 0
        self.error = error
        self.outcome = outcome
        self.gate = gate
        self.stands = True
        self.called = threading.Semaphore(0)

    async def submit_async(self, image_hwc, *, camera, priority, slo_s):
        """See `Client.submit_async`; an error with an outcome other than finished is in the result."""
        self.calls.append((camera, priority, slo_s))
        self.seen.append((camera, int(image_hwc[0, 0, 0])))
        self.in_flight += 1
        self.called.release()
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await (self.gate.wait() if self.gate else asyncio.sleep(0))
        finally:
            self.in_flight -= 1
        if self.error is not None and self.outcome is Outcome.FINISHED:
            raise self.error
        return FrameResult(
            str(len(self.calls)), camera, image_hwc.shape[:2], priority, self.outcome, Detections.none(),
            error=self.error, canvas=CanvasShape(64, 64),
        )  # fmt: skip

    def is_hosted(self):
        """See `Client.is_hosted`."""
        return self.stands


def a_file(name="file", **options):
    """A camera that waits for whoever plays it."""
    return CameraSpec("x.avi", name=name, **options)


def a_camera(name="live", **options):
    """A live camera."""
    return CameraSpec("rtsp://10.0.0.7/stream1", name=name, **options)


def assert_whole(items, num_read):
    """A camera's items tell of each number from 0 to `num_read` once, in order."""
    next_number = 0
    for item in items:
        first, count = (item.first_number, item.num_frames) if isinstance(item, Gap) else (item.frame.number, 1)
        assert first == next_number
        next_number += count
    assert next_number == num_read


async def items_of(stream):
    """All items by camera, and how often each answer's frame was read."""
    items = {spec.name: [] for spec in stream.specs}
    async with stream:
        async for item in stream:
            items[item.camera].append(item)
        for name, own in items.items():
            assert_whole(own, stream.num_read[name])
    return items


def brief(items):
    """Answers as their numbers, gaps as (cause, frames)."""
    return [item.frame.number if isinstance(item, Answer) else (item.cause.value, item.num_frames) for item in items]
