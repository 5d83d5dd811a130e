"""One real service for all tests of this folder: real Serve, a real engine, the bundled light model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engines.onnx_run import OnnxEngine
from framelane_inspection.scenes import draw_scene
from serve_app.config import model_path, plan_from
from serve_app.local_service import local_service

MODEL = "bundled:inspection-light"
CANVASES = {"vga": [480, 640], "tall": [640, 480], "wide": [384, 640]}


class Service:
    """The running service with what tests look at."""

    def __init__(self, client, log_path):
        self.client = client
        self.log_path = log_path

    def records(self):
        """Every record of the frame log so far."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def records_of(self, camera):
        """Those of one camera."""
        return [record for record in self.records() if record["camera"] == camera]


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """A service of three canvases with batches up to 4, which logs its frames."""
    folder = tmp_path_factory.mktemp("service")
    plan = plan_from(
        {
            "models": {"light": MODEL},
            "pools": {"cpu": {"replicas": 1}},
            "buckets": {name: {"canvases": [hw], "batches": [1, 2, 4]} for name, hw in CANVASES.items()},
            "slo_s": {"critical": 30, "normal": 60},
            "limits": {"max_frame_px": 4_000_000},
            "frame_log": "frames.jsonl",
        },
        folder,
    )
    with local_service(plan, num_cpus=2) as client:
        yield Service(client, folder / "frames.jsonl")


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
    """Runs the real command in a folder and with a state of its own; gives the finished process."""
    command = Path(sys.executable).with_name("framelane")
    environment = {
        "PATH": f"{command.parent}:/usr/bin:/bin",
        "HOME": str(Path.home()),
        "FRAMELANE_STATE_DIR": str(tmp_path / "state"),
        "COLUMNS": "100",
    }

    def run(*arguments, cwd=tmp_path, timeout_s=170):
        return subprocess.run(
            [str(command), *map(str, arguments)],
            cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    run.environment = environment
    return run
