"""The README's way to engines runs where TensorRT for RTX is installed, up to the GPU that is not here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.config import model_path

pytestmark = pytest.mark.tensorrt
ROOT = Path(__file__).parents[2]


def test_the_readmes_plan_is_built(tmp_path):
    """Its commands from traffic to engines, as they stand there; the folder of engines is the test's own."""
    block = re.search(r"^## On GPUs\n```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[1]
    commands = [line.partition(" #")[0].strip() for line in block.splitlines()]
    wanted = [command for command in commands if command.startswith(("framelane plan", "framelane build"))]
    (tmp_path / "best.onnx").write_bytes(model_path("bundled:inspection-light").read_bytes())
    (tmp_path / "cameras.csv").write_text("height,width,rate_hz\n480,640,10\n")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FRAMELANE_CACHE_DIR": str(tmp_path / "engines"),
    }
    for command in wanted:
        ran = subprocess.run(
            ["bash", "-ec", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    assert [command.split()[1] for command in wanted] == ["plan", "build"]
    assert len(list((tmp_path / "engines").glob("*_fp16_sm89_*.engine"))) == 1
