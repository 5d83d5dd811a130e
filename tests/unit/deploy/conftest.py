"""Lets tests import the generator of the Grafana files, which is a script and no package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "deploy" / "grafana"))
