"""The build: `pyproject.toml` says all of it but one choice.

With FRAMELANE_COMPILE=1 in the environment the modules that run for every frame and batch, the scheduler's and the
simulator's loop, become machine code by mypyc, from the same source: for them a C compiler is needed. Without it the
wheel is plain Python, for any machine.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from setuptools import Extension, setup

MYPYC = "mypy[mypyc]==2.4.1"
# Values that travel between processes are none of these: what is compiled from a dataclass cannot be pickled.
COMPILED = (
    "admission", "backlog", "batch_forming", "batching", "decisions", "device_turns", "lane_key", "lanes", "latency",
    "overdue", "pool_queue", "pressure", "replica_credits", "replica_fitness", "replica_pace", "routes",
    "running_batches", "scheduler", "waiting_room",
    "simulation/run_recorder", "simulation/simulate", "simulation/simulated_replica",
)  # fmt: skip


def extensions() -> list[Extension]:
    """The compiled modules; types are checked by `make check`, here other packages are not even installed."""
    from mypyc.build import mypycify

    options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
    files = [f"serve_app/{name}.py" for name in COMPILED]
    modules: list[Extension] = mypycify([*options, *files], opt_level="3", group_name="framelane")
    return modules


if os.environ.get("FRAMELANE_COMPILE") != "1":
    setup()
elif find_spec("mypyc") is None:
    # pip asks this file first what it needs, installs that, and runs it again.
    setup(setup_requires=[MYPYC])
else:
    setup(ext_modules=extensions())
