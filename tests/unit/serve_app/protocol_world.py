"""The HTTP door on a service that answers by the pixels of each frame, and a real socket in front of it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from socket import AF_INET, SOCK_STREAM, socket

import numpy as np
import uvicorn

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app.errors import FrameRejectedError
from serve_app.http.app import HttpSettings, build_http_app
from serve_app.http.callers import CallerBook
from serve_app.http.gateway import Readiness
from serve_app.http.limits import HttpLimits
from serve_app.plan import Bucket, Plan, Pool
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome

PLAN = Plan(
    models={"full": "bundled:inspection-full"},
    pools=(Pool("cpu"),),
    buckets=(Bucket("vga", "full", "cpu", (CanvasShape(480, 640),), (1, 2)),),
)
LIMITS = HttpLimits(
    max_body_bytes=2_000_000, max_bodies_bytes=20_000_000, max_image_px=200_000, max_parts=8,
    read_timeout_s=5.0, max_requests=50,
)  # fmt: skip


def found_in(image_hwc):
    """As many boxes as the first pixel's blue says; sizes and scores are the picture's own."""
    count = int(image_hwc[0, 0, 0])
    height, width = image_hwc.shape[:2]
    boxes = np.asarray([[i, i + 0.1, width - i, height - i / 3] for i in range(count)], np.float32).reshape(count, 4)
    scores = np.linspace(0.9, 0.3, count, dtype=np.float32)
    return Detections(boxes, scores, np.arange(count, dtype=np.int64) % 2)


class PixelGateway:
    """A `Gateway` whose frames are refused where their first pixel's red says so."""

    def __init__(self):
        """Ready."""
        self.plan = PLAN
        self.asked = []
        self.told = Readiness(is_ready=True)

    async def detect(self, image_hwc, *, camera, priority, slo_s=None, frame_id=None):  # noqa: ARG002 (a `Gateway` takes it)
        """The result of a frame."""
        self.asked.append((image_hwc.shape, camera, priority, slo_s))
        size_hw, name = image_hwc.shape[:2], f"frame-{len(self.asked)}"
        if image_hwc[0, 0, 2] == 255:
            err = FrameRejectedError("no room for this frame", 2.5)
            return FrameResult(name, camera, size_hw, priority, Outcome.REJECTED, Detections.none(), error=err)
        found = found_in(image_hwc)
        names = tuple(("scratch", "süßer Fleck")[i] for i in found.class_ids)
        return FrameResult(name, camera, size_hw, priority, Outcome.FINISHED, found, names, model="full", rung=1)

    async def submit(self, *_, **__):
        """Nothing of tickets is served here."""
        raise FrameRejectedError("no tickets here", 2.5)

    result = results = view = submit

    async def is_live(self):
        """Always."""
        return True

    async def readiness(self):
        """As told."""
        return self.told


def app_on(gateway, limits=LIMITS, rules=None):
    """The real application on such a service."""
    return build_http_app(gateway, HttpSettings(limits, CallerBook(rules, lambda: 0.0)))


def picture(num_boxes, size_hw=(40, 56), *, refused=False):
    """A frame that has so many boxes."""
    image_hwc = np.random.default_rng(num_boxes).integers(0, 255, (*size_hw, 3), np.uint8)
    image_hwc[0, 0] = num_boxes, 0, 255 if refused else 0
    return image_hwc


@contextmanager
def listening(app):
    """Serve an application on a free port of this machine; its `host:port`."""
    with socket(AF_INET, SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # from here on callers wait in line, whenever the server begins
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
