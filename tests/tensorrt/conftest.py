"""Runs what needs the stand-in of the driver in a process of its own, and answers how it went."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE / "stand_ins"))

# Collected only in that process, which has the stand-in's path in this variable.
collect_ignore = [] if "FRAMELANE_STAND_IN" in os.environ else ["simulated"]


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """What the tests in `simulated/` gave: outcomes by file, from one process for all of them."""
    from nested_run import run_nested

    return run_nested(HERE / "simulated", tmp_path_factory.mktemp("stand_in"))
