"""One real service for all tests of this folder: real Serve, real engines, the bundled models."""

from __future__ import annotations

import os

import pytest
from service_world import Command, Service, free_ports

from engines.onnx_run import OnnxEngine
from engines.spec import CanvasShape
from framelane_inspection.scenes import draw_scene
from serve_app.config import model_path, plan_from
from serve_app.latency import Latency, LatencyKey, LatencyTable, Origin
from serve_app.latency_file import save_table
from serve_app.local_service import local_service
from serve_app.plan import Runtime
from serve_app.plan_machine import device_name

MODEL = "bundled:inspection-light"
CANVASES = {"vga": [480, 640], "tall": [640, 480], "wide": [384, 640]}
BATCHES = [1, 2, 4]
VGA_S = {1: 0.025, 2: 0.036, 4: 0.070}
# The default model is the light one, below which nothing is cheaper; cameras of the full one can be degraded.
CAMERAS = {
    "full-*": {"model": "full"},
    "latest-*": {"keep": "latest"},
    "tile-*": {"oversize": "tile"},
    "strict-*": {"oversize": "reject"},
}


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """A service of four canvases with batches up to 4 and a ladder, which logs its frames; in the end it lost none."""
    folder = tmp_path_factory.mktemp("service")
    # On a CPU two frames take twice the time of one, to a hair: here a batch is worth it, whatever the warm-up's noise.
    port, critical_port = free_ports(2)
    vga = {LatencyKey("light", CanvasShape(480, 640), n): Latency(run_s, 0.002, 10) for n, run_s in VGA_S.items()}
    save_table(folder / "latency.json", LatencyTable(device_name(Runtime.ONNX), Origin.MEASURED, vga))
    light = {name: {"canvases": [hw], "batches": BATCHES} for name, hw in CANVASES.items()}
    plan = plan_from(
        {
            "models": {"light": MODEL, "full": "bundled:inspection-full"},
            "pools": {"cpu": {"replicas": 1}},
            "buckets": light | {"full": {"model": "full", "canvases": [[480, 640]], "batches": [1, 2]}},
            "cameras": CAMERAS,
            "ladder": [{"model": "light"}],
            "slo_s": {"critical": 30, "normal": 60},
            "limits": {"max_frame_px": 4_000_000, "ticket_ttl_s": 600},
            "frame_log": "frames.jsonl",
            "latency": "latency.json",
            "http": {
                "port": port,
                "critical_port": critical_port,
                "max_body_bytes": 4_000_000,
                "read_timeout_s": 3,
            },
        },
        folder,
    )
    # Ray exports metrics every ten seconds, for which no test wants to wait.
    os.environ["RAY_metrics_report_interval_ms"] = "1000"  # noqa: SIM112 (Ray's own spelling)
    with local_service(plan, num_cpus=2, http=True) as client:
        urls = [f"http://127.0.0.1:{number}" for number in (port, critical_port)]
        running = Service(client, folder / "frames.jsonl", *urls)
        yield running
        running.assert_conserved()


@pytest.fixture(scope="session")
def engine():
    """The same model in this process, not yet warm."""
    engine = OnnxEngine(model_path(MODEL))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def scene_hwc():
    """A 480×640 scene of the inspection line."""
    return draw_scene((480, 640), seed=7).image_hwc


@pytest.fixture
def framelane(tmp_path):
    """Runs the real command in the test's folder."""
    return Command(tmp_path)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The demo, run once for five seconds: the finished process, and the folder with what it left in `out`."""
    folder = tmp_path_factory.mktemp("demo")
    return Command(folder)("demo", "--seconds", "5", "--out", "out"), folder
