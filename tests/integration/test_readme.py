"""Every command and code block of the README runs, in the README's order."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from framelane_inspection.scenes import draw_scene
from serve_app.config import model_path

pytestmark = [pytest.mark.docs, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLAN = 'models: {full: "bundled:inspection-light"}\nbuckets: {small: {canvases: [[480, 640]]}}\nslo_s: {critical: 60}\n'
FLEET = "seconds: 2\nfleet: [{count: 4, size: [480, 640], fps: 5, critical_share: 0.2}]\n"
RECORD = {"camera": "gate", "source_hw": [480, 640], "canvas_hw": [480, 640], "priority": "normal", "slo_s": 1.0}
# These would run this very test, install torch, or take minutes; their recipes are checked instead.
OF_OTHER_EXTRAS = ("framelane export", "framelane build", "pip install")
NOT_RUN_HERE = ("make test", "make docs", "make recall", "make bench", "make bench-overload")


def commands_of(block):
    """The commands of a shell block, without comments and without entering the environment, which the test is in.

    A line that ends in a backslash goes on in the next; one that should end with another status than 0 has `|| …`.
    """
    lines = [line.partition(" #")[0].strip() for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith(". ")]


@pytest.fixture
def world(tmp_path):
    """The files that the README's commands speak of, and an environment with the command in it."""
    scenes = [draw_scene((480, 640), seed=seed).image_hwc for seed in range(4)]
    cv2.imwrite(str(tmp_path / "photo.jpg"), scenes[0])
    for name in ("line-1.mp4", "line-2.mp4"):
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter_fourcc(*"mp4v"), 10, (640, 480))
        for scene in scenes:
            writer.write(scene)
        writer.release()
    (tmp_path / "best.onnx").write_bytes(model_path("bundled:inspection-light").read_bytes())
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "cameras.csv").write_text("height,width,rate_hz\n480,640,10\n")
    (tmp_path / "fleet.yaml").write_text(FLEET)
    records = [RECORD | {"at_s": 0.1 * number, "total_ms": 30.0, "outcome": "finished"} for number in range(40)]
    (tmp_path / "frames.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return tmp_path, os.environ | {"PATH": path, "FRAMELANE_STATE_DIR": str(tmp_path / "state")}


def run(command, folder, environment):
    """Run one command in bash; fails with what it printed."""
    done = subprocess.run(
        ["bash", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_block_of_the_readme_runs(world):
    """Shell and Python, top to bottom; what needs an extra has its own test with that extra."""
    folder, environment = world
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    assert "python" in [language for language, _ in blocks]
    printed = ""
    try:
        for language, block in blocks:
            if language == "python":
                printed += run(f"python - <<'PYTHON'\n{block}PYTHON", folder, environment)
                continue
            for command in commands_of(block):
                if command.startswith("make"):
                    is_run = command not in NOT_RUN_HERE
                    run(command if is_run else command.replace("make", "make -n"), ROOT, environment)
                elif not command.startswith(OF_OTHER_EXTRAS):
                    run(command, folder, environment)
    finally:
        subprocess.run(["framelane", "down"], env=environment, capture_output=True, check=False)
    assert "part 0." in printed
    assert (ROOT / "out" / "demo" / "fleet.png").exists()


def test_every_command_in_a_table_has_a_make_target():
    """What the README quotes a figure from can be made."""
    named = set(re.findall(r"`make ([a-z-]+)`", (ROOT / "README.md").read_text()))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= targets
