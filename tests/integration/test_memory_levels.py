"""Memory pressure on a real service: levels climb and come back, and its replica is never restarted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

SCRIPT = Path(__file__).with_name("memory_pressure.py")


def test_levels_climb_and_come_back_without_a_restart(tmp_path):
    """Under a real limit of the address space: normal frames give way step by step, critical ones keep their model."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])

    told = [(entry["levels"], entry["critical"], entry["normal"][0]) for entry in answer["seen"]]
    assert told == [
        (["NORMAL"], "full", "full"),
        (["NORMAL", "HIGH"], "full", "light"),
        (["HIGH", "CRITICAL"], "full", "light"),
        (["CRITICAL", "SHED"], "full", "rejected"),
        (["SHED", "CRITICAL", "HIGH", "NORMAL"], "full", "full"),
    ]
    reasons = [entry["normal"][1] for entry in answer["seen"]]
    assert reasons[2].endswith("memory of pool cpu: level critical")
    assert "the memory of pool cpu is nearly full" in reasons[3]
    assert answer["before"] == answer["after"]
