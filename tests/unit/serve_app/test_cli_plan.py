"""`framelane plan` from the command line: what it prints, writes and answers."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from engines.errors import EngineError
from engines.machine import machine_name
from engines.spec import CanvasShape
from serve_app.cli import plan as plan_command
from serve_app.config import load_plan
from serve_app.errors import FramelaneError
from serve_app.latency import Latency, LatencyKey, LatencyTable, Origin
from serve_app.latency_file import save_table
from serve_app.planning.traffic_file import load_traffic

CAMERAS = """
cameras:
- {name: gate, size: [480, 640], fps: 3, priority: critical, slo_s: 0.5}
- {name: belt, size: [720, 1280], fps: 1}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command in an empty folder that holds `fleet.yaml`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.yaml").write_text(CAMERAS)
    app = typer.Typer()
    app.command()(plan_command.plan)

    def call(*args):
        answer = CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "80"})
        if isinstance(answer.exception, (FramelaneError, EngineError)):
            raise answer.exception
        return answer

    return call


@pytest.fixture
def table(tmp_path):
    """Writes a latency table of a machine."""

    def write(machine, model="full"):
        entries = {LatencyKey(model, CanvasShape(480, 640), 1): Latency(0.02, 1e-3, 9)}
        save_table(tmp_path / "times.json", LatencyTable(machine, Origin.MEASURED, entries))
        return tmp_path / "times.json"

    return write


def log_line(at_s, size_hw):
    """A record of a frame log, in short."""
    return json.dumps(
        {"camera": "gate", "source_hw": size_hw, "priority": "normal", "at_s": at_s, "outcome": "expired"}
    )


def test_from_cameras_to_plan_table_and_picture(run, tmp_path):
    """The files lie where it says, and the plan is one."""
    answer = run("fleet.yaml", "--out", "made/plan.yaml")

    assert answer.exit_code == 0, answer.output
    assert "2 frame sizes, 4 frames/s; latencies assumed" in answer.output
    assert "no choice of so many canvases needs less" in answer.output
    assert "one square, 1280×1280" in answer.output
    assert "plan: made/plan.yaml" in answer.output
    plan = load_plan(tmp_path / "made" / "plan.yaml")
    assert [bucket.canvases for bucket in plan.buckets] == [((480, 640),), ((736, 1280),)]
    assert load_traffic(tmp_path / "made" / "plan.traffic.csv") == load_traffic(tmp_path / "fleet.yaml")
    assert (tmp_path / "made" / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert max(map(len, answer.output.splitlines()[:6])) <= 80


def test_several_files_add_up(run, tmp_path):
    """The logs of two routers, say."""
    (tmp_path / "more.csv").write_text("height,width,rate_hz\n480,640,6\n")

    assert "2 frame sizes, 10 frames/s" in run("fleet.yaml", "more.csv").output


def test_a_plan_fits_its_own_traffic_and_drifts_from_other(run, tmp_path):
    """Exit status 0 and 2; the frames of a log are compared with those that the plan was made for."""
    run("fleet.yaml")
    (tmp_path / "live.jsonl").write_text("\n".join(log_line(at_s / 2, [1280, 720]) for at_s in range(10)))
    same, other = run("--check", "fleet.yaml"), run("--check", "live.jsonl", "--plan", tmp_path / "plan.yaml")

    assert (same.exit_code, other.exit_code) == (0, plan_command.DRIFTED_STATUS)
    assert same.output.startswith("fits\n")
    assert other.output.startswith("drifted\n- 100% of the frames are larger than every canvas")
    assert "100% of the frames changed size" in other.output


def test_a_table_of_this_machine_is_used_and_named_in_the_plan(run, table, tmp_path):
    """Its origin is printed."""
    path = table(machine_name())
    answer = run("fleet.yaml", "--latency", path)

    assert f"latencies measured on {machine_name()}" in answer.output.replace("\n", " ")
    assert load_plan(tmp_path / "plan.yaml").latency == str(path)


def test_a_table_of_another_machine_needs_force(run, table):
    """A plan from wrong seconds is worse than none."""
    path = table("a Cray")

    with pytest.raises(FramelaneError, match="got one measured on 'a Cray', allowed is one of this machine"):
        run("fleet.yaml", "--latency", path)
    assert "latencies measured on a Cray" in run("fleet.yaml", "--latency", path, "--force").output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "plan: got no TRAFFIC, allowed are frame logs"),
        (("fleet.yaml", "--check", "fleet.yaml"), "plan: got TRAFFIC and --check, allowed is one of them"),
        (("none.csv",), "traffic none.csv: no such file or directory"),
        (("fleet.yaml", "--max-canvas", "big"), "--max-canvas: got 'big', allowed is HEIGHTxWIDTH in px"),
        (("fleet.yaml", "--max-canvas", "100x100"), "max_canvas: got 100x100, allowed are positive multiples"),
        (("fleet.yaml", "--name", "a b"), "--name: got 'a b', allowed are letters"),
        (("fleet.yaml", "--memory-mib", "20"), "memory: got a limit of 20 MiB, allowed is 55 MiB or more"),
        (("fleet.yaml", "--model", "none.onnx"), "none.onnx"),
        (("--check", "fleet.yaml"), "plan plan.yaml: no such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_planned_is_told(run, args, message, tmp_path):
    """What, got, allowed; nothing is written."""
    with pytest.raises((FramelaneError, EngineError), match=message):
        run(*args)
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.yaml"]


def test_a_table_without_this_model_is_refused(run, table):
    """Its times would not be used, and nobody would know."""
    with pytest.raises(FramelaneError, match="got times of light, needed are those of full; profile it, or name"):
        run("fleet.yaml", "--latency", table(machine_name(), model="light"))
