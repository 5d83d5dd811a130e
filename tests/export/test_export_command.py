"""`framelane export`, as the README types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engines.graph import load_model, read_info
from engines.spec import HeadKind

pytestmark = pytest.mark.export


@pytest.mark.filterwarnings("ignore")
def test_the_command_exports_beside_the_weights(tmp_path):
    """One line of output, one ONNX file, nothing else in the folder."""
    ultralytics = pytest.importorskip("ultralytics")
    ultralytics.YOLO("yolov8n.yaml").save(str(tmp_path / "best.pt"))
    command = [str(Path(sys.executable).with_name("framelane")), "export", "best.pt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("best.onnx: 80 classes, stride 32, head raw")
    assert {path.name for path in tmp_path.iterdir()} == {"best.pt", "best.onnx"}
    assert read_info(load_model(tmp_path / "best.onnx"), "best").head is HeadKind.RAW
