"""The page on a service that the test plays: real routers' memories and a real collector, without Ray."""

from __future__ import annotations

import random
import socket
import threading
import time
import uuid
from collections import Counter
from dataclasses import fields

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request

from engines.detections import Detections
from engines.device_facts import DeviceFacts
from engines.spec import CanvasShape
from framelane_inspection.scenes import draw_scene
from serve_app.errors import ServiceUnavailableError
from serve_app.live.collector import Collector
from serve_app.live.live_report import LiveAsk
from serve_app.live.page import page_routes
from serve_app.live.router_side import RouterSide
from serve_app.live.source import FrameToFetch, LiveLook
from serve_app.memory_level import MemoryLevel
from serve_app.plan import Bucket, Plan, Pool, Rung
from serve_app.results import (
    FrameResult,
    PoolStatus,
    ReplicaReport,
    RouterReport,
    RouterStatus,
    ServiceStatus,
    StageTimes,
)
from serve_app.service_view import DeploymentFacts, NodeFacts, ServiceView
from serve_app.verdicts import Outcome, Verdict, VerdictKind

GIB = 2**30
VGA, HD, FULL, UHD = CanvasShape(480, 640), CanvasShape(736, 1280), CanvasShape(1088, 1920), CanvasShape(1440, 2560)
WAYS = {
    (480, 640): ("small", "near", VGA), (600, 600): ("medium", "near", HD), (720, 1280): ("medium", "near", HD),
    (1080, 1920): ("large", "wide", FULL), (1440, 2560): ("large", "wide", UHD),
}  # fmt: skip
PLACES = ("gate", "belt", "press", "saw", "yard", "dock", "oven", "crane")
NO_FACTS = dict.fromkeys(field.name for field in fields(DeviceFacts))


def plan():
    """Three buckets on two pools, and a ladder of two rungs."""
    return Plan(
        {"full": "full.onnx", "light": "light.onnx"},
        (Pool("near", 2), Pool("wide", 1)),
        (
            Bucket("small", "full", "near", (VGA,), (1, 2, 4)),
            Bucket("medium", "full", "near", (HD,), (1, 2)),
            Bucket("large", "full", "wide", (FULL, UHD), (1,)),
            Bucket("light", "light", "near", (VGA,), (1, 2, 4)),
        ),
        ladder=(Rung("full", HD), Rung("light")),
    )  # fmt: skip


def device(name, used_gib, total_gib, **changes):
    """A GPU that is doing well."""
    facts = {"name": name, "used_bytes": int(used_gib * GIB), "total_bytes": int(total_gib * GIB), "index": 0}
    doing = {"utilisation_fraction": 0.62, "temperature_c": 61.0, "throttle_reasons": (), "ecc_uncorrected": 0}
    return DeviceFacts(**(NO_FACTS | facts | doing | changes))


class PlayedService:
    """A `LiveSource` whose cameras send as the test says."""

    def __init__(self, cameras=(), num_routers=1):
        self.plan = plan()
        self.cameras = dict(cameras)  # name to (size, priority, frames a second)
        self.routers = {f"router-{number}a7f01c": RouterSide(2 * GIB) for number in range(num_routers)}
        self.outcomes, self.verdicts = Counter(), Counter()
        self.is_away = False
        self.is_still = False
        self.level = MemoryLevel.NORMAL
        self.rung = 0
        self.waiting = (0, 2, 5)
        self.num_rests = 0
        self.pictures_hwc = {}
        self.lot = random.Random(7)
        self.started_s = time.monotonic() - 7950
        self.owed = Counter()

    def sends(self, camera, size_hw, priority="normal", num_frames=1, **changes):
        """Frames of a camera end."""
        bucket, pool, canvas = WAYS.get(size_hw, ("large", "wide", UHD))
        router = self.routers[sorted(self.routers)[len(camera) % len(self.routers)]]
        base_s = canvas.num_px / 3e7
        for _ in range(num_frames):
            queue_s = base_s * self.lot.expovariate(3)
            times = StageTimes(queue_s=queue_s, total_s=queue_s + base_s * (1 + 0.15 * self.lot.random()))
            kind = VerdictKind.DEFER if canvas.num_px > 3_000_000 and priority == "normal" else VerdictKind.ADMIT
            values = {
                "verdict": Verdict(kind, "as it is"), "bucket": bucket, "pool": pool, "model": "full", "canvas": canvas,
                "times": times, "outcome": Outcome.FINISHED,
            } | changes  # fmt: skip
            boxes_xyxy, names = self.boxes(size_hw)
            found = Detections(boxes_xyxy, np.full(len(names), 0.87, np.float32), np.arange(len(names)))
            if values["outcome"] is not Outcome.FINISHED:
                found, names = Detections.none(), ()
            result = FrameResult(
                uuid.uuid4().hex, camera, size_hw, priority, detections=found, class_names=names, **values
            )
            self.outcomes[result.outcome.value] += 1
            self.verdicts[result.verdict.kind.value] += 1
            now_s = time.monotonic()
            router.ended(result, now_s)
            router.keep(result, size_hw, size_hw[0] * size_hw[1] * 3, now_s)

    def boxes(self, size_hw):
        """Where the scene of this size has defects, and what they are."""
        self.picture(size_hw)
        return self.pictures_hwc[size_hw][1:]

    def picture(self, size_hw):
        """The scene of this size."""
        if size_hw not in self.pictures_hwc:
            scene = draw_scene(size_hw, seed=7)
            boxes_xyxy = np.asarray(scene.boxes_xyxy, np.float32).reshape(-1, 4)[:6]
            self.pictures_hwc[size_hw] = scene.image_hwc, boxes_xyxy, ("scratch",) * len(boxes_xyxy)
        return self.pictures_hwc[size_hw][0]

    def is_watched(self):
        """From now on frames are kept for the page, as if it watched already."""
        for name, side in self.routers.items():
            side.answer(name, LiveAsk("page", 30.0), time.monotonic())

    def play(self, seconds):
        """All cameras send for so long."""
        for name, (size_hw, priority, hz) in self.cameras.items():
            self.owed[name] += hz * seconds
            number = int(self.owed[name])
            self.owed[name] -= number
            self.sends(name, size_hw, priority, number)

    async def look(self, known, max_frames):
        """See `LiveSource.look`."""
        if self.is_away:
            raise ServiceUnavailableError("service: none of its routers answers; look at: framelane status")
        if not self.is_still:
            self.play(1.0)
        ask, now_s = LiveAsk("page", 5.0, known, max_frames), time.monotonic()
        answers = [side.answer(name, ask, now_s) for name, side in self.routers.items()]
        frames = [
            FrameToFetch(seen, lambda size_hw=ref: self.picture(size_hw))
            for report, refs in answers
            for seen, ref in zip(report.frames, refs, strict=True)
        ]
        return LiveLook(self.view(), tuple(report for report, _ in answers), tuple(frames))

    async def rest(self):
        """See `LiveSource.rest`."""
        self.num_rests += 1
        for name, side in self.routers.items():
            side.answer(name, LiveAsk("page", 0.0), time.monotonic())

    def view(self):
        """What `framelane status` would show."""
        uptime_s = time.monotonic() - self.started_s
        near = tuple(
            ReplicaReport(f"near-{name}", f"node{at}", 4210 + at, 9.1, device("NVIDIA L4", used, 22.5), up_s=uptime_s)
            for at, (name, used) in enumerate((("0a41be22", 9.2), ("77c0d9f1", 18.1 + 1.5 * self.level)))
        )
        wide = (
            ReplicaReport("wide-5510aa0c", "node1", 910, 15.0, device("NVIDIA H100 80GB HBM3", 5.25, 79.6), up_s=42.0),
        )
        pools = (
            PoolStatus("near", 2, 2, near, 0.21, self.rung, 0.004, self.waiting, self.level, 2, 2),
            PoolStatus("wide", 5, 1, wide, 1.92, 0, 0.011, (0, 0, 5), MemoryLevel.NORMAL, 1, 1),
        )
        routers = tuple(
            RouterStatus(RouterReport(name, "node0", 7), uptime_s, 3, 2, 1, 0.1, {"finished": self.outcomes.total()})
            for name in self.routers
        )
        status = ServiceStatus(
            uptime_s, pools, dict(self.outcomes), 6, 0, dict(self.verdicts), routers,
        )  # fmt: skip
        doing = {"is_alive": True, "is_draining": False, "num_cpus": 16.0, "cpus_used": 3.0, "num_gpus": 1.0}
        has = {"gpus_used": 1.0, "memory_bytes": 44 * GIB, "labels": {}, "metrics_port": 8080}
        nodes = tuple(
            NodeFacts(f"node{at}", f"line-gpu-{at}", f"10.0.0.{at}", is_head=at == 0, **doing, **has) for at in range(2)
        )
        facts = {"near": DeploymentFacts(2, 2), "wide": DeploymentFacts(1, 1)}
        return ServiceView(status, nodes, facts, DeploymentFacts(len(routers), len(routers)))


def fleet(num_cameras):
    """So many cameras of five sizes, every sixth one critical."""
    sizes = list(WAYS)
    return {
        f"{PLACES[n % 8]}-{n // 8 + 1}": (sizes[n % 5], "critical" if n % 6 == 0 else "normal", (5, 2, 10, 1)[n % 4])
        for n in range(num_cameras)
    }


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class PageServer:
    """Serves the page on a port of its own, in a thread; can be stopped and started again there."""

    def __init__(self, source, key=None, **options):
        self.source, self.key, self.options = source, key, options
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self):
        """Begin to serve, with a collector of its own, as a new process would."""
        self.collector = Collector(self.source, **self.options)
        app = FastAPI()

        def may_see(request: Request):
            if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
                raise HTTPException(401, headers={"WWW-Authenticate": "Bearer, Basic"})

        app.include_router(page_routes(self.collector, may_see))
        settings = uvicorn.Config(
            app, host="127.0.0.1", port=self.port, log_level="critical", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(settings)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.02)

    def wait_until_resting(self):
        """Wait until its collector looks at nothing any more."""
        give_up_s = time.monotonic() + 20
        while not self.collector.is_resting and time.monotonic() < give_up_s:
            time.sleep(0.02)
        assert self.collector.is_resting

    def stop(self):
        """End it with all its lines."""
        self.server.should_exit = True
        self.thread.join(timeout=20)
        assert not self.thread.is_alive()
