"""Imports run one way, and the policy modules bring nothing heavy along."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import engines
import serve_app

ENGINES, SERVE_APP = Path(engines.__file__).parent, Path(serve_app.__file__).parent

PURE = [
    "admission", "autoscaling", "backlog", "batch_forming", "batching", "build_leases", "camera_owner",
    "camera_summary", "cluster_room", "credit_grants", "decisions", "device_turns", "errors", "file_fields",
    "frame_boxes", "frame_ends", "frame_log", "frames", "http_rules", "label_rule", "lane_key", "lanes", "latency",
    "latency_file", "lingering", "memory_gauge", "memory_level", "metric_book", "metric_catalog", "metrics",
    "native_plan", "overdue", "placement", "plan", "pool_load", "pool_queue", "pressure", "recent_results",
    "replica_credits", "replica_fitness", "replica_limits", "replica_pace", "replica_packing", "results", "retries",
    "route", "router_credits", "router_status", "routes", "running_batches", "scheduler", "service_view", "spool_rules",
    "tickets", "verdicts", "waiting_room", "http.content_encoding", "http.errors", "http.image_decode",
    "http.image_errors", "http.image_header", "http.inference_protocol_document", "http.inference_protocol_model",
    "http.inference_protocol_request", "http.tensor_codec", "http.time_left", "live.camera_book", "live.last_frames",
    "live.live_report", "live.numbers", "live.router_side", "live.spread", "planning.bucket_search",
    "planning.canvas_search", "planning.drift", "planning.engine_memory", "planning.plan_load", "planning.plan_task",
    "planning.planner", "planning.proposal", "planning.traffic", "planning.traffic_count", "report.charts",
    "report.frame_groups", "report.frame_line", "report.frames_ahead", "report.log_clock", "report.markup",
    "report.quantile_sketch", "report.reasons", "report.slow_frames", "report.slow_story", "report.timeline",
    "report.words", "simulation.clairvoyant", "simulation.failures", "simulation.gpu_tables", "simulation.run_recorder",
    "simulation.simulate", "simulation.simulated_calls", "simulation.simulated_replica", "simulation.simulated_scaling",
    "simulation.simulation_report", "simulation.simulation_run", "simulation.simulation_table", "simulation.traces",
    "spool.feed_queue", "spool.record", "spool.result_record", "spool.spool", "spool.spool_answers",
    "spool.spool_clock", "spool.spool_metrics", "spool.spool_status", "streams.backoff", "streams.camera_state",
    "streams.pace", "streams.stream_records", "streams.stream_values",
]  # fmt: skip
HEAVY = [
    "ray", "torch", "ultralytics", "tensorrt", "tensorrt_rtx_bindings", "cuda", "pynvml",
    "onnx", "onnxruntime", "asyncio", "fastapi", "starlette", "uvicorn",
    "pydantic", "yaml", "multiprocessing.pool", "concurrent.futures.thread",
]  # fmt: skip
ASK = """
import importlib, json, sys
for name in sys.argv[1].split(","):
    importlib.import_module("serve_app." + name)
print(json.dumps([name for name in sys.argv[2].split(",") if name in sys.modules]))
"""


def path_of(name: str) -> Path:
    """The file of a module of this package."""
    return SERVE_APP.joinpath(*name.split(".")).with_suffix(".py")


def heavy_after_importing(*modules: str) -> list[str]:
    """Which heavy modules a fresh interpreter holds after importing these."""
    command = [sys.executable, "-c", ASK, ",".join(modules), ",".join(HEAVY)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return json.loads(answer.stdout)


def imported_by(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_the_policy_modules_import_nothing_heavy():
    """One laptop core simulates a thousand GPUs with the code that runs in production."""
    assert heavy_after_importing(*PURE) == []


def test_the_question_would_notice_a_heavy_module():
    """`config.py` reads YAML and uses pydantic; if even that is not seen, the test above proves nothing."""
    assert {"pydantic", "yaml"} <= set(heavy_after_importing("config"))


@pytest.mark.parametrize("path", sorted(ENGINES.rglob("*.py")), ids=lambda path: path.name)
def test_engines_never_import_the_application(path):
    """Engines run in scripts and benches without Ray Serve."""
    assert [name for name in sorted(imported_by(path)) if name.partition(".")[0] in ("serve_app", "ray")] == []


@pytest.mark.parametrize("name", PURE)
def test_policy_modules_import_policy_modules_only(name):
    """Of this package: what is pure today stays so by construction, not by luck."""
    ours = {
        module.partition(".")[2]
        for module in imported_by(path_of(name))
        if module.startswith("serve_app.") and path_of(module.partition(".")[2]).is_file()
    }

    assert ours <= set(PURE)


@pytest.mark.parametrize("name", [name for name in PURE if name != "frame_log"])
def test_policy_modules_read_no_clock_and_draw_no_lots(name):
    """Time is an argument; so a test, the simulator and the router see the same decisions."""
    forbidden = {"time", "datetime", "random", "os", "uuid", "threading", "socket", "subprocess", "logging"}

    assert forbidden & imported_by(path_of(name)) == set()
