"""Triton's own client against a real service: it lists the model, and infers what `Client.detect` finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DRILL = Path(__file__).with_name("triton_drill.py")
# Two Serve applications on a busy machine; an idle one needs a quarter of it.
DRILL_S = 170.0


def test_triton_s_client_gets_what_our_client_gets(tmp_path):
    """To the bit: raw and encoded images, binary and JSON, packed and not, of a camera that a rule gives a model."""
    pytest.importorskip("tritonclient.http")
    drill = subprocess.run(
        [sys.executable, str(DRILL), str(tmp_path)], env=os.environ | {"FRAMELANE_STATE_DIR": str(tmp_path / "state")},
        capture_output=True, text=True, timeout=DRILL_S, check=False,
    )  # fmt: skip
    assert drill.returncode == 0, drill.stderr[-3000:]
    assert json.loads(drill.stdout.splitlines()[-1]) == {
        "live": True, "ready": True, "model ready": True, "models": ["framelane"],
        "inputs": ["images", "encoded_images"], "max_batch_size": 16, "served by": ["full"] * 3, "binary": True,
        "critical, json out": True, "json in and out": True, "gzip": True, "files": True,
    }  # fmt: skip
