"""Where code blocks of the documentation run: the files that they speak of, one service, a Python for each page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2

from framelane_inspection.scenes import draw_scene
from serve_app.config import model_path

# A block may start a service, on a busy machine.
BLOCK_TIMEOUT_S = 300
PLAN = """\
models: {full: best.onnx}
buckets: {small: {canvases: [[480, 640]]}}
cameras: {"roof-*": {durable: true}}
slo_s: {critical: 60, normal: 60}
spool: {folder: spool}
"""
FLEET = "seconds: 2\nfleet: [{count: 4, size: [480, 640], fps: 5, critical_share: 0.2}]\n"
RECORD = {"camera": "gate", "source_hw": [480, 640], "canvas_hw": [480, 640], "priority": "normal", "slo_s": 1.0} | {
    "pool": "cpu",
    "bucket": "small",
    "model": "full",
    "batch_size": 1,
    "verdict": "admit",
    "infer_ms": 20.0,
}
# Reads one block a line, as JSON, and runs all in one namespace; says so on a line of its own when each has ended.
PYTHON = """
import json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    try:
        exec(compile(json.loads(line), "<block>", "exec"), names)
        ended = "ended well"
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        ended = "ended badly"
    print("\\0" + ended, flush=True)
"""


def write_files(folder):
    """A photo, two videos, a model, a plan, a frame log: all under the names that the pages use."""
    scenes = [draw_scene((480, 640), seed=seed).image_hwc for seed in range(4)]
    cv2.imwrite(str(folder / "photo.jpg"), scenes[0])
    for name, size_wh in (("line-1.mp4", (640, 480)), ("line-2.mp4", (320, 240))):
        writer = cv2.VideoWriter(str(folder / name), cv2.VideoWriter_fourcc(*"mp4v"), 10, size_wh)
        for scene in scenes:
            writer.write(cv2.resize(scene, size_wh))
        writer.release()
    (folder / "pictures").mkdir()
    for name in ("a.png", "b.png", "pictures/a.png", "pictures/b.png"):
        cv2.imwrite(str(folder / name), scenes[1])
    (folder / "best.onnx").write_bytes(model_path("bundled:inspection-light").read_bytes())
    (folder / "plan.yaml").write_text(PLAN)
    (folder / "new-plan.yaml").write_text(PLAN)
    (folder / "autoscaled.yaml").write_text(PLAN + "pools: {cpu: {max_replicas: 3}}\n")
    (folder / "cameras.csv").write_text("height,width,rate_hz\n480,640,10\n")
    (folder / "fleet.yaml").write_text(FLEET)
    # One frame a second: however slow the machine is meanwhile, its replica has the time.
    records = [RECORD | {"at_s": 1.0 * number, "total_ms": 30.0, "outcome": "finished"} for number in range(40)]
    for name in ("frames.jsonl", "out/demo/frames.jsonl", "logs/router-1.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))


class DocsWorld:
    """Runs blocks in a folder of their own for each page; one service at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = folder / "files"
        self._files.mkdir()
        write_files(self._files)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "FRAMELANE_STATE_DIR": str(folder / "state")}
        self.is_up = False

    def page_folder(self, name: str) -> Path:
        """A fresh copy of the files."""
        return Path(shutil.copytree(self._files, self._folder / name))

    def start_service(self) -> None:
        """The service that pages without one of their own use, with HTTP on its usual port; once."""
        if not self.is_up:
            self.run("framelane up plan.yaml --http", self._files)
            self.is_up = True

    def stop_service(self) -> None:
        """No service runs any more, whoever started it."""
        subprocess.run(["framelane", "down"], env=self.environment, capture_output=True, check=False)
        self.is_up = False

    def run(self, script: str, folder: Path) -> str:
        """Run a shell block, which must end with status 0; what it printed."""
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=folder, env=self.environment, capture_output=True, text=True, timeout=BLOCK_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout


class PagePython:
    """One Python for all blocks of a page: later ones know the names of earlier ones."""

    def __init__(self, world: DocsWorld, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PYTHON],
            cwd=folder, env=world.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, code: str) -> str:
        """Run a block, which must raise nothing; what it printed."""
        self._process.stdin.write(json.dumps(code) + "\n")
        self._process.stdin.flush()
        printed = ""
        for line in self._process.stdout:
            before, mark, ended = line.partition("\0")
            printed += before
            if mark:
                assert ended.strip() == "ended well", f"{code}\n{printed}"
                return printed
        raise AssertionError(f"{code}\n{printed}\nPython ended with it")

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=30)
