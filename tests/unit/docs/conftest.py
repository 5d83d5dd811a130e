"""Lets tests import what writes and checks the site, which are scripts and no package."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray.serve  # noqa: F401 (the command line imports it, and its import warns of pydantic's future)

sys.path.insert(0, str(Path(__file__).parents[3] / "docs" / "site"))
