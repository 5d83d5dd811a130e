"""A service behind HTTP that tests steer, and requests to the real application without a socket."""

from __future__ import annotations

import asyncio

import cv2
import httpx
import numpy as np
from status_samples import VIEW

from engines.detections import Detections
from engines.spec import CanvasShape
from serve_app.config import plan_from
from serve_app.errors import TicketUnknownError
from serve_app.http.app import HttpSettings, build_http_app
from serve_app.http.callers import CallerBook
from serve_app.http.gateway import CameraPage, Readiness
from serve_app.http.limits import limits_of
from serve_app.results import FrameResult, StageTimes
from serve_app.tickets import Ticket
from serve_app.verdicts import Outcome, Verdict, VerdictKind

ADMITTED = Verdict(VerdictKind.ADMIT, "in time")
FOUND = Detections(
    np.array([[1.0, 2.0, 30.0, 40.0]], np.float32), np.array([0.875], np.float32), np.array([0], np.int64)
)
PLAN = {"models": {"full": "bundled:inspection-light"}, "buckets": {"vga": {"canvases": [[480, 640]]}}}


def plan_of(tmp_path, **http):
    """A plan with this `http` section."""
    return plan_from(PLAN | {"limits": {"max_frame_px": 1_000_000}, "http": http}, tmp_path)


def finished(frame_id="f1", camera="gate-1", size_hw=(48, 64), priority="normal", **changes):
    """A frame with one box."""
    fields = {
        "class_names": ("scratch",), "verdict": ADMITTED, "bucket": "vga", "pool": "cpu", "replica": "cpu-1",
        "model": "full", "canvas": CanvasShape(480, 640), "batch_size": 1, "router": "router-1",
        "times": StageTimes(total_s=0.0376),
    }  # fmt: skip
    return FrameResult(frame_id, camera, size_hw, priority, Outcome.FINISHED, FOUND, **(fields | changes))


def ended(outcome, error, verdict=ADMITTED):
    """A frame that did not finish."""
    return FrameResult("f1", "gate-1", (48, 64), "normal", outcome, Detections.none(), verdict=verdict, error=error)


class FakeGateway:
    """See `Gateway`: records what is asked, answers what it was told to; a callable is asked, an error is raised."""

    def __init__(self, plan):
        self.plan = plan
        self.asked = []
        self.answer = None
        self.pages = CameraPage((finished(),), "7.0", 2, 1)
        self.ready = Readiness(is_ready=True)
        self.kept = {}
        self.gate = None

    async def detect(self, image_hwc, *, camera, priority, slo_s=None, frame_id=None):
        """See `Gateway`."""
        self.asked.append((image_hwc, camera, priority, slo_s, frame_id))
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answer(image_hwc) if callable(self.answer) else self.answer
        if isinstance(answer, Exception):
            raise answer
        return answer or finished(camera=camera, size_hw=image_hwc.shape[:2], priority=priority)

    async def submit(self, image_hwc, *, camera, priority, slo_s=None):
        """See `Gateway`."""
        self.asked.append((image_hwc, camera, priority, slo_s, None))
        if isinstance(self.answer, Exception):
            raise self.answer
        return Ticket("t1", camera, ADMITTED, 60.0, "router-1")

    async def result(self, ticket_id, wait_s=0.0):
        """See `Gateway`."""
        self.asked.append((ticket_id, wait_s))
        if ticket_id not in self.kept:
            raise TicketUnknownError(f"ticket: got {ticket_id!r}, which is not known")
        return self.kept[ticket_id]

    async def results(self, camera, cursor="", wait_s=0.0):
        """See `Gateway`."""
        self.asked.append((camera, cursor, wait_s))
        return self.pages

    async def view(self):
        """See `Gateway`."""
        return VIEW

    async def is_live(self):
        """See `Gateway`."""
        return True

    async def readiness(self):
        """See `Gateway`."""
        return self.ready


class Site:
    """The application on a fake service, with a clock that tests set."""

    def __init__(self, plan, rules=None, *, only_critical=False):
        self.now_s = 0.0
        self.gateway = FakeGateway(plan)
        book = CallerBook(rules, lambda: self.now_s, only_critical=only_critical)
        self.app = build_http_app(self.gateway, HttpSettings(limits_of(plan), book, plan.http.cors_origins))

    def client(self):
        """To be entered in an event loop."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://line")

    def ask(self, method, path, **request):
        """One request; its response."""

        async def asked():
            async with self.client() as client:
                return await client.request(method, path, **request)

        return asyncio.run(asked())

    def send(self, image=None, path="/v1/detect", media_type="image/jpeg", headers=None, **params):
        """One image."""
        content = jpeg() if image is None else image
        return self.ask(
            "POST", path, content=content, params=params, headers={"content-type": media_type} | (headers or {})
        )


def picture(size_hw=(48, 64)):
    """A grey picture with a white square."""
    image = np.full((*size_hw, 3), 90, np.uint8)
    image[10:20, 10:20] = 255
    return image


def jpeg(size_hw=(48, 64)):
    """It as JPEG."""
    return cv2.imencode(".jpg", picture(size_hw))[1].tobytes()


def png(size_hw=(48, 64)):
    """It as PNG."""
    return cv2.imencode(".png", picture(size_hw))[1].tobytes()
