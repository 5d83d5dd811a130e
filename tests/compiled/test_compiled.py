"""Scheduler and simulator compiled by mypyc are what they are as source; run by `make test-compiled`.

The unit tests run on the compiled modules too, in the same run: here is only what they cannot see.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from ray import cloudpickle

import serve_app
from engines.machine import machine_name
from engines.spec import CanvasShape
from serve_app.app import application
from serve_app.config import load_plan, plan_path
from serve_app.decisions import Arrival, Decisions, Expired
from serve_app.frames import Frame, Priority
from serve_app.latency import Latency, LatencyKey, LatencyTable, Origin
from serve_app.latency_file import save_table
from serve_app.pool_load import PoolLoad
from serve_app.replica_credits import SchedulerStateError
from serve_app.simulation.simulate import SimulationError
from serve_app.verdicts import Verdict, VerdictKind

ROOT = Path(__file__).parents[2]
TABLE = LatencyTable(
    machine_name(), Origin.MEASURED, {LatencyKey("full", CanvasShape(32, 64), 1): Latency(0.01, 0.001, 3)}
)
COMPILED_HOME = Path(serve_app.__file__).parents[1]
PLAYER = ROOT / "tests" / "unit" / "serve_app" / "simulated_log.py"
(COMPILED,) = (
    ast.literal_eval(node.value)
    for node in ast.parse((ROOT / "setup.py").read_text()).body
    if isinstance(node, ast.Assign) and node.targets[0].id == "COMPILED"
)


@pytest.mark.parametrize("name", COMPILED)
def test_the_compiled_module_is_what_is_tested(name):
    """Otherwise all the others prove nothing."""
    module = importlib.import_module("serve_app." + name.replace("/", "."))

    assert Path(module.__file__).suffix == ".so"
    assert Path(module.__file__).parents[name.count("/") + 1] != ROOT


@pytest.mark.parametrize("load", ["0.7", "3.2"])
def test_it_decides_what_the_source_decides(tmp_path, load):
    """Half a minute with bursts, a ladder and a dead replica: the same record of every frame, to the last digit."""
    logs = []
    for home in (str(COMPILED_HOME), str(ROOT)):
        log = tmp_path / f"{len(logs)}.jsonl"
        command = [sys.executable, str(PLAYER), str(log), "30", load]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": home}, timeout=120)
        logs.append(log.read_bytes())

    assert logs[0].count(b"\n") > 100
    assert logs[0] == logs[1]


@pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize(
    "value",
    [
        PoolLoad(1, 2, 3, 0.5, 1, 0.01),
        TABLE,
        Decisions((), (Expired(Frame("1", "gate", (48, 64), Priority.CRITICAL, 1.0, 2.0, 9), None),), ()),
        Arrival(Verdict(VerdictKind.ADMIT, "in time by prediction"), None, 1.0),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_travel(value, pickler):
    """Between processes, by Ray's pickler and the plain one."""
    assert pickler.loads(pickler.dumps(value)) == value


@pytest.mark.parametrize("error", [SchedulerStateError, SimulationError])
def test_errors_travel(error):
    """With their type and words."""
    arrived = cloudpickle.loads(cloudpickle.dumps(error("batch 3: is not running")))

    assert (type(arrived), str(arrived)) == (error, "batch 3: is not running")


def test_the_command_says_so(tmp_path):
    """Whoever looks for a fault must know which of the two runs."""
    command = [sys.executable, "-m", "serve_app.cli", "--version"]
    environment = {**os.environ, "PYTHONPATH": str(COMPILED_HOME)}
    shown = subprocess.check_output(command, env=environment, cwd=tmp_path, text=True, timeout=60)

    assert shown.strip().endswith("(scheduler compiled)")


def test_an_application_travels_to_machines_that_run_the_source(tmp_path):
    """A cluster may have both: what `framelane up` sends holds nothing that only one of them knows."""
    packed = tmp_path / "application"
    save_table(tmp_path / "latency.json", TABLE)
    plan = dataclasses.replace(load_plan(plan_path("bundled:demo")), latency=str(tmp_path / "latency.json"))
    packed.write_bytes(cloudpickle.dumps(application(plan)))
    unpack = f"import ray.cloudpickle; print(ray.cloudpickle.load(open({str(packed)!r}, 'rb')))"
    for home in (ROOT, COMPILED_HOME):
        environment = {**os.environ, "PYTHONPATH": str(home)}
        shown = subprocess.check_output(
            [sys.executable, "-c", unpack], env=environment, cwd=tmp_path, text=True, timeout=60
        )
        assert "Application" in shown
