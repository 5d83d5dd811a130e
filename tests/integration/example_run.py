"""Runs an example as people do: its script, in a process and a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
# A busy machine starts Ray in a minute.
EXAMPLE_S = 170


def run_example(script, *arguments, folder):
    """What it prints; fails with what it complained of."""
    command = [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)]
    environment = os.environ | {"FRAMELANE_STATE_DIR": str(folder / "state")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=EXAMPLE_S, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
