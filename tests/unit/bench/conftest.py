"""Lets tests import the benchmarks' modules, which are scripts and no package.

Ray Serve's import warns of pydantic's future; that is Ray's affair, while all other warnings stay errors here.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray.serve  # noqa: F401 (imported here once, so that no test is the first)

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
